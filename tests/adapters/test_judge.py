"""Every citation of an imported model is true for a judge that has only the original module and LightGBM.

The judge keeps whole sessions. It deletes the cited event, lets the original read what is left as its own code does,
and ranks the slate by ``Booster.predict``. Nothing of the bundle is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from stream.cli import app
from stream.explain.pipeline import Explainer
from tests.adapters.judge import FEATURES, Judge, false_citations, reranker, slate_of
from tests.adapters.originals import (
    Bert4recOriginal,
    Gru4recOriginal,
    Original,
    RecboleOriginal,
    SasrecOriginal,
    TwoTowerOriginal,
    load,
)

pytestmark = pytest.mark.slow

CHECKPOINT = Path(__file__).parents[3] / "shared/data/sasrec-ml-1m"
ITEMS, D, WIDTH = 40, 16, 8


def sasrec_of_movielens() -> Original:
    if not CHECKPOINT.is_dir():
        pytest.skip("the public SASRec checkpoint is not beside this checkout")
    [file] = CHECKPOINT.iterdir()
    weights = torch.load(file, map_location="cpu", weights_only=True)
    return load(SasrecOriginal(3416, 50, 200, 2, 1, "original"), weights)


MODELS: dict[str, tuple[Callable[[], Original], list[str], int]] = {
    "sasrec": (lambda: SasrecOriginal(ITEMS, D, WIDTH, 2, 2, "original").randomised(1), ["--heads", "2"], WIDTH),
    "gru4rec": (lambda: Gru4recOriginal(ITEMS, (24, D)).randomised(2), ["--max-length", str(WIDTH)], WIDTH),
    "bert4rec": (lambda: Bert4recOriginal(ITEMS, D, WIDTH + 1, 2, 2).randomised(3), ["--heads", "2"], WIDTH),
    "two-tower": (
        lambda: TwoTowerOriginal(ITEMS, D, shared=False).randomised(4), ["--max-length", str(WIDTH)], WIDTH,
    ),
    "recbole sasrec": (lambda: RecboleOriginal("SASRec", ITEMS, D, WIDTH, 2, 2, "gelu").randomised(5), [], WIDTH),
    "recbole gru4rec": (
        lambda: RecboleOriginal("GRU4Rec", ITEMS, D, WIDTH, 1, 1, "").randomised(6),
        ["--max-length", str(WIDTH)],
        WIDTH,
    ),
    "recbole bert4rec": (lambda: RecboleOriginal("BERT4Rec", ITEMS, D, WIDTH, 2, 2, "gelu").randomised(7), [], WIDTH),
    "sasrec of MovieLens": (sasrec_of_movielens, [], 200),
}  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Judge, list[Any]]:
    """Import a model by the command, explain slates of sessions around the edges."""
    make, settings, width = MODELS[request.param]
    original, folder = make(), tmp_path_factory.mktemp("imported")
    spread = float(original.scores([1, 2, 3])[1:].std())
    judge = Judge(original, reranker(spread), width, empty=not request.param.startswith("recbole"))
    torch.save(original.state_dict(), folder / "model.pth")
    judge.booster.save_model(str(folder / "trees.txt"))
    (folder / "features.json").write_text(json.dumps(FEATURES))
    items = len(original.scores([1])) - 1
    lines = [
        f"f{item},Film {item},{'Drama' if item % 3 else 'War|Comedy'},{item * 7 % 101}" for item in range(1, items + 1)
    ]
    (folder / "films.csv").write_text("item_id,title,category,popularity\n" + "\n".join(lines))
    before = Path.cwd()
    os.chdir(folder)
    try:
        given = ["--family", request.param.partition(" ")[0], "--checkpoint", "model.pth", "--catalog", "films.csv",
                 "--reranker", "trees.txt", "--features", "features.json", "--feature-set", "evening"]  # fmt: skip
        done = CliRunner().invoke(app, ["models", "import", *given, "--out", "films", *settings])
    finally:
        os.chdir(before)
    assert done.exit_code == 0, f"{done.output}{done.exception}"
    random = np.random.default_rng(11)
    lengths = [1, 2, width - 1, width, width + 1, 2 * width] * (3 if width > 100 else 8)
    slates = [
        slate_of(judge, "films@1", random.integers(1, items + 1, length).tolist(), seed)
        for seed, length in enumerate(lengths)
    ]
    explanations = Explainer.load(folder / "films").explain(slates)
    return judge, list(zip(slates, explanations, strict=True))


def test_no_citation_is_false(told: tuple[Judge, list[Any]]) -> None:
    judge, pairs = told
    count, false = false_citations(judge, pairs)
    assert false == []
    assert count > 30
    lengths = {
        len(impression["session"])
        for impression, explanation in pairs
        if any(item["evidence"]["history"] for item in explanation["items"])
    }
    expected = {2, judge.width - 1, judge.width, judge.width + 1, 2 * judge.width}
    # Of an empty session nothing is said where the original cannot be asked.
    assert lengths == expected | ({1} if judge.empty else set())

"""What docs/bring-your-own.md shows is run as it stands there, on the files of a small recommender."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.catalog_files import read_items
from schemas.json_form import from_json
from tests.adapters.judge import FEATURES, Judge, reranker, slate_of
from tests.adapters.originals import SasrecOriginal
from tests.docs.test_readme import ROOT, run
from tests.graphs import mean_graph

pytestmark = pytest.mark.slow

TEXT = (ROOT / "docs" / "bring-your-own.md").read_text("utf-8")
ITEMS, D, WIDTH = 40, 16, 8


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def own_model(folder: Path) -> Any:
    """Write the module that the text shows, and import it."""
    path = folder / "own_model.py"
    path.write_text(next(block for block in blocks("python") if "own_model.py" in block))
    spec = importlib.util.spec_from_file_location("own_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_walk_from_files_to_an_explanation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "recommender"
    folder.mkdir()
    model = SasrecOriginal(ITEMS, D, WIDTH, 2, 1, "original").randomised(1)
    booster = reranker(float(model.scores([1, 2, 3])[1:].std()))
    save_model, save_trees, _ = blocks("python")
    exec(compile(save_model + save_trees, "bring-your-own.md", "exec"),  # noqa: S102 (it is our own text)
         {"torch": torch, "model": model, "booster": booster})  # fmt: skip
    features, _ = blocks("json")
    assert [each["name"] for each in json.loads(features)] == [each["name"] for each in FEATURES]
    (folder / "features.json").write_text(features)
    lines = [f"f{item},Film {item},{'Drama' if item % 3 else 'War|Comedy'},{item}" for item in range(1, ITEMS + 1)]
    (folder / "films.csv").write_text("item_id,title,category,popularity\n" + "\n".join(lines))
    judge, random = Judge(model, booster, WIDTH), np.random.default_rng(5)
    sessions = [random.integers(1, ITEMS + 1, 12 - number % 12).tolist() for number in range(60)]
    slates = [slate_of(judge, "films@1", session, seed) for seed, session in enumerate(sessions)]
    (folder / "served.jsonl").write_text("".join(json.dumps(slate) + "\n" for slate in slates))
    torch.manual_seed(2)
    torch.save(own_model(folder).Encoder(ITEMS, D, WIDTH).state_dict(), folder / "encoder.pth")
    vectors = random.normal(size=(ITEMS + 1, D)).astype(np.float32)
    vectors[0] = 0
    np.save(folder / "vectors.npy", vectors)
    (folder / "encoder.onnx").write_bytes(mean_graph(vectors, vectors[1]))

    printed = run("\n".join(blocks("sh")), tmp_path)
    assert "wrote films@1 to films" in printed
    assert "wrote own-films@1 to own-films" in printed
    assert "citations must survive deletion, substitution" in printed
    assert "does not fit" not in printed
    assert slates[0]["request_id"] in printed
    assert "Because you" in printed


def test_the_files_shown_are_such_files(tmp_path: Path) -> None:
    [shown] = blocks("csv")
    (tmp_path / "films.csv").write_text(shown)
    assert read_items(tmp_path / "films.csv").titles == ("Clueless", "Heat")
    _, slate = blocks("json")
    impression = from_json("impression", slate.encode())
    assert impression["items"][0]["reranking_score"] == pytest.approx(0.83)
    assert [event["item_id"] for event in impression["session"]] == ["tt0112697", "tt0113277"]

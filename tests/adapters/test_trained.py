"""Models that are trained here go all the way: import, check, calibrate, evaluate, worker, archive, replay.

Their citations, taken from Kafka, are judged by the original module and LightGBM alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from models.data.movielens import load as load_movielens
from models.data.sessions import Sessions
from models.data.simulator import simulate
from schemas.codec import Codec
from schemas.json_form import to_json
from stream.cli import app
from stream.settings import Settings
from tests.adapters.judge import FEATURES, Judge, Record, false_citations, reranker, slate_of
from tests.adapters.originals import Bert4recOriginal, Gru4recOriginal, Original, SasrecOriginal, load
from tests.parts.fixtures import ExistingKafka
from tests.parts.kafka import Kafka
from tests.worker.bus import Bus, kafka_bus
from tests.worker.running import running, until_archived

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[3] / "shared" / "data"
WIDTH, D, STEPS, BATCH, SLATE = 12, 24, 150, 128, 10

MAKERS: dict[str, tuple[Callable[[int], Original], list[str]]] = {
    "sasrec": (
        lambda items: SasrecOriginal(items, D, WIDTH, 2, 2, "post-norm"), ["--heads", "2", "--variant", "post-norm"],
    ),
    "gru4rec": (lambda items: Gru4recOriginal(items, (D,)), ["--max-length", str(WIDTH)]),
    "bert4rec": (lambda items: Bert4recOriginal(items, D, WIDTH + 1, 2, 2), ["--heads", "2"]),
}  # fmt: skip


def sessions_of(source: str) -> Sessions:
    if source == "simulator":
        return simulate(3_000, 5)
    if not (DATA / "movielens-100k").is_dir():
        pytest.skip("no copy of MovieLens 100K beside this checkout")
    return load_movielens(DATA / "movielens-100k", stride=5)


def trained(original: Original, sessions: Sessions) -> Original:
    """Learn the next item of full windows, by softmax over all items."""
    newest = sessions.lay_out(sessions.item, WIDTH + 1)
    full = newest[newest[:, 0] > 0].astype(np.int32)
    original.randomised(0)
    for each in original.parameters():
        each.data *= 0.3 if each.ndim > 1 else 1.0
    optimizer, random = torch.optim.Adam(original.parameters(), 5e-3), np.random.default_rng(0)
    for _ in range(STEPS):
        rows = full[random.integers(0, len(full), BATCH)]
        loss = torch.nn.functional.cross_entropy(original.learned(rows[:, :-1]), torch.from_numpy(rows[:, -1]).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return original.eval()


@dataclass(frozen=True)
class Imported:
    """A bundle that was imported, with its judge and slates that were served."""

    bundle: Path
    judge: Judge
    slates: list[Record]
    served: Path


def histories(source: str, width: int) -> tuple[npt.NDArray[np.int64], Original | None, Any]:
    """Return long histories int64 [N, 2 width], and the public model or the sessions to learn from."""
    if source == "public checkpoint":
        if not (DATA / "sasrec-ml-1m").is_dir():
            pytest.skip("the public SASRec checkpoint is not beside this checkout")
        [file] = (DATA / "sasrec-ml-1m").iterdir()
        weights = torch.load(file, map_location="cpu", weights_only=True)
        random = np.random.default_rng(2)
        return (
            random.integers(1, 3417, (30, 2 * width)),
            load(SasrecOriginal(3416, 50, 200, 2, 1, "original"), weights),
            None,
        )
    sessions = sessions_of(source)
    laid = sessions.lay_out(sessions.item, 2 * width)
    return laid[laid[:, 0] > 0][:30], None, sessions


@pytest.fixture(
    scope="module",
    params=[
        ("sasrec", "public checkpoint"),
        *[(family, source) for source in ("simulator", "MovieLens") for family in MAKERS],
    ],
    ids=" ".join,
)
def imported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    family, source = request.param
    folder = tmp_path_factory.mktemp("trained")
    width = 200 if source == "public checkpoint" else WIDTH
    long, original, sessions = histories(source, width)
    settings: list[str] = []
    if original is None:
        make, settings = MAKERS[family]
        original = trained(make(len(sessions.catalog)), sessions)
    items = len(original.scores([1])) - 1
    spread = float(np.mean([original.scores(session[-width:])[1:].std() for session in long[:5].tolist()]))
    judge = Judge(original, reranker(spread), width)
    torch.save(original.state_dict(), folder / "model.pth")
    judge.booster.save_model(str(folder / "trees.txt"))
    (folder / "features.json").write_text(json.dumps(FEATURES))
    columns: dict[str, Any] = {
        "item_id": [f"f{item}" for item in range(1, items + 1)],
        "title": [f"Film {item}" for item in range(1, items + 1)],
        "category": [["Drama"] if item % 3 else ["War", "Comedy"] for item in range(1, items + 1)],
    }
    pq.write_table(pa.table(columns), folder / "films.parquet")
    bundle = folder / "films"
    run("models", "import", "--family", family, "--checkpoint", folder / "model.pth", "--catalog",
        folder / "films.parquet", "--reranker", folder / "trees.txt", "--features", folder / "features.json",
        "--feature-set", "evening", "--out", bundle, *settings)  # fmt: skip
    lengths = [1, 2, width - 1, width, width + 1, 2 * width]
    slates = [
        slate_of(judge, "films@1", session[: lengths[seed % 6]], seed) for seed, session in enumerate(long.tolist())
    ]
    served = folder / "served.jsonl"
    served.write_text("".join(f"{to_json(slate)}\n" for slate in slates))
    return Imported(bundle, judge, slates, served)


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 0, f"{done.output}{done.exception}"
    return done.output


@pytest.fixture(scope="module")
def explained(
    imported: Imported, kafka: Kafka | ExistingKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Bus, list[Record]]]:
    """Calibrate, let a worker explain and archive the slates, and read its explanations."""
    assert "100.0%" in run("models", "check", imported.bundle, "--impressions", imported.served)
    run("models", "calibrate", imported.bundle, "--impressions", imported.served, "--share", "0.5")
    folder, codec = tmp_path_factory.mktemp("worker"), Codec()
    base = Settings(bundle_dir=imported.bundle, archive_url=str(folder / "archive"))
    with kafka_bus(base, kafka.bootstrap) as bus:
        topic = bus.settings.topic("impressions")
        encoded = [codec.encode("impression", {"detail": False, **slate}, topic) for slate in imported.slates]
        bus.send_all([(each.value, each.headers) for each in encoded])
        with running(bus.settings, folder / "log"), bus.reader("explanations") as reader:
            until_archived(bus.settings, len(imported.slates) * SLATE)
            messages = reader.until(lambda found: len(found) >= len(imported.slates))
            yield bus, [codec.decode("explanation", each.value() or b"", each.headers()) for each in messages]


def test_evaluation_finds_no_false_citation(imported: Imported, tmp_path: Path) -> None:
    run("evaluate", "--impressions", imported.served, "--bundle", imported.bundle, "--policy", "evidence",
        "--json", tmp_path / "found.json")  # fmt: skip
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["citations"] > 5
    assert (found["wrong_drops"], found["no_drops"], found["wrong_ranks"], found["mismatched"]) == (0, 0, 0, 0)


@pytest.mark.server("kafka")
def test_no_citation_on_kafka_is_false(imported: Imported, explained: tuple[Bus, list[Record]]) -> None:
    by_request = {slate["request_id"]: slate for slate in imported.slates}
    told = [(by_request[each["request_id"]], each) for each in explained[1]]
    assert len(told) == len(imported.slates)
    count, false = false_citations(imported.judge, told)
    assert count > 5
    assert false == []


@pytest.mark.server("kafka")
def test_the_archive_replays_what_was_said(imported: Imported, explained: tuple[Bus, list[Record]]) -> None:
    settings = explained[0].settings
    given = {
        "WHYREC_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "WHYREC_BUNDLE_DIR": str(settings.bundle_dir),
        "WHYREC_ARCHIVE_URL": settings.archive_url,
        "WHYREC_IMPRESSIONS_TOPIC": settings.topic("impressions"),
        "COLUMNS": "200",
    }
    for slate in imported.slates[:6]:
        done = CliRunner().invoke(app, ["replay", "--request", slate["request_id"]], env=given)
        assert done.exit_code == 0, done.output
        assert f"Proven: {SLATE} of {SLATE}" in done.output

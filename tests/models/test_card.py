"""The card of a trained bundle, and the checks of bundles."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from models.build import build
from models.bundle import Bundle, sha256
from models.card import Facts, render
from models.check import check
from models.data.sessions import Sessions
from models.data.simulator import simulate
from models.data.slates import impressions
from models.plans import SIMULATED, Plan
from models.reranker.runtime import Reranker
from models.session.config import Recipe
from models.session.evaluate import Metrics
from models.session.runtime import SessionModel
from stream.commands.models import TrainingUnavailable, app
from tests.bundles import tiny_bundle
from tests.models.test_session_runtime import foreign_graph
from tests.models.test_session_train import walks

RUN = CliRunner()
QUICK = replace(SIMULATED, recipe=Recipe(epochs=1, events_per_batch=4096), command="whyrec models train --quick")


class Built:
    """A small bundle, trained for one epoch, and the progress reports of its build."""

    def __init__(self, directory: Path, plan: Plan, sessions: Sessions) -> None:
        self.stages: list[tuple[str, int, int]] = []
        self.bundle = build(
            directory, plan, sessions, report=lambda stage, done, total, _: self.stages.append((stage, done, total))
        )


@pytest.fixture(scope="module")
def sessions() -> Sessions:
    return walks(1200, seed=12)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, sessions: Sessions) -> Built:
    return Built(tmp_path_factory.mktemp("built"), QUICK, sessions)


@pytest.fixture
def movielens(tmp_path: Path) -> Path:
    """Invented ratings in GroupLens' layout: most users rate film k + 7 after film k."""
    folder, invented = tmp_path / "ml", walks(400, seed=6, length=14)
    folder.mkdir()
    genres = "|".join("0" * 18)
    films = [f"{film}|Film {film} (1990)|||{'|1|' if film % 2 else '|0|'}{genres}" for film in range(1, 61)]
    (folder / "u.item").write_text("\n".join(films) + "\n", encoding="latin-1")
    rows = zip(np.repeat(np.arange(400), 14), invented.item, invented.engagement, invented.timestamp_ms, strict=True)
    ratings = [f"{user}\t{item}\t{5 - given % 3}\t{time // 1000}" for user, item, given, time in rows]
    (folder / "u.data").write_text("\n".join(ratings) + "\n")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("tiny"))


@pytest.mark.slow
def test_a_build_gives_a_bundle_that_passes_all_checks(built: Built, sessions: Sessions) -> None:
    assert [finding for finding in check(built.bundle.path) if finding.fits is False] == []
    slate = next(impressions(built.bundle, sessions, items=5))
    assert slate["model_version"] == "streamrec@1"
    assert len(slate["items"]) == 5


def test_a_build_reports_every_stage_to_its_end(built: Built) -> None:
    last = {stage: (done, total) for stage, done, total in built.stages}
    assert list(last) == ["transformer", "LSTM", "re-ranker", "card"]
    assert all(done == total for done, total in last.values())


def test_the_card_has_data_metrics_limits_and_the_command(built: Built, sessions: Sessions) -> None:
    text = built.bundle.card
    for line in (
        "# streamrec@1",
        f"| events | {len(sessions.item):,} |",
        "| transformer | 412,288 | 1 |",
        "| LSTM | 412,544 | 1 |",
        "## Limits",
        "    whyrec models train --quick",
    ):
        assert line in text, line
    ranked = [line.split("|")[1].strip() for line in text.splitlines() if line.count("|") == 5]
    assert {"transformer", "LSTM of the same size", "popularity"} <= set(ranked)


def test_the_card_states_if_another_model_ranks_better() -> None:
    better, worse = Metrics(0.5, 0.3, 0.2, 100), Metrics(0.4, 0.2, 0.1, 100)
    facts = Facts(
        model_version="m@1",
        title="T",
        data={},
        rank={"transformer": worse, "LSTM": better},
        trainings=[],
        reranker=dict.fromkeys(
            ("auc", "auc_session_score", "ndcg10", "ndcg10_session_score", "engaged_share", "slates", "test_slates"),
            0.5,
        )
        | {"trees": 3.0},
        heads=[],
        causes=None,
        limits=[],
        command="c",
    )
    assert "The LSTM ranks better." in render(facts)
    assert "ranks better" not in render(replace(facts, rank={"transformer": better, "LSTM": worse}))


@pytest.mark.slow
def test_the_same_build_gives_the_same_models(built: Built, tmp_path: Path, sessions: Sessions) -> None:
    again = Built(tmp_path, replace(QUICK, baseline=False), sessions)
    for file in ("session.onnx", "item_vectors.npy", "reranker.txt"):
        assert again.bundle.manifest.files[file] == built.bundle.manifest.files[file], file
    assert "LSTM" not in again.bundle.card


def test_a_valid_bundle_passes_all_checks(tiny: Path) -> None:
    result = RUN.invoke(app, ["check", str(tiny)], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "does not fit" not in result.output
    for name in ("bundle", "session model", "padding", "without", "re-ranker", "contributions"):
        assert name in result.output


def test_a_foreign_model_passes_with_notes_on_missing_outputs(tmp_path: Path) -> None:
    findings = {each.what: each for each in check(tiny_bundle(tmp_path, session_onnx=foreign_graph()))}
    assert all(each.fits is not False for each in findings.values())
    assert findings["without"].fits is None
    assert "deletion runs" in findings["without"].says
    assert findings["engagements"].fits is None


def test_a_model_that_attends_to_padding_does_not_pass(tmp_path: Path) -> None:
    findings = {each.what: each for each in check(tiny_bundle(tmp_path, session_onnx=foreign_graph(masked=False)))}
    assert findings["padding"].fits is False
    assert "mask it" in findings["padding"].says
    assert findings["attention"].fits is False


@pytest.mark.parametrize(
    ("file", "data", "what"),
    [
        ("session.onnx", b"no graph", "session model"),
        ("session.onnx", foreign_graph(outputs=("attention",)), "session model"),
        ("features.json", b"[]", "bundle"),
    ],
)
def test_an_invalid_part_is_named_and_the_command_fails(
    tiny: Path, tmp_path: Path, file: str, data: bytes, what: str
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "bundle"))
    (folder / file).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][file] = sha256(data)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert [each.what for each in check(folder) if each.fits is False] == [what]
    result = RUN.invoke(app, ["check", str(folder)], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "does not fit" in result.output
    assert "expected" in result.output


def test_trees_that_do_not_load_are_named(tiny: Path, tmp_path: Path) -> None:
    text = (tiny / "reranker.txt").read_text()
    folder = tiny_bundle(tmp_path / "bundle", reranker_text=text[: text.index("Tree=1")])
    assert [each.what for each in check(folder) if each.fits is False] == ["re-ranker"]


def test_scores_outside_0_to_1_are_no_probabilities(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path, reranker_output="probability")
    assert [each.what for each in check(folder) if each.fits is False] == ["scores"]


def test_the_card_is_printed(tiny: Path) -> None:
    result = RUN.invoke(app, ["card", str(tiny)])
    assert result.exit_code == 0
    assert result.output.strip() == (tiny / "card.md").read_text().strip()


@pytest.mark.slow
def test_the_shipped_bundle_passes_all_checks_and_is_small() -> None:
    bundle = Bundle.load(Path(__file__).parents[2] / "models" / "bundles" / "streamrec")
    assert sum(path.stat().st_size for path in bundle.path.iterdir()) <= 8_000_000
    assert [finding for finding in check(bundle.path) if finding.fits is False] == []
    assert len(bundle.catalog) == 5000


@pytest.mark.slow
def test_the_shipped_bundle_predicts_the_next_item(tmp_path: Path) -> None:
    """The threshold is far above popularity; the card has the exact metrics, which need the training data."""
    bundle = Bundle.load(Path(__file__).parents[2] / "models" / "bundles" / "streamrec")
    users = simulate(400, seed=77)
    model = SessionModel(bundle)
    vectors = model.run(*users.without_last().padded(50), without=False).vector
    scores = vectors @ bundle.item_vectors.T
    newest = users.item[users.offsets[1:] - 1]
    rank = (scores[:, 1:] > np.take_along_axis(scores, newest[:, None].astype(np.int64), axis=1)).sum(axis=1)
    assert (rank < 10).mean() > 0.3
    assert Reranker.load(bundle).link.name == "raw score"


@pytest.mark.parametrize("options", [[], ["--simulated", "--movielens", "."]])
def test_training_needs_one_source(tmp_path: Path, options: list[str]) -> None:
    result = RUN.invoke(app, ["train", "--out", str(tmp_path), *options])
    assert isinstance(result.exception, TrainingUnavailable)
    assert "needs one source" in str(result.exception)


@pytest.mark.slow
def test_training_by_command_writes_a_bundle_with_its_command(tmp_path: Path, movielens: Path) -> None:
    out = tmp_path / "bundle"
    result = RUN.invoke(
        app, ["train", "--movielens", str(movielens), "--out", str(out), "--epochs", "1", "--no-baseline"]
    )
    assert result.exception is None, result.output
    assert "wrote movielens@1" in result.output
    assert "whyrec models train --movielens DIR --out DIR --epochs 1 --no-baseline" in Bundle.load(out).card

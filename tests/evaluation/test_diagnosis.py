"""``whyrec models check --impressions``: which scores differ from the bundle's own, why, and what to do."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from models.bundle import Bundle
from schemas.columnar import from_records
from schemas.json_form import to_json
from schemas.versions import parsed
from stream.commands.models import app
from tests.bundles import tiny_bundle, tiny_impression

Record = dict[str, Any]
Change = Callable[[Record], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def served(folder: Path) -> list[Record]:
    bundle = Bundle.load(folder)
    return [tiny_impression(bundle, session=12, items=10, seed=seed) for seed in range(6)]


def compared(folder: Path, source: Path | str, stdin: str | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(
        app, ["check", str(folder), "--impressions", str(source)], env={"COLUMNS": "250"}, input=stdin
    )
    return done.exit_code, " ".join(done.output.split())


def avro(records: list[Record], path: Path) -> None:
    with path.open("wb") as file:
        whole = [json.loads(to_json(record)) | {"context_features": [], "detail": False} for record in records]
        for record in whole:
            record["user_features"] = [float("nan") if each is None else each for each in record["user_features"]]
            for item in record["items"]:
                item["item_features"] = [float("nan") if each is None else each for each in item["item_features"]]
        fastavro.writer(file, parsed("impression"), whole)


def test_scores_of_the_bundle_are_recognised_in_every_format(
    folder: Path, served: list[Record], tmp_path: Path
) -> None:
    (tmp_path / "served.jsonl").write_text("".join(f"{to_json(each)}\n" for each in served))
    pq.write_table(pa.Table.from_batches([from_records("impression", served)]), tmp_path / "served.parquet")
    avro(served, tmp_path / "served.avro")
    for name in ("served.jsonl", "served.parquet", "served.avro"):
        code, output = compared(folder, tmp_path / name)
        assert "60 of 60 items (100.0%) of 6 slates have the scores of this bundle" in output, output
        assert code == 0
    code, _ = compared(folder, "-", "".join(f"{to_json(each)}\n" for each in served))
    assert code == 0


def each_item(change: Callable[[Record], None]) -> Change:
    def changed(impression: Record) -> None:
        for item in impression["items"]:
            change(item)

    return changed


def set_to(**fields: Any) -> Change:
    return lambda record: record.update(fields)


def bfloat16(value: float) -> float:
    bits = np.array(value, dtype=np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return float(bits.view(np.float32))


CAUSES: dict[str, tuple[Change, str, str]] = {
    "another version": (set_to(model_version="tiny@2"), "other_model", "diagnose them with their own bundles"),
    "another list of features": (set_to(feature_set="f", user_features=[1.0]), "other_features", "feature_set"),
    "an unknown item": (lambda each: each["items"][0].update(item_id="new"), "unknown_item", "the catalogue"),
    "an unknown engagement": (
        lambda each: [event.update(engagement="binge") for event in each["session"][::2]],
        "unknown_event",
        "does not know an item or an engagement",
    ),
    "probabilities": (
        each_item(lambda item: item.update(reranking_score=float(1 / (1 + np.exp(-item["reranking_score"]))))),
        "reranking_score",
        "set reranker_output to probability",
    ),
    "scaled scores": (
        each_item(lambda item: item.update(reranking_score=3 * item["reranking_score"] + 7)),
        "reranking_score",
        "reranking_score is 3 times ours plus 7",
    ),
    "bfloat16": (
        each_item(lambda item: item.update(ranking_score=bfloat16(item["ranking_score"]))),
        "ranking_score",
        "serves in bfloat16",
    ),
    "another session model": (
        each_item(lambda item: item.update(ranking_score=float(np.sin(37 * item["ranking_score"])))),
        "ranking_score",
        "another session model scored the items",
    ),
}


@pytest.mark.parametrize("name", CAUSES)
def test_a_difference_is_named_with_its_remedy(folder: Path, served: list[Record], tmp_path: Path, name: str) -> None:
    change, cause, remedy = CAUSES[name]
    changed = copy.deepcopy(served)
    for impression in changed:
        change(impression)
    file = tmp_path / "served.jsonl"
    file.write_text("".join(f"{to_json(each)}\n" for each in changed))
    code, output = compared(folder, file)
    assert code == 1
    assert f"│ {cause} │" in output, output
    assert remedy in output, output
    assert changed[0]["request_id"] in output


def test_a_shorter_window_of_the_recommender_is_found(folder: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle(tmp_path / "short", max_length=10))
    served = [tiny_impression(bundle, session=30, items=10, seed=seed) for seed in range(6)]
    (tmp_path / "served.jsonl").write_text("".join(f"{to_json(each)}\n" for each in served))
    code, output = compared(folder, tmp_path / "served.jsonl")
    assert (code, "set max_length to 10" in output) == (1, True), output


def test_missing_features_that_count_as_zero_are_found(folder: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(folder)
    served = [tiny_impression(bundle, session=5, items=20, seed=seed) for seed in range(6)]
    unknown = copy.deepcopy(served)
    # The recommender put zeros where the event has none.
    from models.reranker.runtime import Reranker
    from stream.explain.decode import decode_records

    slates = decode_records(served, bundle)
    scores = Reranker.load(bundle).score(np.nan_to_num(slates.features)).astype(np.float32).tolist()
    for impression in unknown:
        for item in impression["items"]:
            item["reranking_score"] = scores.pop(0)
    (tmp_path / "served.jsonl").write_text("".join(f"{to_json(each)}\n" for each in unknown))
    code, output = compared(folder, tmp_path / "served.jsonl")
    assert (code, "scores missing features as 0" in output) == (1, True), output


def test_a_line_that_is_no_impression_is_named_and_the_others_are_compared(
    folder: Path, served: list[Record], tmp_path: Path
) -> None:
    text = [f"{to_json(served[0])}\n", '{"request_id": 7}\n', "\n", f"{to_json(served[1])}\n"]
    (tmp_path / "served.jsonl").write_text("".join(text))
    code, output = compared(folder, tmp_path / "served.jsonl")
    assert code == 1
    assert "20 of 20 items" in output
    assert "1 impressions cannot be explained: 2: JSON does not fit" in output


@pytest.mark.parametrize(("content", "says"), [(b"", "No impression"), (b"PAR1 broken", "expected Parquet")])
def test_a_file_that_holds_no_impressions_is_unusable(folder: Path, tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "served").write_bytes(content)
    done = CliRunner().invoke(app, ["check", str(folder), "--impressions", str(tmp_path / "served")])
    assert done.exit_code != 0
    assert says in f"{done.output} {done.exception}"

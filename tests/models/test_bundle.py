"""A bundle loads if its parts fit together; otherwise the error names the part and the fault."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.bundle import Bundle, BundleError, sha256
from models.manifest import FILES
from models.reranker.features import FEATURES
from tests.bundles import CATEGORIES, ITEMS, tiny_bundle, tiny_reranker


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("valid"))


@pytest.fixture
def folder(valid: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(valid, tmp_path / "bundle"))


def pin(folder: Path, file: str, data: bytes) -> None:
    """Replace a file and its hash in the manifest."""
    (folder / file).write_bytes(data)
    alter(folder, files=json.loads((folder / "manifest.json").read_text())["files"] | {file: sha256(data)})


def alter(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    (folder / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if v is not ...}))


def npy(array: npt.NDArray[Any]) -> bytes:
    data = io.BytesIO()
    np.save(data, array, allow_pickle=array.dtype == object)
    return data.getvalue()


def parquet(**changes: Any) -> bytes:
    table = {
        "item_id": [f"i{k}" for k in range(ITEMS)],
        "title": ["T"] * ITEMS,
        "category": ["C"] * ITEMS,
        "popularity": [1.0] * ITEMS,
    }
    data = io.BytesIO()
    pq.write_table(pa.table({k: v for k, v in (table | changes).items() if v is not ...}), data)
    return data.getvalue()


def features(**changes: Any) -> bytes:
    """The feature list with its first entry changed."""
    records = [feature.record() for feature in FEATURES]
    return json.dumps([records[0] | changes, *records[1:]]).encode()


def test_a_valid_bundle_loads_with_all_its_parts(folder: Path) -> None:
    bundle = Bundle.load(folder)
    assert (bundle.name, bundle.version, bundle.model_version) == ("tiny", "1", "tiny@1")
    assert bundle.item_vectors.shape == (ITEMS + 1, 16)
    assert not bundle.item_vectors.flags.writeable
    assert bundle.features == FEATURES
    assert len(bundle.owned("user")) + len(bundle.owned("item")) + len(bundle.owned("session")) == len(FEATURES)
    assert bundle.card.startswith("# tiny")


def test_the_catalogue_maps_ids_and_categories(folder: Path) -> None:
    catalog = Bundle.load(folder).catalog
    assert catalog.index(["s002", "nobody", "s060", ""]).tolist() == [2, 0, 60, 0]
    assert catalog.category_names == ("", *CATEGORIES)
    assert [catalog.category_names[code] for code in catalog.category_codes[1:]] == list(catalog.categories)
    assert catalog.category_codes[0] == 0
    assert catalog.popularity[0] == 0
    assert len(catalog) == ITEMS


def test_writing_the_same_bundle_twice_gives_the_same_bytes(valid: Path, tmp_path: Path) -> None:
    again = tiny_bundle(tmp_path)
    for file in (*FILES, "manifest.json"):
        assert (again / file).read_bytes() == (valid / file).read_bytes(), file


@pytest.mark.parametrize("file", FILES)
def test_an_altered_byte_in_any_file_is_detected(folder: Path, file: str) -> None:
    data = bytearray((folder / file).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / file).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{file}: expected SHA-256 [0-9a-f]{{64}}, got [0-9a-f]{{64}}"):
        Bundle.load(folder)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(BundleError, match=f"{file}: expected the file that the manifest names"):
        Bundle.load(folder)


def test_a_folder_without_a_manifest_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected a bundle's manifest, got No such file"):
        Bundle.load(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_an_invalid_manifest_is_rejected(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest.json: expected"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contract": 3}, "expected a contract from 1 to 2, got 3"),
        ({"contract": ...}, "expected a contract from 1 to 2, got None"),
        ({"name": ...}, "expected name .* got none"),
        ({"name": "a@b"}, "expected name to be a plain name"),
        ({"version": 3}, "expected version to be a plain name"),
        ({"max_length": 0}, "expected max_length to be a number of events"),
        ({"max_length": True}, "expected max_length"),
        ({"fixed_length": 49}, "expected fixed_length to be at least max_length .50., got 49"),
        ({"reranker_output": "logit"}, 'expected reranker_output to be null, "raw", "probability"'),
        ({"engagements": "view"}, "expected engagements to be a list of objects with distinct names"),
        ({"engagements": [{"name": "view"}, {"name": "view"}]}, "expected engagements"),
        ({"engagements": [{"name": "view", "verbs": {"en": "watched"}}]}, "verbs with .titles."),
        ({"empty_session": "none"}, "expected empty_session"),
        ({"ablations": ["masking"]}, "expected ablations to be null, or a list .* that has deletion"),
        ({"ablations": ["deletion", "substitution"]}, "expected substitutes for the ablation substitution"),
        ({"substitutes": ["nobody"]}, "expected substitutes out of the catalogue, got nobody"),
        ({"session_score_spread": 0}, "expected session_score_spread to be null or a number above 0"),
        ({"reranker_output": None}, "expected reranker.txt if and only if"),
        ({"citation_margins": 1}, "got citation_margins"),
        ({"citation_margin": -1}, "expected citation_margin to be a number of at least 0"),
        ({"score_tolerance": float("nan")}, "expected score_tolerance"),
        ({"citation_ageing": -0.5}, "expected citation_ageing to be a number of at least 0"),
        ({"files": {}}, "expected files to be the SHA-256 of each of session.onnx"),
    ],
)
def test_a_wrong_manifest_entry_is_named(folder: Path, changes: dict[str, Any], message: str) -> None:
    alter(folder, **changes)
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder)


def test_citation_ageing_is_zero_by_default(folder: Path) -> None:
    alter(folder, citation_ageing=...)
    assert Bundle.load(folder).manifest.citation_ageing == 0


def test_a_manifest_cannot_name_files_outside_its_folder(folder: Path) -> None:
    (folder.parent / "secret").write_text("x")
    files = json.loads((folder / "manifest.json").read_text())["files"]
    alter(folder, files=files | {"../secret": sha256(b"x")})
    with pytest.raises(BundleError, match="by plain file name"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((ITEMS, 16), dtype=np.float32),
            "expected 61 rows .60 in the catalogue, after the padding row., got 60",
        ),
        (np.zeros((ITEMS + 1, 16)), "expected float32 .n_items . 1, d., got float64"),
        (np.zeros(ITEMS + 1, dtype=np.float32), "got float32 .61."),
        (np.ones((ITEMS + 1, 16), dtype=np.float32), "expected zeros in row 0"),
        (
            np.full((ITEMS + 1, 16), [[0]] + [[np.nan]] * ITEMS, dtype=np.float32),
            "got others in 60 rows .first: row 1.",
        ),
        (np.array([object()]), "item_vectors.npy: expected a numpy array"),
    ],
)
def test_invalid_item_vectors_are_rejected(folder: Path, array: npt.NDArray[Any], message: str) -> None:
    pin(folder, "item_vectors.npy", npy(array))
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"item_id,title", "catalog.parquet: expected Parquet"),
        (parquet(title=...), "expected the columns item_id, title, category, popularity, got .*: add title"),
        (parquet(popularity=["much"] * ITEMS), "expected text columns, a float32 popularity and a category"),
        (parquet(title=[None] + ["T"] * (ITEMS - 1)), "got none in title"),
        (parquet(popularity=[101.0] * ITEMS), "expected popularity percentiles from 0 to 100, got 0.0 to 101.0"),
        (parquet(popularity=[float("nan")] * ITEMS), "expected popularity percentiles"),
        (parquet(item_id=["i"] * ITEMS), "expected distinct, non-empty item_ids, got 1 in 60 rows"),
    ],
)
def test_an_invalid_catalogue_is_rejected(folder: Path, data: bytes, message: str) -> None:
    pin(folder, "catalog.parquet", data)
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "features.json: expected a list of"),
        (b'[{"name": "x"}]', "features.json: expected a list of"),
        (features(extra=1), "features.json: expected a list of"),
        (features(is_category="yes"), "got others in is_category"),
        (features(display_name=""), "got others in an empty name"),
        (features(owner="nobody"), "expected one of the owners user, item, context, session"),
        (
            features(owner="session"),
            "expected one feature of the owner session at most",
        ),
        (features(meaning="hot"), "expected one of the meanings"),
        (features(meaning="trend", scale=0), "expected the scale of history_length"),
        (features(advice={"en": ""}), "expected advice of history_length"),
        (features(name=FEATURES[1].name), f"expected distinct names, got {FEATURES[1].name} twice"),
        (features(name="renamed"), "the first difference: expected renamed, got history_length"),
    ],
)
def test_an_invalid_feature_list_is_rejected(folder: Path, data: bytes, message: str) -> None:
    pin(folder, "features.json", data)
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pickle", "reranker.txt: expected LightGBM's text format"),
        (tiny_reranker(FEATURES[1:]), "expected the 41 features of features.json, got 40 features"),
    ],
)
def test_a_reranker_with_other_features_is_rejected(folder: Path, text: str, message: str) -> None:
    pin(folder, "reranker.txt", text.encode())
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder)


def test_a_reranker_without_feature_names_is_matched_by_position(folder: Path) -> None:
    text = (folder / "reranker.txt").read_text()
    for number, feature in enumerate(FEATURES):
        text = text.replace(f" {feature.name} ", f" Column_{number} ", 1)
    head, _, rest = text.partition("feature_names=")
    unnamed = " ".join(f"Column_{number}" for number in range(len(FEATURES)))
    pin(folder, "reranker.txt", f"{head}feature_names={unnamed}\n{rest.partition(chr(10))[2]}".encode())
    assert Bundle.load(folder).features == FEATURES

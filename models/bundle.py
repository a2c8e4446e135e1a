"""The model bundle: a folder with all the files needed to score and to explain, each verified by its hash.

An invalid bundle is rejected when it is opened, not when the first event arrives. This module checks everything that
needs no runtime; whether the graph runs and the trees load is checked by the runtimes of the session model and the
re-ranker.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from models.catalog import Catalog, catalog_bytes, read_catalog
from models.errors import BundleError
from models.feature import SESSION, Feature, Owner, read_features
from models.manifest import (
    CONTRACT,
    CONTRACT_1_ROLES,
    FILES,
    RERANKER_FILE,
    AblationName,
    EmptySession,
    Engagement,
    Manifest,
    OutputKind,
    read_manifest,
)

__all__ = [
    "CONTRACT",
    "FILES",
    "Bundle",
    "BundleError",
    "Catalog",
    "Engagement",
    "Feature",
    "Manifest",
    "attach",
    "sha256",
    "write_bundle",
]

OTHER = Engagement("other")
"""The engagement of an event whose word the bundle does not tell from others."""

ITEM_BIAS_FILE = "item_bias.npy"
HISTORY_FEATURES_FILE = "history_features.onnx"


def sha256(data: bytes) -> str:
    """Return the SHA-256 of data in hexadecimal, as the manifest stores it."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle, whose parts fit together.

    Attributes:
        path: the bundle's folder.
        manifest: its manifest.
        catalog: its items.
        item_vectors: float32 [n_items + 1, d], read-only, row 0 all zeros (padding).
        item_bias: float32 [n_items + 1], read-only, 0 for padding; the score of item index i is
            ``session_vector @ item_vectors[i] + item_bias[i]``.
        features: the inputs of the re-ranker, in order; none without a re-ranker.

    """

    path: Path
    manifest: Manifest
    catalog: Catalog
    item_vectors: npt.NDArray[np.float32]
    item_bias: npt.NDArray[np.float32]
    features: tuple[Feature, ...]

    @property
    def name(self) -> str:
        """The bundle's name, without its version."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The bundle's version, without its name."""
        return self.manifest.version

    @property
    def model_version(self) -> str:
        """The model version in events: ``name@version``."""
        return f"{self.manifest.name}@{self.manifest.version}"

    @property
    def session_onnx(self) -> Path:
        """Path of the session model."""
        return self.path / "session.onnx"

    @property
    def reranker_text(self) -> Path:
        """Path of the re-ranker's trees, which a bundle without a re-ranker does not have."""
        return self.path / RERANKER_FILE

    @property
    def has_reranker(self) -> bool:
        """Whether a re-ranker follows the session model."""
        return self.manifest.reranker_output is not None

    @cached_property
    def engagements(self) -> tuple[Engagement, ...]:
        """The engagements of events, in order, that are indices from 1.

        For a session model that does not read engagements, the last one stands for every word that the manifest lacks.
        """
        graph = onnx.load(self.session_onnx, load_external_data=False).graph
        reads_them = any(each.name == "engagement_index" for each in graph.input)
        return self.manifest.engagements if reads_them else (*self.manifest.engagements, OTHER)

    def engagement_index(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Look up engagements: int64 [len(names)], 0 for a word that the session model reads and does not know."""
        index = {each.name: number for number, each in enumerate(self.engagements, start=1)}
        unknown = len(self.engagements) if any(each is OTHER for each in self.engagements[-1:]) else 0
        return np.array([index.get(name, unknown) for name in names], dtype=np.int64)

    @property
    def holds_history_features(self) -> bool:
        """Whether counterfactual scores leave features as they were sent that derive from the history."""
        derived = any(feature.is_history_derived for feature in self.features)
        return derived and HISTORY_FEATURES_FILE not in self.manifest.files

    @property
    def session_column(self) -> int | None:
        """Which of the features is the session model's score; None if the re-ranker does not read it."""
        return next((column for column, each in enumerate(self.features) if each.owner == SESSION), None)

    @property
    def card(self) -> str:
        """The model card as Markdown."""
        return (self.path / "card.md").read_text(encoding="utf-8")

    def owned(self, owner: Owner) -> tuple[Feature, ...]:
        """Return the features of an owner, in order."""
        return tuple(feature for feature in self.features if feature.owner == owner)

    @classmethod
    def load(cls, directory: Path) -> Bundle:
        """Open a bundle.

        Raises:
            BundleError: a part is missing, was altered, or does not fit the others.

        """
        directory = Path(directory)
        manifest = read_manifest(directory)
        content = _verified(directory, manifest.files)
        catalog = read_catalog(content["catalog.parquet"])
        item_vectors = _read_item_vectors(content["item_vectors.npy"], len(catalog.item_ids))
        _check_external_data(content["session.onnx"], manifest.files)
        item_bias = _read_item_bias(content.get(ITEM_BIAS_FILE), len(item_vectors))
        features = read_features(content["features.json"], manifest.contract)
        if RERANKER_FILE in content:
            _check_reranker(content[RERANKER_FILE], features)
        elif features:
            raise BundleError(
                f"features.json: expected no features in a bundle without {RERANKER_FILE}, got {len(features)}: write "
                "an empty list, or add the re-ranker."
            )
        unknown = [item_id for item_id in manifest.substitutes if not catalog.index([item_id])[0]]
        if unknown:
            raise BundleError(
                f"manifest.json: expected substitutes out of the catalogue, got {', '.join(unknown)}: correct the ids."
            )
        return cls(directory, manifest, catalog, item_vectors, item_bias, features)


def write_bundle(
    directory: Path,
    *,
    name: str,
    version: str,
    session_onnx: bytes,
    item_vectors: npt.NDArray[np.float32],
    catalog: Catalog,
    reranker_text: str | None,
    features: Iterable[Feature],
    card: str,
    engagements: Iterable[Engagement | str],
    feature_set: str,
    item_bias: npt.NDArray[np.float32] | None = None,
    files: Mapping[str, bytes] | None = None,
    max_length: int = 50,
    fixed_length: int | None = None,
    empty_session: EmptySession = "unknown",
    ablations: Iterable[AblationName] | None = None,
    substitutes: Iterable[str] = (),
    session_score_spread: float | None = None,
    reranker_score_spread: float | None = None,
    reranker_output: OutputKind = "raw",
    reranker_offset: float = 0.0,
    citation_margin: float = 0.0,
    score_tolerance: float = 1e-3,
    citation_ageing: float = 0.0,
) -> Bundle:
    """Write a bundle folder, the manifest last, and load it, so that a bundle that was written can be opened.

    The arguments are described by :class:`Bundle` and :class:`Manifest`. Without reranker_text the bundle has no
    re-ranker. An engagement given by its name alone has the role that contract 1
    gave to this name, which is neutral for most. files: others that belong to the bundle, by name, such
    as the weights that the graph keeps outside session.onnx.

    Raises:
        BundleError: the parts do not fit together; the folder must not be used.

    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    content = {
        **(files or {}),
        "session.onnx": session_onnx,
        "item_vectors.npy": _array_bytes(item_vectors),
        "catalog.parquet": catalog_bytes(catalog),
        "features.json": _json([feature.record() for feature in features]),
        "card.md": card.encode(),
    }
    if reranker_text is not None:
        content[RERANKER_FILE] = reranker_text.encode()
    if item_bias is not None:
        content[ITEM_BIAS_FILE] = _array_bytes(item_bias)
    for file, data in content.items():
        (directory / file).write_bytes(data)
    manifest = Manifest(
        name=name,
        version=version,
        contract=CONTRACT,
        files={file: sha256(data) for file, data in content.items()},
        max_length=max_length,
        fixed_length=fixed_length,
        empty_session=empty_session,
        ablations=None if ablations is None else tuple(ablations),
        substitutes=tuple(substitutes),
        session_score_spread=session_score_spread,
        reranker_score_spread=reranker_score_spread,
        reranker_output=None if reranker_text is None else reranker_output,
        reranker_offset=reranker_offset,
        engagements=tuple(_engagement(each) for each in engagements),
        feature_set=feature_set,
        citation_margin=citation_margin,
        score_tolerance=score_tolerance,
        citation_ageing=citation_ageing,
    )
    (directory / "manifest.json").write_bytes(_json(manifest.record()))
    return Bundle.load(directory)


def attach(directory: Path, content: Mapping[str, bytes]) -> Bundle:
    """Write optional files into a bundle, replacing files of the same names, and load it again.

    The manifest is replaced last, by an atomic rename: after a crash the bundle is either complete or rejected.
    """
    manifest = json.loads((directory / "manifest.json").read_bytes())
    for file, data in content.items():
        (directory / file).write_bytes(data)
        manifest["files"][file] = sha256(data)
    incoming = directory / "manifest.json.new"
    incoming.write_bytes(_json(manifest))
    incoming.replace(directory / "manifest.json")
    return Bundle.load(directory)


def revise(directory: Path, *, card: str, citation_margin: float) -> Bundle:
    """Replace the card and the citation margin of a bundle, and load it again; its models do not change.

    Raises:
        BundleError: the folder was no valid bundle before; nothing was written.

    """
    directory = Bundle.load(directory).path
    manifest = json.loads((directory / "manifest.json").read_bytes())
    manifest["citation_margin"] = citation_margin
    manifest["files"]["card.md"] = sha256(card.encode())
    for file, data in (("card.md", card.encode()), ("manifest.json", _json(manifest))):
        new = directory / f"{file}.new"
        new.write_bytes(data)
        new.replace(directory / file)
    return Bundle.load(directory)


def _engagement(given: Engagement | str) -> Engagement:
    return Engagement(given, CONTRACT_1_ROLES.get(given, "neutral")) if isinstance(given, str) else given


def _array_bytes(array: npt.NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, dtype=np.float32), allow_pickle=False)
    return buffer.getvalue()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _verified(directory: Path, files: Mapping[str, str]) -> dict[str, bytes]:
    """Read every file that the manifest names and verify its hash."""
    content = {}
    for file, expected in files.items():
        path = directory / file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{path}: expected the file that the manifest names, got {error.strerror}: restore the file, or write "
                "the bundle again."
            ) from error
        got = sha256(data)
        if got != expected:
            raise BundleError(
                f"{path}: expected SHA-256 {expected}, got {got}: the file has changed since the release; restore the "
                "file, or write the bundle again under a new version."
            )
        content[file] = data
    return content


def _read_item_bias(data: bytes | None, items: int) -> npt.NDArray[np.float32]:
    """Read item_bias.npy, float32 [items]; zeros where a bundle has none."""
    if data is None:
        bias = np.zeros(items, dtype=np.float32)
    else:
        bias = np.load(io.BytesIO(data), allow_pickle=False)
        if bias.dtype != np.float32 or bias.shape != (items,) or bias[0] != 0 or not np.isfinite(bias).all():
            raise BundleError(
                f"{ITEM_BIAS_FILE}: expected finite float32 [{items}], one number per item after a 0 for padding, got "
                f"{bias.dtype} {list(bias.shape)}: save the biases in the order of the item vectors."
            )
    bias.setflags(write=False)
    return bias


def _check_external_data(graph: bytes, files: Mapping[str, str]) -> None:
    """Check that the manifest pins every file that the graph keeps weights in."""
    try:
        model = onnx.load_model_from_string(graph)
    except Exception:  # noqa: BLE001 (no graph at all, of which ONNX Runtime says more)
        return
    beside = {each.value for tensor in _tensors(model.graph) for each in tensor.external_data if each.key == "location"}
    if missing := sorted(beside - files.keys()):
        raise BundleError(
            "session.onnx: expected the manifest to name every file that holds weights of the graph, and it does not "
            f"name {', '.join(missing)}: export the graph with its weights inside, or pass the files to write_bundle."
        )


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every constant of a graph and of the graphs inside it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (*attribute.tensors, attribute.t)
            for inner in (*attribute.graphs, attribute.g):
                yield from _tensors(inner)


def _read_item_vectors(data: bytes, items: int) -> npt.NDArray[np.float32]:
    try:
        vectors = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise BundleError(
            f"item_vectors.npy: expected a numpy array, got {error}: use numpy.save(..., allow_pickle=False)."
        ) from error
    if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32 or vectors.ndim != 2:
        got = f"{vectors.dtype} {list(vectors.shape)}" if isinstance(vectors, np.ndarray) else type(vectors).__name__
        raise BundleError(
            f"item_vectors.npy: expected float32 [n_items + 1, d], got {got}: save one float32 row per item, after a "
            "row of zeros for padding."
        )
    if len(vectors) != items + 1:
        raise BundleError(
            f"item_vectors.npy: expected {items + 1} rows ({items} in the catalogue, after the padding row), got "
            f"{len(vectors)}: catalogue row k belongs to vector row k + 1."
        )
    if vectors[0].any():
        raise BundleError("item_vectors.npy: expected zeros in row 0 (padding), got others: start the items at row 1.")
    if not np.isfinite(vectors).all():
        rows = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        raise BundleError(
            f"item_vectors.npy: expected finite numbers, got others in {len(rows)} rows (first: row {rows[0]}): the "
            "training may have diverged; train again and watch the loss."
        )
    vectors.setflags(write=False)
    return vectors


def _check_reranker(data: bytes, features: tuple[Feature, ...]) -> None:
    """Check in the header of the text format that the trees read the listed features in the listed order."""
    header = dict(
        line.split("=", 1) for line in data.split(b"\nTree=", 1)[0].decode(errors="replace").splitlines() if "=" in line
    )
    if "feature_names" not in header:
        raise BundleError(
            "reranker.txt: expected LightGBM's text format, got no feature_names line: save the model with "
            "Booster.save_model(path)."
        )
    got = tuple(header["feature_names"].split())
    # LightGBM writes an underscore for each blank in a name.
    names = tuple(re.sub(r"\s", "_", feature.name) for feature in features)
    unnamed = tuple(f"Column_{index}" for index in range(len(names)))
    if got not in (names, unnamed):
        different = next((pair for pair in zip(names, got, strict=False) if pair[0] != pair[1]), None)
        where = f"; the first difference: expected {different[0]}, got {different[1]}" if different else ""
        raise BundleError(
            f"reranker.txt: expected the {len(names)} features of features.json, got {len(got)} features{where}: train "
            "the re-ranker on the listed features, in the listed order."
        )

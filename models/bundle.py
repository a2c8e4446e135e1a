"""The model bundle: a folder with all the files needed to score and to explain, each verified by its hash.

An invalid bundle is rejected when it is opened, not when the first event arrives. This module checks everything that
needs no runtime; whether the graph runs and the trees load is checked by the runtimes of the session model and the
re-ranker.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.catalog import Catalog, catalog_bytes, read_catalog
from models.errors import BundleError
from models.manifest import CONTRACT, FILES, Feature, Manifest, OutputKind, read_features, read_manifest

__all__ = [
    "CONTRACT",
    "FILES",
    "Bundle",
    "BundleError",
    "Catalog",
    "Feature",
    "Manifest",
    "attach",
    "sha256",
    "write_bundle",
]


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
        item_vectors: float32 [n_items + 1, d], read-only, row 0 all zeros (padding); the score of item index i is
            ``session_vector @ item_vectors[i]``.
        features: the inputs of the re-ranker, in order.

    """

    path: Path
    manifest: Manifest
    catalog: Catalog
    item_vectors: npt.NDArray[np.float32]
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
        """Path of the re-ranker's trees."""
        return self.path / "reranker.txt"

    @property
    def card(self) -> str:
        """The model card as Markdown."""
        return (self.path / "card.md").read_text(encoding="utf-8")

    def owned(self, owner: str) -> tuple[Feature, ...]:
        """Return the features of the owner "user", "item" or "context", in order."""
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
        features = read_features(content["features.json"])
        _check_reranker(content["reranker.txt"], features)
        return cls(directory, manifest, catalog, item_vectors, features)


def write_bundle(
    directory: Path,
    *,
    name: str,
    version: str,
    session_onnx: bytes,
    item_vectors: npt.NDArray[np.float32],
    catalog: Catalog,
    reranker_text: str,
    features: Iterable[Feature],
    card: str,
    engagements: Iterable[str],
    feature_set: str,
    max_length: int = 50,
    fixed_length: int | None = None,
    reranker_output: OutputKind = "raw",
    citation_margin: float = 0.0,
    score_tolerance: float = 1e-3,
    citation_ageing: float = 0.0,
) -> Bundle:
    """Write a bundle folder, the manifest last, and load it, so that a bundle that was written can be opened.

    Raises:
        BundleError: the parts do not fit together; the folder must not be used.

    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    vectors = io.BytesIO()
    np.save(vectors, np.ascontiguousarray(item_vectors, dtype=np.float32), allow_pickle=False)
    content = {
        "session.onnx": session_onnx,
        "item_vectors.npy": vectors.getvalue(),
        "catalog.parquet": catalog_bytes(catalog),
        "reranker.txt": reranker_text.encode(),
        "features.json": _json([feature.record() for feature in features]),
        "card.md": card.encode(),
    }
    for file, data in content.items():
        (directory / file).write_bytes(data)
    manifest: dict[str, Any] = {
        "name": name,
        "version": version,
        "contract": CONTRACT,
        "files": {file: sha256(data) for file, data in content.items()},
        "max_length": max_length,
        "fixed_length": fixed_length,
        "reranker_output": reranker_output,
        "engagements": list(engagements),
        "feature_set": feature_set,
        "citation_margin": citation_margin,
        "score_tolerance": score_tolerance,
        "citation_ageing": citation_ageing,
    }
    (directory / "manifest.json").write_bytes(_json(manifest))
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
    names = tuple(feature.name for feature in features)
    unnamed = tuple(f"Column_{index}" for index in range(len(names)))
    if got not in (names, unnamed):
        different = next((pair for pair in zip(names, got, strict=False) if pair[0] != pair[1]), None)
        where = f"; the first difference: expected {different[0]}, got {different[1]}" if different else ""
        raise BundleError(
            f"reranker.txt: expected the {len(names)} features of features.json, got {len(got)} features{where}: train "
            "the re-ranker on the listed features, in the listed order."
        )

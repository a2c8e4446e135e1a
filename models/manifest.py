"""The description of a bundle: ``manifest.json`` and ``features.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

from models.errors import BundleError

CONTRACT = 1
FILES = ("session.onnx", "item_vectors.npy", "catalog.parquet", "reranker.txt", "features.json", "card.md")

Owner = Literal["user", "item", "context"]
OutputKind = Literal["raw", "probability"]

_FLAGS: Final = ("is_category", "is_personal", "is_actionable", "is_sensitive")
_OWNERS: tuple[Owner, ...] = get_args(Owner)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Feature:
    """One input of the re-ranker.

    Attributes:
        name: unique name, as in the re-ranker's model file.
        owner: the list of the impression event that carries the feature; "context" is computed from the session.
        display_name: how explanations and reports name the feature.
        is_category: whether the feature describes the item's category.
        is_personal: whether the feature depends on this user's behaviour; always true unless the owner is "item".
        unit: free text for people, "" if there is none.
        is_actionable: whether the user can bring the feature down to 0 by changing habits.
        is_sensitive: whether the feature must not be named, or relied on, in any explanation text.

    """

    name: str
    owner: Owner
    display_name: str
    is_category: bool = False
    is_personal: bool = False
    unit: str = ""
    is_actionable: bool = False
    is_sensitive: bool = False

    def __post_init__(self) -> None:
        if self.owner != "item":
            object.__setattr__(self, "is_personal", True)

    def record(self) -> dict[str, Any]:
        """Return the feature's entry in ``features.json``."""
        return asdict(self)


@dataclass(frozen=True)
class Manifest:
    """The validated content of ``manifest.json``.

    Attributes:
        name: name of the bundle; with version it forms the model version ``name@version``.
        version: version of the bundle.
        contract: version of the bundle format.
        files: SHA-256 of each file, 64 hexadecimal characters.
        max_length: number of newest events that the session model reads.
        fixed_length: number of columns that the session model requires; None if it reads any number of columns.
        reranker_output: whether re-ranking scores are raw scores or probabilities.
        engagements: names of the engagements; engagements[k] has index k + 1, 0 is padding.
        feature_set: name of the ordered feature list.
        citation_margin: score drop that a cited event must exceed under every ablation, in logits of the session model.
        score_tolerance: largest difference between a score in an event and the same score computed here, in logits.
        citation_ageing: exponent a of the margin's growth with age: the nth newest event needs n ** a times the margin.

    """

    name: str
    version: str
    contract: int
    files: Mapping[str, str]
    max_length: int
    fixed_length: int | None
    reranker_output: OutputKind
    engagements: tuple[str, ...]
    feature_set: str
    citation_margin: float
    score_tolerance: float
    citation_ageing: float = 0.0


def read_manifest(directory: Path) -> Manifest:
    """Read and validate ``manifest.json`` in directory; raises BundleError."""
    path = directory / "manifest.json"
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise BundleError(
            f"{path}: expected a bundle's manifest, got {error.strerror}: give the path of a bundle folder, or create "
            "a bundle with `whyrec models train`."
        ) from error
    except ValueError as error:
        raise BundleError(f"{path}: expected JSON, got {error}: restore the file.") from error
    if not isinstance(record, dict):
        raise BundleError(f"{path}: expected an object, got {type(record).__name__}: restore the file.")
    contract = record.get("contract")
    if contract != CONTRACT:
        raise BundleError(
            f"{path}: expected contract {CONTRACT}, got {contract!r}: use a whyrec release that reads that contract, "
            "or write the bundle again with this release."
        )
    record = _DEFAULTS | record
    for field, (fits, expected) in _RULES.items():
        if field not in record:
            raise BundleError(f"{path}: expected {field} ({expected}), got none: add the field.")
        if not fits(record[field]):
            raise BundleError(f"{path}: expected {field} to be {expected}, got {record[field]!r}: correct the field.")
    if record["fixed_length"] is not None and record["fixed_length"] < record["max_length"]:
        raise BundleError(
            f"{path}: expected fixed_length to be at least max_length ({record['max_length']}), got "
            f"{record['fixed_length']}: lower max_length to the number of events that the graph can read."
        )
    return Manifest(
        name=record["name"],
        version=record["version"],
        contract=contract,
        files=dict(record["files"]),
        max_length=record["max_length"],
        fixed_length=record["fixed_length"],
        reranker_output=record["reranker_output"],
        engagements=tuple(record["engagements"]),
        feature_set=record["feature_set"],
        citation_margin=float(record["citation_margin"]),
        score_tolerance=float(record["score_tolerance"]),
        citation_ageing=float(record["citation_ageing"]),
    )


def read_features(data: bytes) -> tuple[Feature, ...]:
    """Read ``features.json``: user features, then item features, then ``session_score``; raises BundleError."""
    try:
        records = json.loads(data)
        features = tuple(Feature(**record) for record in records)
    except (ValueError, TypeError) as error:
        raise BundleError(
            "features.json: expected a list of {name, owner, display_name, is_category, is_personal, unit, "
            f"is_actionable, is_sensitive}}, got {error}: write the list from Feature.record()."
        ) from error
    for feature in features:
        types = {"name": str, "owner": str, "display_name": str, "unit": str} | dict.fromkeys(_FLAGS, bool)
        wrong = [field for field, type_ in types.items() if not isinstance(getattr(feature, field), type_)]
        if wrong or not feature.name or not feature.display_name:
            raise BundleError(
                f"features.json: expected true or false for {', '.join(_FLAGS)}, and text in the other fields of "
                f"{feature.record()}, got others in {', '.join(wrong) or 'an empty name'}: correct the entry."
            )
        if feature.owner not in _OWNERS:
            raise BundleError(
                f"features.json: expected one of the owners {', '.join(_OWNERS)} for {feature.name}, got "
                f"{feature.owner!r}: correct the entry."
            )
    names = [feature.name for feature in features]
    if len(set(names)) != len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise BundleError(f"features.json: expected distinct names, got {', '.join(repeated)} twice: rename features.")
    owners = [_OWNERS.index(feature.owner) for feature in features]
    if owners != sorted(owners) or names[-1:] != ["session_score"] or owners.count(2) != 1:
        raise BundleError(
            "features.json: expected all user features, then all item features, then session_score (context), got "
            f"{', '.join(f'{feature.name} ({feature.owner})' for feature in features)}: put the features in that order "
            "and train the re-ranker with it."
        )
    return features


def _is_int(value: object, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def _is_non_negative(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _is_plain_name(value: object) -> bool:
    return isinstance(value, str) and bool(_NAME.fullmatch(value))


def _has_hashes(value: object) -> bool:
    if not isinstance(value, dict) or not set(FILES) <= set(value):
        return False
    # Only plain file names are allowed: a manifest must not point outside its folder.
    return all(
        _is_plain_name(file) and isinstance(digest, str) and _SHA256.fullmatch(digest)
        for file, digest in cast("dict[str, object]", value).items()
    )


def _are_engagements(value: object) -> bool:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        return False
    return 0 < len(set(value)) == len(value)


_PLAIN = "a plain name (letters, digits, dot, dash, underscore)"
_RULES: dict[str, tuple[Any, str]] = {
    "name": (_is_plain_name, _PLAIN),
    "version": (_is_plain_name, _PLAIN),
    "files": (_has_hashes, f"the SHA-256 of each of {', '.join(FILES)}, by plain file name"),
    "max_length": (lambda value: _is_int(value, 1), "a number of events, at least 1"),
    "fixed_length": (lambda value: value is None or _is_int(value, 1), "null or a number of columns"),
    "reranker_output": (lambda value: value in get_args(OutputKind), '"raw" or "probability"'),
    "engagements": (_are_engagements, "a list of distinct names"),
    "feature_set": (_is_plain_name, _PLAIN),
    "citation_margin": (_is_non_negative, "a number of at least 0"),
    "score_tolerance": (_is_non_negative, "a number of at least 0"),
    "citation_ageing": (_is_non_negative, "a number of at least 0"),
}
_DEFAULTS: dict[str, Any] = {"citation_ageing": 0.0}

"""What a bundle says about itself: ``manifest.json`` and ``features.json``."""

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
    """One number that the re-ranker reads.

    owner says in which list of the event it travels; is_category marks a feature that speaks of the item's category;
    is_personal one that takes this user's own behaviour into account, as user features and session_score always do;
    unit is free text for people ("" where there is none); is_actionable marks a feature that the user's own habits can
    bring down to 0; is_sensitive one that no sentence may ever name or lean on.
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
        """Give the feature as it stands in ``features.json``."""
        return asdict(self)


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``, checked.

    files maps each file to its SHA-256; engagements[k] has the engagement index k + 1 (0 is padding); citation_margin,
    by which a score must fall without what is cited, and score_tolerance are in units of the session model's score (a
    logit); for the nth newest event the margin is n to the power of citation_ageing times as large (0, the same for
    all, where the manifest does not say).
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
    """Read and check ``manifest.json`` in directory; raises BundleError."""
    path = directory / "manifest.json"
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise BundleError(
            f"{path}: expected a bundle's manifest, got {error.strerror}: point to a bundle folder, or make one with "
            "`whyrec models train`."
        ) from error
    except ValueError as error:
        raise BundleError(f"{path}: expected JSON, got {error}: restore the file.") from error
    if not isinstance(record, dict):
        raise BundleError(f"{path}: expected an object, got {type(record).__name__}: restore the file.")
    contract = record.get("contract")
    if contract != CONTRACT:
        raise BundleError(
            f"{path}: expected contract {CONTRACT}, got {contract!r}: use the whyrec release that reads that contract, "
            "or write the bundle again."
        )
    record = _DEFAULTS | record
    for field, (fits, expected) in _RULES.items():
        if field not in record:
            raise BundleError(f"{path}: expected {field} ({expected}), got none: add it.")
        if not fits(record[field]):
            raise BundleError(f"{path}: expected {field} to be {expected}, got {record[field]!r}: correct it.")
    if record["fixed_length"] is not None and record["fixed_length"] < record["max_length"]:
        raise BundleError(
            f"{path}: expected fixed_length to be at least max_length ({record['max_length']}), got "
            f"{record['fixed_length']}: lower max_length to what the graph can read."
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
            f"is_actionable, is_sensitive}}, got {error}: write it from Feature.record()."
        ) from error
    for feature in features:
        kinds = {"name": str, "owner": str, "display_name": str, "unit": str} | dict.fromkeys(_FLAGS, bool)
        wrong = [field for field, kind in kinds.items() if not isinstance(getattr(feature, field), kind)]
        if wrong or not feature.name or not feature.display_name:
            raise BundleError(
                f"features.json: expected text, true or false for {', '.join(_FLAGS)}, in {feature.record()}, got "
                f"others in {', '.join(wrong) or 'an empty name'}: correct the entry."
            )
        if feature.owner not in _OWNERS:
            raise BundleError(
                f"features.json: expected an owner out of {', '.join(_OWNERS)} for {feature.name}, got "
                f"{feature.owner!r}: correct the entry."
            )
    names = [feature.name for feature in features]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise BundleError(f"features.json: expected distinct names, got {', '.join(twice)} twice: rename them.")
    owners = [_OWNERS.index(feature.owner) for feature in features]
    if owners != sorted(owners) or names[-1:] != ["session_score"] or owners.count(2) != 1:
        raise BundleError(
            "features.json: expected all user features, then all item features, then session_score (context), got "
            f"{', '.join(f'{feature.name} ({feature.owner})' for feature in features)}: put them in that order, and "
            "train the re-ranker so."
        )
    return features


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(_NAME.fullmatch(value))


def _pins_all(value: object) -> bool:
    if not isinstance(value, dict) or not set(FILES) <= set(value):
        return False
    # A name is a plain file name: a manifest must not be able to reach outside of its folder.
    return all(
        _is_text(file) and isinstance(pin, str) and _SHA256.fullmatch(pin)
        for file, pin in cast("dict[str, object]", value).items()
    )


def _are_engagements(value: object) -> bool:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        return False
    return 0 < len(set(value)) == len(value)


_PLAIN = "a plain name (letters, digits, dot, dash, underscore)"
_RULES: dict[str, tuple[Any, str]] = {
    "name": (_is_text, _PLAIN),
    "version": (_is_text, _PLAIN),
    "files": (_pins_all, f"the SHA-256 of each of {', '.join(FILES)}, by plain file name"),
    "max_length": (lambda value: _is_int(value, 1), "a number of events, at least 1"),
    "fixed_length": (lambda value: value is None or _is_int(value, 1), "null or a number of columns"),
    "reranker_output": (lambda value: value in get_args(OutputKind), '"raw" or "probability"'),
    "engagements": (_are_engagements, "a list of distinct names"),
    "feature_set": (_is_text, _PLAIN),
    "citation_margin": (_is_amount, "a number of at least 0"),
    "score_tolerance": (_is_amount, "a number of at least 0"),
    "citation_ageing": (_is_amount, "a number of at least 0"),
}
_DEFAULTS: dict[str, Any] = {"citation_ageing": 0.0}

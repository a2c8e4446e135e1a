"""The description of a bundle: ``manifest.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, cast, get_args

from models.errors import BundleError

CONTRACT: Final = 2
"""The version of the bundle format that is written; contract 1 is still read."""

FILES: Final = ("session.onnx", "item_vectors.npy", "catalog.parquet", "features.json", "card.md")
"""Files of every bundle; one with a re-ranker has RERANKER_FILE as well."""

RERANKER_FILE: Final = "reranker.txt"

OutputKind = Literal["raw", "probability", "prediction"]
EmptySession = Literal["zero", "run", "unknown"]
Role = Literal["positive", "neutral", "negative"]
AblationName = Literal["deletion", "blanking", "masking", "substitution"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Engagement:
    """One of the ways in which users interact with items, in the words of the bundle's owner.

    Attributes:
        name: as session events carry it, such as "play" or "add_to_library".
        role: "negative" for no sign of interest, such as a skip, which is never cited; "positive" for more than having
            had a look; "neutral" for everything else.
        verbs: by locale, the sentence part that names such events, with the placeholder ``{titles}``, such as "played
            {titles}". The language's own phrase for the name, or its general one, is used where the locale has none.

    """

    name: str
    role: Role = "neutral"
    verbs: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def record(self) -> dict[str, Any]:
        """Return the entry in ``manifest.json``."""
        return {"name": self.name, "role": self.role, "verbs": dict(self.verbs)}


@dataclass(frozen=True)
class Manifest:
    """The validated content of ``manifest.json``.

    Attributes:
        name: name of the bundle; with version it forms the model version ``name@version``.
        version: version of the bundle.
        contract: version of the bundle format.
        files: SHA-256 of each file but the manifest, 64 hexadecimal characters.
        max_length: number of newest events that the session model reads.
        fixed_length: number of columns that the session model requires; None if it reads any number of columns.
        empty_session: what an empty session is for the recommender: "zero", its session vector is zero; "run", the
            session model runs on a row of padding; "unknown", it cannot be asked, so nothing is said that rests on it.
        ablations: the ablations that a citation must survive; None for all of deletion, blanking and masking that the
            graph allows.
        substitutes: item ids of the frequent items that take the place of an event in a substitution.
        session_score_spread: standard deviation of the session model's scores within a slate; None if it is to be
            measured when the model is opened.
        reranker_score_spread: the same of the re-ranker's raw scores.
        reranker_output: what re-ranking scores are: "raw" scores, the "probability" of a classifier, or whatever
            ``Booster.predict`` gives, "prediction"; None for a recommender without a re-ranker.
        reranker_offset: number that the recommender adds to the raw score, such as a constant ``init_score``.
        engagements: the engagements; engagements[k] has index k + 1, 0 is padding. Empty for a session model that reads
            items alone.
        feature_set: name of the ordered feature list.
        citation_margin: score drop that a cited event must exceed under every ablation, in session_score_spread
            (contract 1: in logits).
        score_tolerance: largest difference between a score in an event and the same score computed here, in the spread
            of that score.
        citation_ageing: exponent a of the margin's growth with age: the nth newest event needs n ** a times the margin.

    """

    name: str
    version: str
    contract: int
    files: Mapping[str, str]
    max_length: int
    feature_set: str
    fixed_length: int | None = None
    empty_session: EmptySession = "unknown"
    ablations: tuple[AblationName, ...] | None = None
    substitutes: tuple[str, ...] = ()
    session_score_spread: float | None = None
    reranker_score_spread: float | None = None
    reranker_output: OutputKind | None = "raw"
    reranker_offset: float = 0.0
    engagements: tuple[Engagement, ...] = ()
    citation_margin: float = 0.0
    score_tolerance: float = 1e-3
    citation_ageing: float = 0.0

    @property
    def engagement_names(self) -> tuple[str, ...]:
        """The names of the engagements, in order."""
        return tuple(each.name for each in self.engagements)

    def record(self) -> dict[str, Any]:
        """Return the content of ``manifest.json``."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return plain | {"files": dict(self.files), "engagements": [each.record() for each in self.engagements]}


def read_manifest(directory: Path) -> Manifest:
    """Read and validate ``manifest.json`` in directory; raises BundleError."""
    path = directory / "manifest.json"
    record = _read_object(path)
    contract = record.get("contract")
    if contract not in range(1, CONTRACT + 1):
        raise BundleError(
            f"{path}: expected a contract from 1 to {CONTRACT}, got {contract!r}: use a whyrec release that reads that "
            "contract, or write the bundle again with this release."
        )
    known = set(Manifest.__dataclass_fields__)
    if contract == 1:
        record = _from_contract_1(record)
    elif extra := sorted(record.keys() - known):
        raise BundleError(f"{path}: expected the fields {', '.join(sorted(known))}, got {', '.join(extra)}: remove it.")
    for name, (fits, expected) in _RULES.items():
        if name not in record and name in _REQUIRED:
            raise BundleError(f"{path}: expected {name} ({expected}), got none: add the field.")
        if name in record and not fits(record[name]):
            raise BundleError(f"{path}: expected {name} to be {expected}, got {record[name]!r}: correct the field.")
    try:
        engagements = tuple(Engagement(**each) for each in record.get("engagements", ()))
    except TypeError as error:
        raise BundleError(
            f"{path}: expected engagements as objects of name, role and verbs, got {error}: correct them."
        ) from error
    manifest = Manifest(
        **record
        | {
            "files": dict(record["files"]),
            "ablations": None if record.get("ablations") is None else tuple(record["ablations"]),
            "substitutes": tuple(record.get("substitutes", ())),
            "engagements": engagements,
        }
    )
    _check_together(manifest, path)
    return manifest


def _read_object(path: Path) -> dict[str, Any]:
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
    return record


def _check_together(manifest: Manifest, path: Path) -> None:
    """Check what concerns several fields."""
    if manifest.fixed_length is not None and manifest.fixed_length < manifest.max_length:
        raise BundleError(
            f"{path}: expected fixed_length to be at least max_length ({manifest.max_length}), got "
            f"{manifest.fixed_length}: lower max_length to the number of events that the graph can read."
        )
    if (RERANKER_FILE in manifest.files) != (manifest.reranker_output is not None):
        raise BundleError(
            f"{path}: expected {RERANKER_FILE} if and only if reranker_output is not null, got "
            f"{manifest.reranker_output!r} {'with' if RERANKER_FILE in manifest.files else 'without'} the file: "
            "correct reranker_output, or write the bundle again."
        )
    if "substitution" in (manifest.ablations or ()) and not manifest.substitutes:
        raise BundleError(
            f"{path}: expected substitutes for the ablation substitution, got none: list the ids of a few frequent "
            "items, or take the ablation out."
        )


def _from_contract_1(record: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a manifest of contract 1 into the fields of contract 2."""
    known = record.keys() & set(Manifest.__dataclass_fields__)
    fields = {name: record[name] for name in known}
    names = record.get("engagements")
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        fields["engagements"] = [{"name": name, "role": CONTRACT_1_ROLES.get(name, "neutral")} for name in names]
    return fields


def _is_int(value: object, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def _is_non_negative(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _is_spread(value: object) -> bool:
    return value is None or (_is_non_negative(value) and value != 0)


def _are_ablations(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, list) and "deletion" in value and len(set(value)) == len(value) and set(value) <= ABLATIONS


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) and each for each in value)


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
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        return False
    names = [each.get("name") for each in value]
    fits = all(_is_engagement(each) for each in value)
    return fits and len(set(names)) == len(names)


def _is_engagement(value: Mapping[str, Any]) -> bool:
    verbs = value.get("verbs", {})
    return (
        _are_texts([value.get("name")])
        and value.get("role", "neutral") in get_args(Role)
        and isinstance(verbs, dict)
        and all(isinstance(verb, str) and verb.count("{titles}") == 1 for verb in verbs.values())
    )


CONTRACT_1_ROLES: Final[dict[str, Role]] = {
    "like": "positive",
    "complete": "positive",
    "share": "positive",
    "skip": "negative",
}
"""Contract 1 had no roles: these names had a meaning."""
ABLATIONS: Final = frozenset(get_args(AblationName))
_PLAIN: Final = "a plain name (letters, digits, dot, dash, underscore)"
_REQUIRED: Final = ("name", "version", "files", "max_length", "reranker_output", "engagements", "feature_set")
_RULES: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "name": (_is_plain_name, _PLAIN),
    "version": (_is_plain_name, _PLAIN),
    "files": (_has_hashes, f"the SHA-256 of each of {', '.join(FILES)}, by plain file name"),
    "max_length": (lambda value: _is_int(value, 1), "a number of events, at least 1"),
    "fixed_length": (lambda value: value is None or _is_int(value, 1), "null or a number of columns"),
    "empty_session": (lambda value: value in get_args(EmptySession), '"zero", "run" or "unknown"'),
    "ablations": (_are_ablations, f"null, or a list out of {', '.join(get_args(AblationName))} that has deletion"),
    "substitutes": (_are_texts, "a list of item ids"),
    "session_score_spread": (_is_spread, "null or a number above 0"),
    "reranker_score_spread": (_is_spread, "null or a number above 0"),
    "reranker_output": (
        lambda value: value is None or value in get_args(OutputKind),
        'null, "raw", "probability" or "prediction"',
    ),
    "reranker_offset": (_is_finite, "a number"),
    "engagements": (
        _are_engagements,
        'a list of objects with distinct names, a role ("positive", "neutral" or "negative") and verbs with {titles}',
    ),
    "feature_set": (_is_plain_name, _PLAIN),
    "citation_margin": (_is_non_negative, "a number of at least 0"),
    "score_tolerance": (_is_non_negative, "a number of at least 0"),
    "citation_ageing": (_is_non_negative, "a number of at least 0"),
}

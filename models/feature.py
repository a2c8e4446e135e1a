"""The inputs of the re-ranker by what they mean: ``features.json`` of a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from models.errors import BundleError

Owner = Literal["user", "item", "context", "session"]
Meaning = Literal["", "trend", "popularity"]

SESSION: Final = "session"
"""The owner of the one feature that is the session model's score."""

_CONTRACT_1_SESSION_SCORE: Final = ("session_score", "context")
"""Name and owner of the session model's score in contract 1, which had no other feature of the context."""

_OWNERS: Final[tuple[Owner, ...]] = get_args(Owner)
_MEANINGS: Final[tuple[Meaning, ...]] = get_args(Meaning)
_FLAGS: Final = ("is_category", "is_personal", "is_actionable", "is_sensitive", "is_history_derived")
_TEXTS: Final = ("name", "owner", "display_name", "unit", "meaning", "group")
_TYPES: Final[Mapping[str, Any]] = {
    **dict.fromkeys(_TEXTS, str),
    **dict.fromkeys(_FLAGS, bool),
    "scale": int | float,
    "advice": Mapping,
}
_PERSONAL_OWNERS: Final = frozenset({"user", "session"})


@dataclass(frozen=True)
class Feature:
    """One input of the re-ranker.

    Attributes:
        name: unique name, as in the re-ranker's model file.
        owner: the list of the impression that carries the feature: "user", "item" or "context" (such as the hour or the
            device). The feature of the owner "session" is in no list: it is the session model's score.
        display_name: how explanations and reports name the feature.
        is_category: whether the feature describes the item's category.
        is_personal: whether the feature depends on this user's behaviour. By default it does if its owner is the user
            or the session. Age and device are no behaviour.
        unit: free text for people, "" if there is none.
        is_actionable: whether the user can bring the feature down to 0 by changing habits.
        is_sensitive: whether the feature must not be named, or relied on, in any explanation text.
        is_history_derived: whether the feature is computed from the past events, so that it changes if one is deleted.
        meaning: "trend" or "popularity" for a feature that says how fast the item rises, or how popular it is, compared
            with the other items; else "".
        scale: the value of a "trend" or "popularity" at the highest percentile: 100 for percentiles, 1 for shares.
        advice: by locale, the sentence that tells a user how to bring an actionable feature down.
        group: name of the group that the feature is shown with as one, "" if it is shown by itself.

    """

    name: str
    owner: Owner
    display_name: str
    is_category: bool = False
    is_personal: bool | None = None
    unit: str = ""
    is_actionable: bool = False
    is_sensitive: bool = False
    is_history_derived: bool = False
    meaning: Meaning = ""
    scale: float = 100.0
    advice: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    group: str = ""

    def __post_init__(self) -> None:
        if (self.name, self.owner) == _CONTRACT_1_SESSION_SCORE:
            object.__setattr__(self, "owner", SESSION)
        if self.is_personal is None:
            object.__setattr__(self, "is_personal", self.owner in _PERSONAL_OWNERS)

    def record(self) -> dict[str, Any]:
        """Return the feature's entry in ``features.json``."""
        return {name: dict(value) if name == "advice" else value for name, value in vars(self).items()}


def shown_as(features: Sequence[Feature]) -> list[str]:
    """Return the name that each feature's contribution is shown under: its group's, or its own.

    A sensitive feature is never part of a group, which is named where the feature must not be.
    """
    return [feature.group if feature.group and not feature.is_sensitive else feature.name for feature in features]


def read_features(data: bytes, contract: int) -> tuple[Feature, ...]:
    """Read ``features.json`` of a bundle of a contract; raises BundleError."""
    try:
        records = [_newest(record) if contract == 1 else record for record in json.loads(data)]
        features = tuple(Feature(**record) for record in records)
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(
            f"features.json: expected a list of objects with name, owner and display_name, and optionally "
            f"{', '.join(name for name in Feature.__dataclass_fields__ if name not in _TEXTS[:3])}, got {error}: write "
            "the list from Feature.record()."
        ) from error
    for feature in features:
        _check(feature)
    names = [feature.name for feature in features]
    if len(set(names)) != len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise BundleError(f"features.json: expected distinct names, got {', '.join(repeated)} twice: rename features.")
    if taken := sorted({feature.group for feature in features} & set(names)):
        raise BundleError(
            f"features.json: expected groups named otherwise than features, got {', '.join(taken)}: rename the groups."
        )
    session = [feature.name for feature in features if feature.owner == SESSION]
    if len(session) > 1:
        raise BundleError(
            f"features.json: expected one feature of the owner {SESSION} at most, got {', '.join(session)}: give the "
            "others the owner of the list that carries them."
        )
    return features


def _newest(record: dict[str, Any]) -> dict[str, Any]:
    """Turn an entry of contract 1 into one of contract 2.

    Contract 1 recognised the trend by its name. Whatever the item did not own was personal, and whatever is personal
    may derive from the history.
    """
    trend = {"meaning": "trend"} if record["name"] == "trend_percentile" else {}
    personal = record["owner"] != "item" or record.get("is_personal", False)
    derived = personal and record["owner"] != "context"
    return record | trend | {"is_personal": personal, "is_history_derived": derived}


def _check(feature: Feature) -> None:
    wrong = [name for name, fits in _TYPES.items() if not isinstance(getattr(feature, name), fits)]
    if wrong or not feature.name or not feature.display_name:
        raise BundleError(
            f"features.json: expected true or false for {', '.join(_FLAGS)}, a number for scale, an object for advice "
            f"and text in the other fields of {feature.record()}, got others in "
            f"{', '.join(wrong) or 'an empty name'}: correct the entry."
        )
    if feature.owner not in _OWNERS:
        raise BundleError(
            f"features.json: expected one of the owners {', '.join(_OWNERS)} for {feature.name}, got "
            f"{feature.owner!r}: correct the entry."
        )
    if feature.meaning not in _MEANINGS:
        raise BundleError(
            f"features.json: expected one of the meanings {', '.join(map(repr, _MEANINGS))} for {feature.name}, got "
            f"{feature.meaning!r}: correct the entry."
        )
    if feature.meaning and not 0 < feature.scale < float("inf"):
        raise BundleError(
            f"features.json: expected the scale of {feature.name} to be the value of its highest percentile, such as "
            f"100 or 1, got {feature.scale:g}: correct the entry."
        )
    if any(not isinstance(text, str) or not text for text in feature.advice.values()):
        raise BundleError(
            f"features.json: expected advice of {feature.name} as one sentence for each locale, got "
            f"{dict(feature.advice)}: correct the entry."
        )

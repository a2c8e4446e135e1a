"""Select, learned: among the types whose claims hold, the one that is most likely to help this user.

What may be said is decided before, by the evidence policy; here it is only decided which of it is said. Exploration is
drawn from a hash of request and item, so that a replay draws the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import numpy as np

from models.bundle import Bundle
from models.selector.features import CONTEXT, TYPES
from models.selector.runtime import MAX_EXPLORATION, Selector, choose
from stream.errors import ConfigurationError
from stream.explain.findings import Findings
from stream.explain.kinds import KINDS, POLICIES
from stream.explain.slates import Bools, Doubles, Ints, Slates

LEARNED: Final = "learned"
"""The policy; with ``@`` and eight hexadecimal characters it names one selector, as explanations and archive do."""

CLAIMS: Final = "evidence"
"""The policy that decides which claims hold."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a policy's name means with one bundle: its whole name, whose claims are made, and who chooses among them."""

    name: str
    claims: str
    selector: Selector | None = None


def resolve(bundle: Bundle, policy: str, max_exploration: float = MAX_EXPLORATION) -> Policy:
    """Find out what is meant by ``evidence``, ``attention``, ``learned`` or ``learned@version``.

    How much is explored stands in the bundle, so that a replay knows it; here it is only refused where it is too much.

    Raises:
        ConfigurationError: there is no such policy; the bundle has no selector, another one, or one that explores more
            than ``max_exploration``, a share of the items.
        BundleError: its files are no selector.

    """
    name, _, wanted = policy.partition("@")
    if policy in POLICIES:
        return Policy(policy, policy)
    if name != LEARNED:
        known = ", ".join((*POLICIES, LEARNED))
        raise ConfigurationError(f"expected a policy out of {known}, got {policy!r}; choose one")
    selector = Selector.load(bundle)
    if selector is None:
        raise ConfigurationError(
            f"policy {policy!r} needs a bundle with a selector, and {bundle.path} has none: train one with "
            "whyrec models selector, or set the policy to evidence"
        )
    if wanted not in ("", selector.version):
        raise ConfigurationError(
            f"policy {policy!r} needs that selector, and {bundle.path} has {LEARNED}@{selector.version}: name the "
            "bundle that holds it"
        )
    if selector.exploration > max_exploration:
        raise ConfigurationError(
            f"the selector of {bundle.path} explores in {selector.exploration:.1%} of items, and at most "
            f"{max_exploration:.1%} are allowed: raise WHYREC_MAX_EXPLORATION, or train with less (whyrec models "
            "selector --exploration)"
        )
    return Policy(f"{LEARNED}@{selector.version}", CLAIMS, selector)


def choices(selector: Selector, findings: Findings, made: Bools) -> Ints:
    """Choose for each item among the kinds that may be made, bool [K, T]: places in KINDS, int64 [T]."""
    places = np.array([list(KINDS).index(name) for name in TYPES])
    choice = choose(selector, context(findings), made[places].T, draws(findings.slates))
    return np.where(choice < 0, made.argmax(axis=0), places[choice])


def draws(slates: Slates) -> Doubles:
    """Draw a number in [0, 1) for each item, the same whenever it is asked: float64 [T].

    The number is taken from a hash of request and item, so that a replay draws the same.
    """
    requests = [request_id.lower() for request_id in slates.texts("request_id")]
    pairs = zip(slates.slate.tolist(), slates.item_id.to_pylist(), strict=True)
    hashes = b"".join(sha256(f"{requests[slate]}/{item_id}".encode()).digest()[:8] for slate, item_id in pairs)
    # The upper 53 bits: as many as a float64 holds exactly, so that no draw rounds up to 1.
    return np.asarray((np.frombuffer(hashes, ">u8") >> np.uint64(11)) / 2.0**53)


def context(findings: Findings) -> Doubles:
    """Lay out what the selector reads, float64 [T, len(CONTEXT)]."""
    slates, signals, citations = findings.slates, findings.signals, findings.citations
    cited = citations.column >= 0
    drop = np.where(cited, citations.drop_centred, -np.inf).max(axis=1)
    lost = np.where(cited, citations.rank_without - citations.rank[:, None], 0).max(axis=1)
    habits = _habits(slates, findings.bundle)
    columns = {
        "position": slates.position,
        **{name: values[slates.slate] for name, values in habits.items()},
        "category_match": signals.category_match,
        "category_titles": signals.category_titles,
        "cited": cited.sum(axis=1),
        "largest_drop": np.where(np.isfinite(drop), drop, np.nan),
        "ranks_lost": lost,
        "popularity": signals.popularity,
        "trend": signals.trend,
        "personal_share": signals.personal_share,
    }
    return np.column_stack([np.asarray(columns[name], dtype=np.float64) for name in CONTEXT])


def _habits(slates: Slates, bundle: Bundle) -> dict[str, Doubles]:
    """Say what a history shows of its user, per slate: float64 [S] each, NaN for an empty one."""
    histories = slates.histories
    there = histories.item > 0
    roles = np.array(["", *(each.role for each in bundle.engagements)])
    role = roles[histories.engagement]
    category = bundle.catalog.category_codes[histories.item]
    count = np.where(histories.length > 0, histories.length, np.nan)
    most = [np.bincount(row[seen]).max(initial=0) for row, seen in zip(category, there, strict=True)]
    event_ms = slates.batch.column("session").flatten().field("timestamp_ms").to_numpy(zero_copy_only=False)
    newest = np.full(len(slates), np.nan)
    filled = np.diff(slates.sessions) > 0
    newest[filled] = event_ms[slates.sessions[1:][filled] - 1]
    now = slates.timestamps_ms().astype(np.float64)
    return {
        "history_length": histories.length.astype(np.float64),
        "hours_since_last": (now - newest) / 3_600_000,
        "engaged_share": ((role == "positive") & there).sum(axis=1) / count,
        "skip_share": ((role == "negative") & there).sum(axis=1) / count,
        "top_category_share": np.array(most) / count,
        "usual_popularity": (bundle.catalog.popularity[histories.item] * there).sum(axis=1) / count,
    }

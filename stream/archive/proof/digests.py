"""Signed daily digests: a record of where every chain ended on that day. Pure.

A hash chain shows that an entry in its middle was changed or removed. It cannot show that its end was removed, or that
all of it was rewritten. So once a day a digest records the ends of the chains that have grown since the digest before:
chains of commit entries (``_commits/``), of changes (``_changes/``) and of holds (``_holds/``). Digests form a chain
themselves, and each is signed. A digest is written even if no chain has grown, so that a missing one is noticed. The
rules:

31. Every key below ``_digests/`` is the key of a digest or of a public key; its bytes are that in canonical form, and
    state what the key states.
32. The public keys form one line: one root, and each key signed by the key that it replaces (see
    :mod:`stream.archive.proof.keys`).
33. Every digest has the signature of a key that was in force: of the root, or of the key that the auditor trusts, and
    then of its successors in order. A trusted key must have signed a digest, or a successor must have. The hashes in
    the chain of digests vouch for the digests before a trusted key's first one. Verification without a trusted key is a
    notice.
34. Each digest contains the SHA-256 of the digest before it, and its date is later.
35. Every chain still reaches as far as each digest recorded: its end was not removed.
36. Every chain that a digest records exists.
37. The entry at which a chain ended still has the recorded hash, so no entry before it was rewritten.
38. There is a digest of yesterday or today. Otherwise a notice says so: later entries are not protected, or their
    digests were removed. No digest at all is a notice too.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from stream.archive.log import canonical
from stream.archive.proof import keys
from stream.archive.proof.findings import Finding
from stream.archive.proof.keys import KEYS, Keyring, PrivateKey
from stream.errors import ArchiveError

FORMAT: Final = 1
DIGESTS: Final = "_digests/"
CHAINS: Final = ("_changes/", "_commits/", "_holds/")
"""The prefixes of all chains, in the order of their keys."""

_KEY = re.compile(r"_digests/(?P<date>\d{4}-\d{2}-\d{2})\.json")


class InvalidDigest(ArchiveError):
    """The bytes are not a digest, or a digest of the present chains must not be made."""


@dataclass(frozen=True, slots=True)
class End:
    """The end of a chain: the next offset or number, and the SHA-256 of the last entry."""

    next: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest. ``chains`` are the ends of the chains that have grown since the digest before, by prefix."""

    date: str
    written_at_ms: int
    previous: str | None
    chains: Mapping[str, End]
    key: str
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Pin:
    """The end of a chain as a digest recorded it."""

    chain: str
    next: int
    sha256: str
    digest: str


@dataclass(frozen=True, slots=True)
class Signed:
    """The digests of an archive with their SHA-256, oldest first, its keys, and the findings about both."""

    digests: tuple[tuple[Digest, str], ...] = ()
    keyring: Keyring = field(default_factory=Keyring)
    findings: tuple[Finding, ...] = ()

    def pins(self) -> list[Pin]:
        """Return every end that any digest recorded."""
        return [
            Pin(chain, end.next, end.sha256, key_of(digest.date))
            for digest, _ in self.digests
            for chain, end in digest.chains.items()
        ]

    def ends(self) -> dict[str, End]:
        """Return the end of each chain in the last digest that records the chain."""
        return {chain: end for digest, _ in self.digests for chain, end in digest.chains.items()}

    @property
    def last(self) -> tuple[Digest, str] | None:
        """The newest digest and its SHA-256."""
        return self.digests[-1] if self.digests else None


@dataclass(slots=True)
class Watch:
    """Observes entries while the verifier reads them: how far each chain reaches, and the hashes at recorded ends."""

    wanted: frozenset[tuple[str, int]]
    reached: dict[str, int] = field(default_factory=dict)
    hashes: dict[tuple[str, int], str] = field(default_factory=dict)

    @classmethod
    def of(cls, signed: Signed) -> Watch:
        """Return an observer for the ends that these digests recorded."""
        return cls(frozenset((pin.chain, pin.next) for pin in signed.pins()))

    def over(self, entries: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        """Yield the keys and bytes of entries, changes or holds unchanged, observing them."""
        for key, data in entries:
            link = link_of(key, data)
            if link is not None:
                chain, following, _ = link
                self.reached[chain] = max(following, self.reached.get(chain, 0))
                if (chain, following) in self.wanted:
                    self.hashes[chain, following] = hashlib.sha256(data).hexdigest()
            yield key, data


def key_of(date: str) -> str:
    """Return the key of the digest of a date."""
    return f"{DIGESTS}{date}.json"


def link_of(key: str, data: bytes) -> tuple[str, int, str | None] | None:
    """Return the chain of an entry, the end of the chain with it, and the hash of the entry before.

    Returns None if these cannot be read. All other rules about entries are the verifier's.
    """
    chain, _, name = key.rpartition("/")
    try:
        document = json.loads(data)
        following = document["next"] if key.startswith("_commits/") else int(name.removesuffix(".json")) + 1
        previous = document["previous"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(following, int) or not isinstance(previous, str | None):
        return None
    return f"{chain}/", following, previous


def end_at(key: str, data: bytes) -> End | None:
    """Return the end of a chain of which this is the last entry."""
    link = link_of(key, data)
    return None if link is None else End(link[1], hashlib.sha256(data).hexdigest())


def continued(chain: str, end: End | None, entries: Iterable[tuple[str, bytes]]) -> End | None:
    """Return the end of a chain after more entries (those after ``end``); ``end`` itself if there are none.

    Raises:
        InvalidDigest: an entry does not continue the entry before it.

    """
    for key, data in entries:
        link = link_of(key, data)
        if link is None or link[0] != chain:
            raise InvalidDigest(f"{key} is not an entry of {chain}; run `whyrec archive verify`")
        if link[2] != (None if end is None else end.sha256):
            raise InvalidDigest(f"{key} does not follow the entry before it; run `whyrec archive verify`")
        end = End(link[1], hashlib.sha256(data).hexdigest())
    return end


def make(
    private: PrivateKey, date: str, chains: Mapping[str, End], last: tuple[Digest, str] | None, written_at_ms: int
) -> bytes:
    """Sign a digest that continues the chain of digests, and return its bytes.

    Raises:
        InvalidDigest: its date is not after that of the last digest.

    """
    if last is not None and date <= last[0].date:
        raise InvalidDigest(f"a digest of {date} cannot follow the digest of {last[0].date}; name a later date")
    unsigned = Digest(date, written_at_ms, None if last is None else last[1], chains, private.id)
    return canonical.encode(_document(unsigned) | {"signature": private.sign(canonical.encode(_document(unsigned)))})


def decode(data: bytes) -> Digest:
    """Decode a digest.

    Raises:
        InvalidDigest: the bytes are not what :func:`make` writes.

    """
    formats = range(FORMAT, FORMAT + 1)
    return canonical.decode(data, formats, _digest, _encode, what="digest", invalid=InvalidDigest)


def _digest(document: dict[str, Any]) -> Digest:
    return Digest(
        document["date"],
        document["written_at_ms"],
        document["previous"],
        {chain: End(end["next"], end["sha256"]) for chain, end in document["chains"].items()},
        document["key"],
        document["signature"],
    )


def _encode(digest: Digest) -> bytes:
    return canonical.encode(_document(digest) | {"signature": digest.signature})


def read(stored: Iterable[tuple[str, bytes]], trust: str | None = None) -> Signed:
    """Decode digests and public keys, and apply rules 31 to 34.

    ``stored`` are the keys below ``_digests/`` with their bytes, in their order. ``trust`` is the id of the key that
    the auditor trusts.
    """
    found: list[Finding] = []
    public: dict[str, bytes] = {}
    digests: list[tuple[Digest, str]] = []
    for key, data in stored:
        if key.startswith(KEYS):
            public[key] = data
            continue
        try:
            digest = decode(data)
        except InvalidDigest as error:
            found.append(Finding(31, "error", key, str(error)))
            continue
        if _KEY.fullmatch(key) is None or key != key_of(digest.date):
            found.append(Finding(31, "error", key, f"holds the digest {key_of(digest.date)}"))
            continue
        digests.append((digest, hashlib.sha256(data).hexdigest()))
    keyring, faults = keys.keyring(public)
    found.extend(Finding(32, "error", key, what) for key, what in faults)
    before: tuple[Digest, str] | None = None
    for digest, sha256 in digests:
        found.extend(_link(digest, before))
        before = digest, sha256
    found.extend(_signatures([digest for digest, _ in digests], keyring, trust))
    return Signed(tuple(digests), keyring, tuple(found))


def findings(signed: Signed, watch: Watch, today: str | None = None) -> list[Finding]:
    """Apply all rules after ``watch`` has observed every entry; ``today`` is YYYY-MM-DD."""
    found = list(signed.findings)
    missing: set[str] = set()
    for pin in signed.pins():
        reached = watch.reached.get(pin.chain)
        hashed = watch.hashes.get((pin.chain, pin.next))
        if reached is None:
            if pin.chain not in missing:
                found.append(
                    Finding(36, "error", pin.chain, f"has no entry; {pin.digest} recorded its end at {pin.next}")
                )
            missing.add(pin.chain)
        elif reached < pin.next:
            what = f"ends at {reached}; {pin.digest} recorded its end at {pin.next}: its last entries were removed"
            found.append(Finding(35, "error", pin.chain, what))
        elif hashed != pin.sha256:
            what = f"was rewritten: {pin.digest} recorded SHA-256 {pin.sha256} at {pin.next}, which is {hashed} now"
            found.append(Finding(37, "error", pin.chain, what))
    if signed.last is not None or watch.reached:
        found.extend(_age(signed, today))
    return found


def _link(digest: Digest, before: tuple[Digest, str] | None) -> Iterable[Finding]:
    key = key_of(digest.date)
    expected = None if before is None else before[1]
    if digest.previous != expected:
        what = f"follows a digest with SHA-256 {digest.previous}, but the digest before it has {expected}"
        yield Finding(34, "error", key, f"{what}: a digest was removed, added or rewritten")
    if before is not None and digest.date <= before[0].date:
        yield Finding(34, "error", key, f"has a date that is not after that of {key_of(before[0].date)}")


def _signatures(digests: list[Digest], keyring: Keyring, trust: str | None) -> Iterable[Finding]:
    root = 0 if trust is None else keyring.generation(trust)
    if root is None:
        yield Finding(33, "error", f"{KEYS}{trust}.json", "is trusted, but does not sign digests of this archive")
        return
    successors = {key.id for key in keyring.line[root:]}
    if trust is None and digests:
        what = "is accepted as the root without proof; name the key that you trust with --trust"
        yield Finding(33, "notice", keys.key_of(keyring.line[0]) if keyring.line else KEYS, what)
    elif digests and not any(digest.key in successors for digest in digests):
        what = "is trusted, but neither it nor a successor has signed a digest"
        yield Finding(33, "error", f"{KEYS}{trust}.json", what)
    oldest = 0
    for digest in digests:
        key = key_of(digest.date)
        generation = keyring.generation(digest.key)
        if generation is None:
            yield Finding(33, "error", key, f"is signed by {digest.key}, which is not a key of this archive")
        elif not keyring.line[generation].signs(canonical.encode(_document(digest)), digest.signature):
            yield Finding(33, "error", key, f"does not have a valid signature of {digest.key}")
        elif generation < oldest:
            yield Finding(33, "error", key, f"is signed by {digest.key}, which had been replaced")
        oldest = max(oldest, generation or 0)


def _age(signed: Signed, today: str | None) -> Iterable[Finding]:
    if signed.last is None:
        yield Finding(38, "notice", DIGESTS, "there is no digest: it cannot be shown that no chain lost its end")
        return
    newest = signed.last[0].date
    if today is not None and dt.date.fromisoformat(newest) < dt.date.fromisoformat(today) - dt.timedelta(days=1):
        what = "is the newest digest: later entries are not protected, or later digests were removed"
        yield Finding(38, "notice", key_of(newest), what)


def _document(digest: Digest) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "date": digest.date,
        "written_at_ms": digest.written_at_ms,
        "previous": digest.previous,
        "chains": {chain: {"next": end.next, "sha256": end.sha256} for chain, end in digest.chains.items()},
        "key": digest.key,
    }

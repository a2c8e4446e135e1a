"""Writing digests and keys to the archive."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path

from stream.archive.objects import ObjectExists, ObjectInfo, Store
from stream.archive.proof import digests, keys
from stream.archive.proof.digests import CHAINS, DIGESTS, Digest, End, InvalidDigest, Signed
from stream.archive.proof.keys import PrivateKey, PublicKey, Use
from stream.errors import ArchiveError, ConfigurationError


def raw_digests(store: Store) -> Iterator[tuple[str, bytes]]:
    """Yield every key below ``_digests/`` with its bytes, in the order of the keys."""
    for info in store.list(DIGESTS):
        yield info.key, store.get(info.key)


def read(store: Store, trust: str | None = None) -> Signed:
    """Read all digests and keys, with the findings about them."""
    return digests.read(raw_digests(store), trust)


def seal(store: Store, private: PrivateKey, date: str | None, clock: Callable[[], float]) -> Digest:
    """Write the digest of a date and return it. Without a date it is today's (UTC); an existing one is returned.

    Every chain must still have its recorded end, and later entries must continue it. Otherwise no digest is written: it
    would certify a chain that has lost entries.

    Raises:
        InvalidDigest: the date is in the future or not after the last digest, or a chain has lost entries.
        ArchiveError: the existing digests break a rule, or ``private`` is not the current key.

    """
    now_s = clock()
    today = dt.datetime.fromtimestamp(now_s, dt.UTC).date().isoformat()
    if date is not None and date > today:
        raise InvalidDigest(f"{date} is in the future; today is {today}")
    signed = _verified(store)
    current = signed.keyring.current
    if current is None or current.id != private.id:
        raise ArchiveError(
            f"{store.url}: digests are signed by {'no key yet' if current is None else current.id}, "
            f"not by {private.id}; see `whyrec archive keys list`"
        )
    if date is None and signed.last is not None and signed.last[0].date == today:
        return signed.last[0]
    date = today if date is None else date
    before = signed.ends()
    ends = {}
    for chain, infos in groupby(_links(store), key=lambda info: info.key.rpartition("/")[0] + "/"):
        ends[chain] = _end(store, chain, before.get(chain), [info.key for info in infos])
    lost = sorted(set(before) - set(ends))
    if lost:
        raise InvalidDigest(f"{lost[0]} is in an earlier digest and has no entries now; run `whyrec archive verify`")
    grown = {chain: end for chain, end in ends.items() if end is not None and end != before.get(chain)}
    data = digests.make(private, date, grown, signed.last, int(now_s * 1000))
    try:
        store.put_if_absent(digests.key_of(date), data)
    except ObjectExists:
        raise InvalidDigest(f"there is a digest of {date} already, and a digest is never replaced") from None
    return digests.decode(data)


def new_root(store: Store, path: Path, made_at_ms: int) -> PublicKey:
    """Make the first key of an archive: the private key in a new file, the public key in the archive.

    Raises:
        ConfigurationError: the file exists.
        ArchiveError: the archive has a key already.

    """
    if any(True for _ in store.list(keys.KEYS)):
        raise ArchiveError(f"{store.url} has a key already; replace it by `whyrec archive keys rotate`")
    private = PrivateKey.generate()
    return _publish(store, private, private, "digests", path, made_at_ms)


def vouched(store: Store, by: PrivateKey, use: Use, path: Path, made_at_ms: int) -> PublicKey:
    """Make a key and sign it with the current one: its successor (``digests``), or a key for ``receipts``.

    Raises:
        ConfigurationError: the file exists.
        ArchiveError: ``by`` is not the current key, or the existing keys break a rule.

    """
    current = _verified(store).keyring.current
    if current is None or current.id != by.id:
        raise ArchiveError(
            f"{by.id} is not the key in force ({current and current.id}); see `whyrec archive keys list`"
        )
    return _publish(store, PrivateKey.generate(), by, use, path, made_at_ms)


def key_in(path: Path | None) -> PrivateKey:
    """Load the private key from the file that the settings name.

    Raises:
        ConfigurationError: the settings name no file, or it cannot be used.

    """
    if path is None:
        raise ConfigurationError("no signing key: set WHYREC_SIGNING_KEY_FILE to the file that `keys new` wrote")
    return PrivateKey.load(path)


def _publish(store: Store, private: PrivateKey, by: PrivateKey, use: Use, path: Path, made_at_ms: int) -> PublicKey:
    # The file first: if only the public key existed, nobody could sign with the key in force any more.
    private.save(path)
    public = keys.vouch(by, private.public, use, made_at_ms)
    store.put_if_absent(keys.key_of(public), keys.encode(public))
    return public


def _verified(store: Store) -> Signed:
    signed = read(store)
    for finding in signed.findings:
        if finding.severity == "error":
            raise ArchiveError(f"{finding.key} {finding.what}; run `whyrec archive verify`")
    return signed


def _links(store: Store) -> Iterator[ObjectInfo]:
    for prefix in CHAINS:
        for info in store.list(prefix):
            if info.key.endswith(".json"):
                yield info


def _end(store: Store, chain: str, signed: End | None, names: list[str]) -> End | None:
    """Read a chain from its recorded end on; the entry at that end must still have the recorded hash."""
    entries: Iterable[tuple[str, bytes]]
    if signed is None:
        entries = ((name, store.get(name)) for name in names)
        return digests.continued(chain, None, entries)
    after = [name for name in names if _first(chain, name) >= signed.next]
    known = names[: len(names) - len(after)][-1:]
    if not known or digests.end_at(known[0], store.get(known[0])) != signed:
        raise InvalidDigest(
            f"{chain} no longer has the entry that ended at {signed.next}, which a digest recorded: its last entries "
            "were removed or rewritten; run `whyrec archive verify`"
        )
    return digests.continued(chain, signed, ((name, store.get(name)) for name in after))


def _first(chain: str, name: str) -> int:
    digits = name.removeprefix(chain).removesuffix(".json")
    return int(digits) if digits.isdigit() else -1

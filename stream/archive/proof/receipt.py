"""Receipts: what a pull asked, from which entries the answer comes, and that none between them is missing. Pure.

A receipt names the end of every chain that it rests on. Whoever has read access takes the same snapshot again and
must find the same objects; the digest that it names says that these chains were not made up since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from stream.archive.log import canonical
from stream.archive.log.commitlog import ObjectRef
from stream.archive.proof.digests import Digest, End, Signed, key_of
from stream.archive.proof.keys import PrivateKey
from stream.archive.proof.snapshot import Snapshot
from stream.archive.reading.pull import Found, Query, Reads, Scope
from stream.errors import ArchiveError

FORMAT: Final = 1


class InvalidReceipt(ArchiveError):
    """Bytes that are no receipt of ours."""


@dataclass(frozen=True, slots=True)
class Given:
    """The file that was handed out."""

    format: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt as read: ``objects`` are all that were looked into, ``digest`` the newest one then (date, SHA-256)."""

    query: Query
    chains: Mapping[str, End]
    objects: tuple[tuple[str, str, int], ...]
    output: Given
    digest: tuple[str, str] | None
    uncovered: tuple[str, ...]
    made_at_ms: int
    key: str | None
    signature: str | None
    signed_part: bytes


def make(
    query: Query,
    snapshot: Snapshot,
    found: Sequence[Found],
    output: Given,
    reads: Reads,
    signed: Signed,
    *,
    archive: str,
    made_at_ms: int,
    private: PrivateKey | None,
) -> bytes:
    """Write a receipt, signed if there is a key; the same call gives the same bytes."""
    ends = signed.ends()
    document: dict[str, Any] = {
        "format": FORMAT,
        "archive": archive,
        "made_at_ms": made_at_ms,
        "query": asdict(query),
        "chains": {
            prefix: {"first": 0, "next": end.next, "sha256": end.sha256} for prefix, end in snapshot.chains.items()
        },
        "objects": [
            {
                "key": each.ref.key,
                "sha256": each.ref.sha256,
                "rows": each.ref.rows,
                "row_groups": each.groups,
                "row_groups_read": each.groups_read,
                "rows_found": each.rows,
            }
            for each in found
        ],
        "output": asdict(output),
        "reads": {"count": reads.count, "bytes": reads.bytes},
        "digest": None if signed.last is None else {"date": signed.last[0].date, "sha256": signed.last[1]},
        # Grown since the digest: its hash chain is unbroken, but nobody has signed its end yet.
        "not_yet_in_a_digest": sorted(prefix for prefix, end in snapshot.chains.items() if ends.get(prefix) != end),
        "key": None if private is None else private.id,
    }
    signature = None if private is None else private.sign(canonical.encode(document))
    return canonical.encode(document | {"signature": signature})


def decode(data: bytes) -> Receipt:
    """Read a receipt.

    Raises:
        InvalidReceipt: not what :func:`make` writes.

    """
    try:
        document = json.loads(data)
        if document["format"] != FORMAT:
            raise InvalidReceipt(f"format {document['format']!r}; expected {FORMAT}: update whyrec")
        is_canonical = canonical.encode(document) == data
        signature = document.pop("signature")
        signed_part = canonical.encode(document)
        asked = document["query"]
        scope = asked.pop("scope")
        query = Query(Scope(scope["since"], scope["until"], tuple(scope["regions"])), **asked)
        receipt = Receipt(
            query,
            {prefix: End(end["next"], end["sha256"]) for prefix, end in document["chains"].items()},
            tuple((each["key"], each["sha256"], each["rows"]) for each in document["objects"]),
            Given(**document["output"]),
            document["digest"] and (document["digest"]["date"], document["digest"]["sha256"]),
            tuple(document["not_yet_in_a_digest"]),
            document["made_at_ms"],
            document["key"],
            signature,
            signed_part,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidReceipt(f"no receipt: {type(error).__name__} {error}") from error
    if not is_canonical:
        raise InvalidReceipt("not in canonical form: was it edited?")
    return receipt


def faults(receipt: Receipt, again: Snapshot, signed: Signed, output: Given | None = None) -> list[str]:
    """Say what is wrong with a receipt.

    ``again`` is the snapshot taken by its chains, ``signed`` the digests and keys of the archive, ``output`` the file
    that came with it, if there is one to compare.
    """
    found = [f"{finding.key} {finding.what}" for finding in signed.findings if finding.severity == "error"]
    if receipt.key is None or receipt.signature is None:
        found.append("nobody signed it")
    else:
        public = signed.keyring.for_receipt(receipt.key)
        if public is None:
            found.append(f"it is signed by {receipt.key}, which may sign no receipts of this archive")
        elif not public.signs(receipt.signed_part, receipt.signature):
            found.append(f"it does not bear the signature of {receipt.key}")
    found.extend(_objects(receipt, again.objects))
    found.extend(_digest(receipt, [digest for digest, _ in signed.digests], dict(_hashes(signed))))
    if output is not None and (output.bytes, output.sha256) != (receipt.output.bytes, receipt.output.sha256):
        found.append(f"the file has SHA-256 {output.sha256}, the receipt is for {receipt.output.sha256}")
    return found


def _objects(receipt: Receipt, there: Sequence[ObjectRef]) -> list[str]:
    expected = {(ref.key, ref.sha256, ref.rows) for ref in there if receipt.query.reaches(ref)}
    stated = set(receipt.objects)
    left_out = [f"it leaves out {key}" for key, _, _ in sorted(expected - stated)]
    return left_out + [f"it names {key}, which was not there then" for key, _, _ in sorted(stated - expected)]


def _digest(receipt: Receipt, digests: Sequence[Digest], hashes: Mapping[str, str]) -> list[str]:
    if receipt.digest is None:
        return []
    date, sha256 = receipt.digest
    if hashes.get(date) != sha256:
        return [f"it rests on {key_of(date)} with SHA-256 {sha256}, now {hashes.get(date)}"]
    ends = {prefix: end for digest in digests if digest.date <= date for prefix, end in digest.chains.items()}
    return [
        f"{prefix} should be in the digest of {date}, and is not"
        for prefix, end in receipt.chains.items()
        if prefix not in receipt.uncovered and ends.get(prefix) != end
    ]


def _hashes(signed: Signed) -> list[tuple[str, str]]:
    return [(digest.date, sha256) for digest, sha256 in signed.digests]

"""Receipts: the query of a pull, the chains and objects that its answer comes from, and the file handed out. Pure.

A receipt states the end of every chain that was read. Anybody with read access can take the same snapshot again and
compare the objects. The digest that the receipt names proves that the chains were not rewritten since.
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
from stream.archive.reading.pull import ObjectResult, Query, Reads, Scope
from stream.errors import ArchiveError

FORMAT: Final = 1


class InvalidReceipt(ArchiveError):
    """The bytes are not a receipt."""


@dataclass(frozen=True, slots=True)
class OutputFile:
    """The file that was handed out."""

    format: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """A decoded receipt.

    ``chains`` are the ends of the chains, by prefix; ``objects`` the key, SHA-256 and number of rows of each object
    that was searched; ``digest`` the date and SHA-256 of the newest digest then; ``uncovered`` the chains that had
    grown since that digest. ``signed_part`` are the bytes that ``signature`` signs.
    """

    query: Query
    chains: Mapping[str, End]
    objects: tuple[tuple[str, str, int], ...]
    output: OutputFile
    digest: tuple[str, str] | None
    uncovered: tuple[str, ...]
    made_at_ms: int
    key: str | None
    signature: str | None
    signed_part: bytes


def make(
    query: Query,
    snapshot: Snapshot,
    found: Sequence[ObjectResult],
    output: OutputFile,
    reads: Reads,
    signed: Signed,
    *,
    archive: str,
    made_at_ms: int,
    private: PrivateKey | None,
) -> bytes:
    """Encode a receipt, signed if ``private`` is not None. Equal arguments give equal bytes."""
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
        # Chains that have grown since the digest: they are unbroken, but no digest has recorded their end yet.
        "not_yet_in_a_digest": sorted(prefix for prefix, end in snapshot.chains.items() if ends.get(prefix) != end),
        "key": None if private is None else private.id,
    }
    signature = None if private is None else private.sign(canonical.encode(document))
    return canonical.encode(document | {"signature": signature})


def decode(data: bytes) -> Receipt:
    """Decode a receipt.

    Raises:
        InvalidReceipt: the bytes are not what :func:`make` writes.

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
            OutputFile(**document["output"]),
            document["digest"] and (document["digest"]["date"], document["digest"]["sha256"]),
            tuple(document["not_yet_in_a_digest"]),
            document["made_at_ms"],
            document["key"],
            signature,
            signed_part,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidReceipt(f"not a receipt: {type(error).__name__} {error}") from error
    if not is_canonical:
        raise InvalidReceipt("a receipt that is not in canonical form: another program wrote or edited it")
    return receipt


def faults(receipt: Receipt, again: Snapshot, signed: Signed, output: OutputFile | None = None) -> list[str]:
    """Return the faults of a receipt; an empty list if it is valid.

    ``again`` is the snapshot taken from its chains, ``signed`` the digests and keys of the archive, and ``output`` the
    file that came with it, if it is to be compared.
    """
    found = [f"{finding.key} {finding.what}" for finding in signed.findings if finding.severity == "error"]
    if receipt.key is None or receipt.signature is None:
        found.append("it is not signed")
    else:
        public = signed.keyring.for_receipt(receipt.key)
        if public is None:
            found.append(f"it is signed by {receipt.key}, which may not sign receipts of this archive")
        elif not public.signs(receipt.signed_part, receipt.signature):
            found.append(f"it does not have a valid signature of {receipt.key}")
    found.extend(_objects(receipt, again.objects))
    found.extend(_digest(receipt, [digest for digest, _ in signed.digests], dict(_hashes(signed))))
    if output is not None and (output.bytes, output.sha256) != (receipt.output.bytes, receipt.output.sha256):
        found.append(f"the file has SHA-256 {output.sha256}, the receipt is for {receipt.output.sha256}")
    return found


def _objects(receipt: Receipt, objects: Sequence[ObjectRef]) -> list[str]:
    expected = {(ref.key, ref.sha256, ref.rows) for ref in objects if receipt.query.reaches(ref)}
    stated = set(receipt.objects)
    left_out = [f"it leaves out {key}" for key, _, _ in sorted(expected - stated)]
    return left_out + [f"it names {key}, which readers did not see then" for key, _, _ in sorted(stated - expected)]


def _digest(receipt: Receipt, digests: Sequence[Digest], hashes: Mapping[str, str]) -> list[str]:
    if receipt.digest is None:
        return []
    date, sha256 = receipt.digest
    if hashes.get(date) != sha256:
        return [f"it names {key_of(date)} with SHA-256 {sha256}, which is {hashes.get(date)} now"]
    ends = {prefix: end for digest in digests if digest.date <= date for prefix, end in digest.chains.items()}
    return [
        f"{prefix} does not end in the digest of {date} where the receipt says"
        for prefix, end in receipt.chains.items()
        if prefix not in receipt.uncovered and ends.get(prefix) != end
    ]


def _hashes(signed: Signed) -> list[tuple[str, str]]:
    return [(digest.date, sha256) for digest, sha256 in signed.digests]

"""Messages of the audit topic to slates. What can't be read comes back with the reason, still in its original bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from schemas.codec import Codec
from schemas.errors import UndecodableEvent, WhyrecError
from schemas.events import Audit
from stream.archive.rows.segment import placeable
from stream.archive.rows.slates import Bools, Fields, Slates, arrange, fields_of, unsound
from stream.archive.writing.avro import decode_newest


@dataclass(frozen=True, slots=True)
class Record:
    """A message as it came from the audit topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that cannot be archived, and why."""

    record: Record
    error: str


class Decoder:
    """Decode batches of messages; safe to call from one thread at a time."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def warm_up(self) -> None:
        """Compile what reads the newest schema, or load it from numba's cache: seconds, once on a machine."""
        decode_newest([], np.empty(0, np.int64))

    def decode(self, records: Sequence[Record]) -> tuple[Slates, list[Unreadable]]:
        """Decode messages of one partition, in the order of their offsets.

        Raises:
            RegistryUnavailable: the schema registry could not be asked; nothing was decoded.

        """
        fields = self._at_once(records)
        if fields is not None and not _faulty(fields).any():
            return arrange(fields), []
        return self._one_by_one(records)

    def _at_once(self, records: Sequence[Record]) -> Fields | None:
        bodies = []
        for record in records:
            try:
                body = self._codec.newest_body("audit", record.value, record.headers)
            except Exception:  # noqa: BLE001 (whatever is wrong with it, it is said one by one)
                return None
            if body is None:
                return None
            bodies.append(body)
        return decode_newest(bodies, np.array([record.offset for record in records], np.int64))

    def _one_by_one(self, records: Sequence[Record]) -> tuple[Slates, list[Unreadable]]:
        audits: list[Audit] = []
        offsets: list[int] = []
        unreadable: list[Unreadable] = []
        for record in records:
            try:
                audit = cast("Audit", self._codec.decode("audit", record.value, record.headers))
                fault = _fault(audit)
            except UndecodableEvent as error:
                fault = str(error)
            except (WhyrecError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 (no message, however odd, may stop the archive)
                fault = f"{type(error).__name__}: {error}"
            if fault is not None:
                unreadable.append(Unreadable(record, fault))
            else:
                audits.append(audit)
                offsets.append(record.offset)
        return arrange(fields_of(audits, np.array(offsets, np.int64))), unreadable


def _fault(audit: Audit) -> str | None:
    """Say why a decoded record has no place in the archive, if it has none."""
    try:
        fields = fields_of([audit], np.zeros(1, np.int64))
    except OverflowError as error:
        return f"a number is larger than its Avro type allows: {error}"
    if unsound(fields)[0]:
        return f"an entry names an event outside the history, which has {len(audit['history'])}"
    if _faulty(fields)[0]:
        return (
            f"timestamp_ms {audit['timestamp_ms']} and region {audit['region'][:64]!r} name no folder; expected a date "
            "of the years 1 to 9999 and a region of 200 characters at most"
        )
    return None


def _faulty(fields: Fields) -> Bools:
    return unsound(fields) | ~placeable(fields.timestamp_ms, fields.region)

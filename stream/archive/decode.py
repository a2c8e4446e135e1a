"""Messages of the audit topic to slates. What can't be read comes back with the reason, still in its original bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from schemas.codec import Codec
from schemas.errors import UndecodableEvent
from schemas.events import Audit
from stream.archive.segment import placeable
from stream.archive.slates import Slates, arrange, fields_of, unsound


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

    def decode(self, records: Sequence[Record]) -> tuple[Slates, list[Unreadable]]:
        """Decode messages of one partition, in the order of their offsets.

        Raises:
            RegistryUnavailable: the schema registry could not be asked; nothing was decoded.

        """
        audits: list[Audit] = []
        read: list[Record] = []
        unreadable: list[Unreadable] = []
        for record in records:
            try:
                audits.append(cast("Audit", self._codec.decode("audit", record.value, record.headers)))
                read.append(record)
            except UndecodableEvent as error:
                unreadable.append(Unreadable(record, str(error)))
        fields = fields_of(audits, np.array([record.offset for record in read], np.int64))
        dangling = unsound(fields)
        bad = dangling | ~placeable(fields.timestamp_ms, fields.region)
        if bad.any():
            for place in np.flatnonzero(bad).tolist():
                what = (
                    "an entry names an event that the history does not have"
                    if dangling[place]
                    else f"timestamp_ms {audits[place]['timestamp_ms']} or region {audits[place]['region'][:64]!r} "
                    "can't name a folder of the archive"
                )
                unreadable.append(Unreadable(read[place], what))
            fine = np.flatnonzero(~bad).tolist()
            fields = fields_of([audits[place] for place in fine], fields.offset[fine])
        return arrange(fields), unreadable

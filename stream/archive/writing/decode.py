"""Messages of the audit topic to slates; a message that cannot be archived comes back with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from schemas.codec import Codec
from stream.archive.rows.segment import placeable
from stream.archive.rows.slates import Slates, points_outside_history, to_slates


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
    """Decode batches of messages; to be called from one thread at a time."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def decode(self, records: Sequence[Record]) -> tuple[Slates, list[Unreadable]]:
        """Decode messages of one partition, in the order of their offsets.

        Raises:
            RegistryUnavailable: the schema registry could not be asked; nothing was decoded.

        """
        decoded = self._codec.decode_batch("audit", [(record.value, record.headers) for record in records])
        # A copy: each column of the decoded batch holds the memory of the whole batch, and slates are kept for minutes.
        audits = pa.concat_batches([decoded.batch])
        errors, message = dict(decoded.errors), np.array(decoded.rows, np.int64)
        faults = _faults(audits)
        if faults:
            errors.update((int(message[row]), fault) for row, fault in faults.items())
            sound = np.ones(len(audits), np.bool_)
            sound[list(faults)] = False
            audits, message = audits.filter(pa.array(sound)), message[sound]
        offset = np.array([record.offset for record in records], np.int64)[message]
        return to_slates(audits, offset), [Unreadable(records[row], errors[row]) for row in sorted(errors)]


def _faults(audits: pa.RecordBatch) -> dict[int, str]:
    """Say by row why audit records have no place in the archive; records without a fault are left out."""
    timestamp_ms, regions = audits["timestamp_ms"].to_numpy(), audits["region"]
    faults = {
        row: f"timestamp_ms {timestamp_ms[row]} and region {regions[row].as_py()[:64]!r} name no folder; expected a "
        "date of the years 1 to 9999 and a region of 200 characters at most"
        for row in np.flatnonzero(~placeable(timestamp_ms, regions)).tolist()
    }
    histories = audits["history"].value_lengths()
    for row in np.flatnonzero(points_outside_history(audits)).tolist():
        faults[row] = f"an entry names an event outside the history, which has {histories[row]}"
    return faults

"""Find item ids in the catalogue as the bytes they come as, without a string for each."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.catalog import Catalog
from models.compiled import compiled

_FNV_OFFSET = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)


class Table(NamedTuple):
    """The ids of a catalogue in UTF-8, uint8, index k from starts[k - 1] to starts[k], and a hash table of indices.

    starts int64 [n + 1]; slots int64, twice as many as ids or more, 0 where there is none.
    """

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int64]


@lru_cache(maxsize=4)
def table_of(catalog: Catalog) -> Table:
    """Lay out a catalogue's ids, once."""
    ids = [item_id.encode() for item_id in catalog.item_ids]
    starts = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    data, slots = np.frombuffer(b"".join(ids), np.uint8), np.zeros(2 << len(ids).bit_length(), np.int64)
    _fill(data, starts, slots)
    return Table(data, starts, slots)


@compiled
def find(whole: Any, places: Any, data: Any, starts: Any, slots: Any) -> None:
    """Write the index of each id, 0 for an unknown one, into the last column of its place: start, length, …, index."""
    for row in range(places.shape[0]):
        start, size = places[row, 0], places[row, 1]
        index = slots[_slot(whole, start, size, data, starts, slots)]
        places[row, places.shape[1] - 1] = index


@compiled
def all_differ(whole: Any, places: Any, counts: Any, differ: Any) -> None:
    """Say of each slate whether no two of its ids, as :func:`find` leaves them, are the same."""
    first, last = 0, places.shape[1] - 1
    for slate in range(counts.shape[0]):
        for row in range(first, first + counts[slate]):
            for other in range(first, row):
                same = places[row, last] == places[other, last]
                if same and places[row, last] == 0:
                    same = _same(whole, places[row, 0], places[row, 1], whole, places[other, 0], places[other, 1])
                differ[slate] &= not same
        first += counts[slate]


@compiled
def _fill(data: Any, starts: Any, slots: Any) -> None:
    for number in range(starts.shape[0] - 1):
        start = starts[number]
        slots[_slot(data, start, starts[number + 1] - start, data, starts, slots)] = number + 1


@compiled
def _slot(whole: Any, start: int, size: int, data: Any, starts: Any, slots: Any) -> Any:
    """Find the slot of an id (FNV-1a, then the next that is free): where its index stands, or would."""
    code = _FNV_OFFSET
    for place in range(start, start + size):
        code = (code ^ np.uint64(whole[place])) * _FNV_PRIME
    mask = np.uint64(slots.shape[0] - 1)
    # The upper bits depend on more of the id than the lower ones.
    slot = (code ^ (code >> np.uint64(32))) & mask
    while slots[slot] != 0:
        index = slots[slot]
        if _same(whole, start, size, data, starts[index - 1], starts[index] - starts[index - 1]):
            break
        slot = (slot + np.uint64(1)) & mask
    return slot


@compiled
def _same(one: Any, start: int, size: int, other: Any, other_start: int, other_size: int) -> bool:
    if size != other_size:
        return False
    for place in range(size):  # noqa: SIM110 - compiled
        if one[start + place] != other[other_start + place]:
            return False
    return True

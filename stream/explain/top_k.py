"""The k largest values of a row."""

from __future__ import annotations

from typing import Any

from models.compiled import compiled


@compiled
def write_top_k(values: Any, eligible: Any, places: Any) -> None:
    """Write the places of the k largest eligible values, largest first, equal values in their order.

    values [n], eligible bool [n], places int64 [k]. Where fewer than k values are eligible, the last places stay as
    they are.
    """
    k, found = len(places), 0
    for new in range(len(values)):
        if not eligible[new]:
            continue
        place = found
        while place > 0 and values[new] > values[places[place - 1]]:
            if place < k:
                places[place] = places[place - 1]
            place -= 1
        if place < k:
            places[place] = new
            found = min(found + 1, k)

"""Where the largest values of a row stand."""

from __future__ import annotations

from typing import Any

from models.compiled import compiled


@compiled
def list_largest(values: Any, able: Any, places: Any) -> None:
    """Write the places of the largest of the values that are able, largest first, the first of equals first.

    values [n], able bool [n], places int64 [m]; where fewer than m are able, the last places stay as they are.
    """
    most, found = len(places), 0
    for new in range(len(values)):
        if not able[new]:
            continue
        place = found
        while place > 0 and values[new] > values[places[place - 1]]:
            if place < most:
                places[place] = places[place - 1]
            place -= 1
        if place < most:
            places[place] = new
            found = min(found + 1, most)

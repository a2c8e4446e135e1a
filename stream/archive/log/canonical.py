"""One form of JSON for what is hashed or signed: sorted keys, no spaces, ASCII, one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from stream.errors import ArchiveError

T = TypeVar("T")


def encode(document: Any) -> bytes:
    """Write a document; the same document always gives the same bytes.

    Raises:
        ValueError: it holds a float that JSON has no word for.

    """
    return (
        json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode() + b"\n"
    )


def decode(
    data: bytes,
    formats: range,
    read: Callable[[dict[str, Any]], T],
    write: Callable[[T], bytes],
    *,
    what: str,
    invalid: type[ArchiveError],
) -> T:
    """Read what ``read`` makes of a document; ``write`` of that gives the same bytes. ``what`` it is: "commit entry".

    Raises:
        ArchiveError: of the class ``invalid``: not JSON, another format, a missing field, or not canonical.

    """
    try:
        document = json.loads(data)
        if document["format"] not in formats:
            expected = " or ".join(map(str, formats))
            raise invalid(f"format {document['format']!r}; expected {expected}: update whyrec")
        found = read(document)
        is_canonical = write(found) == data
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise invalid(f"no {what}: {type(error).__name__} {error}") from error
    if not is_canonical:
        raise invalid("not in canonical form: was it written by another program, or edited?")
    return found

"""Canonical JSON, for documents that are hashed or signed: sorted keys, no spaces, ASCII, one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from stream.errors import ArchiveError

T = TypeVar("T")


def encode(document: Any) -> bytes:
    """Encode a document. Equal documents give equal bytes.

    Raises:
        ValueError: the document contains NaN or an infinity.

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
    """Decode a document and convert it by ``read``. ``write`` of the result must give ``data`` again.

    ``formats`` are the versions that are accepted. ``what`` names the kind of document in errors, such as "commit
    entry".

    Raises:
        ArchiveError: of the class ``invalid``; the bytes are not JSON, lack a field, are not canonical, or have an
            unknown format.

    """
    try:
        document = json.loads(data)
        if document["format"] not in formats:
            expected = " or ".join(map(str, formats))
            raise invalid(f"format {document['format']!r}; expected {expected}: update whyrec")
        found = read(document)
        is_canonical = write(found) == data
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise invalid(f"not a {what}: {type(error).__name__} {error}") from error
    if not is_canonical:
        raise invalid(f"a {what} that is not in canonical form: another program wrote or edited it")
    return found

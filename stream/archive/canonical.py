"""One form of JSON for what is hashed or signed: sorted keys, no spaces, ASCII, one line."""

from __future__ import annotations

import json
from typing import Any


def encode(document: Any) -> bytes:
    """Write a document; the same document always gives the same bytes.

    Raises:
        ValueError: it holds a float that JSON has no word for.

    """
    return (
        json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode() + b"\n"
    )

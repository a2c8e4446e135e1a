"""Length limits of explanation texts, in columns; a wide (East Asian) character takes two columns."""

from __future__ import annotations

from typing import Final

from wcwidth import iter_graphemes, width

TITLE_COLUMNS: Final = 48
"""Limit to which a title or a category inside a sentence is shortened."""

TEXT_COLUMNS: Final = 320
"""Upper bound of an explanation text, whatever the titles are (engagements that only a bundle knows use "other")."""

_ELLIPSIS: Final = "…"
_MIN_KEPT: Final = 2 / 3
"""A title is cut between two words if that keeps at least this share of the characters that fit."""


def columns(text: str) -> int:
    """Return the width of a text in columns."""
    return len(text) if text.isascii() else width(text, control_codes="ignore")


def shorten(title: str, limit: int = TITLE_COLUMNS) -> str:
    """Cut a title to at most limit columns, never inside a grapheme cluster (UAX #29)."""
    if columns(title) <= limit:
        return title
    kept, used = "", 0
    for character in iter_graphemes(title):
        used += columns(character)
        if used > limit - 1:
            break
        kept += character
    words, _, _ = kept.rpartition(" ")
    return f"{(words if len(words) >= _MIN_KEPT * len(kept) else kept).rstrip()}{_ELLIPSIS}"

"""How long a text may be, so that a page can plan for it. In columns, of which a wide character takes two."""

from __future__ import annotations

from typing import Final

from wcwidth import iter_graphemes, width

TITLE_COLUMNS: Final = 48
"""A title or a category inside a sentence is shortened to this."""

TEXT_COLUMNS: Final = 320
"""No text of an explanation is longer, whatever the titles; an action of the bundle's own has the words of "other"."""

_ELLIPSIS: Final = "…"
_LEAST: Final = 2 / 3
"""A title is cut between two words where that keeps so much of it, else inside one."""


def columns(text: str) -> int:
    """Width of a text in columns."""
    return len(text) if text.isascii() else width(text, control_codes="ignore")


def shorten(title: str, limit: int = TITLE_COLUMNS) -> str:
    """Cut a title to at most so many columns, never inside a character as a person sees one."""
    if columns(title) <= limit:
        return title
    kept, used = "", 0
    for character in iter_graphemes(title):
        used += columns(character)
        if used > limit - 1:
            break
        kept += character
    words, _, _ = kept.rpartition(" ")
    return f"{(words if len(words) >= _LEAST * len(kept) else kept).rstrip()}{_ELLIPSIS}"

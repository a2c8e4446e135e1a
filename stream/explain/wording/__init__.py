"""One file per language; locales fall back along their parents, in the end to English."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from babel import Locale, UnknownLocaleError
from babel.core import get_global

from stream.explain.wording import de, en, es, fr, ja
from stream.explain.wording.phrases import Phrases, Wording

__all__ = ["LOCALES", "Phrases", "Wording", "wording_for", "wording_hash"]

LOCALES: Final[dict[str, Phrases]] = {each.PHRASES.language: each.PHRASES for each in (en, de, es, fr, ja)}
"""Every language that has words; a new one is a file and a name in this line."""

FALLBACK: Final = "en"


@lru_cache(maxsize=256)
def wording_for(locale: str) -> Wording:
    """Find the words for a locale as BCP 47 or POSIX writes it (``de-AT``, ``de_AT``).

    The phrases are those of the nearest parent that has any, in the end English; numbers and lists follow the locale
    that was asked for, where it is of that language (``de-CH`` has its own thousands).
    """
    for candidate in _parents(locale):
        language = candidate.partition("_")[0]
        if language in LOCALES:
            try:
                return Wording(LOCALES[language], Locale.parse(candidate))
            except (UnknownLocaleError, ValueError):
                continue
    return Wording(LOCALES[FALLBACK], Locale.parse(FALLBACK))


@lru_cache(maxsize=256)
def wording_hash(locale: str) -> bytes:
    """Pin the templates that word a locale: 8 bytes of SHA-256 over its language's, for the audit record."""
    return wording_for(locale).phrases.digest()


def _parents(locale: str) -> Iterator[str]:
    """Yield the locale and its parents by CLDR's inheritance: explicit parents first, then subtags cut from the end."""
    parts = locale.replace("-", "_").split("_")
    # Babel's spelling: language in lower case, script as a title, territory in upper case.
    current = "_".join([parts[0].lower(), *(part.title() if len(part) == 4 else part.upper() for part in parts[1:])])
    exceptions = get_global("parent_exceptions")
    while current and current != "root":
        yield current
        current = exceptions.get(current) or current.rpartition("_")[0]

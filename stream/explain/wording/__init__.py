"""One file per language. A locale without phrases falls back to its parents (CLDR) and finally to English."""

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
"""The phrases of each language; to add a language, add its file and its name here."""

FALLBACK: Final = "en"


@lru_cache(maxsize=256)
def wording_for(locale: str) -> Wording:
    """Find the wording for a locale in BCP 47 or POSIX spelling (``de-AT``, ``de_AT``).

    The phrases come from the nearest parent locale that has phrases, or from English. Numbers and lists follow the
    requested locale where it belongs to the same language: ``de-CH`` has its own thousands separator.
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
    """Return the digest of the phrases used for a locale, 8 bytes, which the audit record stores."""
    return wording_for(locale).phrases.digest()


def _parents(locale: str) -> Iterator[str]:
    """Yield the locale and its CLDR parents: the explicit parent where there is one, else without the last subtag."""
    parts = locale.replace("-", "_").split("_")
    # Babel's spelling: language in lower case, script as a title, territory in upper case.
    current = "_".join([parts[0].lower(), *(part.title() if len(part) == 4 else part.upper() for part in parts[1:])])
    exceptions = get_global("parent_exceptions")
    while current and current != "root":
        yield current
        current = exceptions.get(current) or current.rpartition("_")[0]

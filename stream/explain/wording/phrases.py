"""What a language's file holds, and how its phrases become sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import cycle
from typing import Final

from babel import Locale
from babel.lists import format_list
from babel.numbers import format_decimal, format_percent

from stream.explain.wording.lengths import shorten

DIGEST_BYTES: Final = 8

HOLE: Final = "\0"
"""Stands in a skeleton where something comes that differs from item to item, to be replaced by it."""


@dataclass(frozen=True, slots=True)
class Phrases:
    """One language's words; placeholders in braces, plural and ordinal forms by their CLDR category.

    version is raised by one whenever a word changes; quotes and inner_quotes are CLDR's quotation and alternate
    quotation delimiters (Babel does not carry them); messages map a key to a template; plurals map a key to a template
    per plural category, with ``{count}``; ordinals map an ordinal category to a template with ``{number}``. "other" is
    always there. gap stands between two sentences; repairs are regular expressions, without regard to case, and what
    replaces each in a list of words, where a language's "and" bends to the word after it.
    """

    language: str
    version: int
    quotes: tuple[str, str]
    inner_quotes: tuple[str, str]
    messages: Mapping[str, str]
    plurals: Mapping[str, Mapping[str, str]]
    ordinals: Mapping[str, str]
    gap: str = " "
    repairs: tuple[tuple[str, str], ...] = ()

    def digest(self) -> bytes:
        """First 8 bytes of SHA-256 of everything here as JSON: sorted keys, no spaces, UTF-8."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return sha256(canonical.encode()).digest()[:DIGEST_BYTES]


_QUOTATION_MARK = re.compile('["“”„«»‟「」『』]')


class Wording:
    """A language's phrases, with the numbers and lists of one locale of that language."""

    def __init__(self, phrases: Phrases, locale: Locale) -> None:
        self.phrases = phrases
        self.locale = locale
        # The same titles, actions, numbers, ranks and percentages come again and again.
        self.quoted = lru_cache(maxsize=10_000)(self._quoted)
        self.count = lru_cache(maxsize=1_000)(self._count)
        self.ordinal = lru_cache(maxsize=1_000)(self._ordinal)
        self.percent = lru_cache(maxsize=100)(self._percent)
        self._separators = lru_cache(maxsize=100)(self._list_separators)
        self.skeleton = lru_cache(maxsize=100)(self._skeleton)
        self.without = lru_cache(maxsize=10_000)(self._without)

    def say(self, key: str, **values: str) -> str:
        """Fill a message's template; an action that the language has no word for is said as ``action.other``."""
        messages = self.phrases.messages
        if key not in messages and key.startswith("action."):
            key = "action.other"
        return messages[key].format(**values)

    def join(self, parts: Iterable[str]) -> str:
        """Join parts as a list in words: "A and B". Repairs change the separators only, never a part."""
        listed = list(parts)
        if len(listed) < 2:
            return "".join(listed)
        before, *separators, after = self._separators(len(listed))
        joined = f"{before}{listed[0]}"
        for separator, part in zip(separators, listed[1:], strict=True):
            joined += f"{self._repaired(separator, part)}{part}"
        return f"{joined}{after}"

    def sentences(self, *said: str) -> str:
        """Put whole sentences one after the other."""
        return self.phrases.gap.join(said)

    def _list_separators(self, number: int) -> list[str]:
        """Text before, between and after the parts of a list of so many parts: number + 1 strings."""
        return format_list([HOLE] * number, style="standard", locale=self.locale).split(HOLE)

    def _repaired(self, separator: str, following: str) -> str:
        """Adapt a separator to the part that follows it; a match that reaches into that part changes nothing."""
        for pattern, replacement in self.phrases.repairs:
            match = re.search(pattern, f"{separator}{following}", flags=re.IGNORECASE)
            if match is not None and match.end() <= len(separator):
                separator = f"{separator[: match.start()]}{match.expand(replacement)}{separator[match.end() :]}"
        return separator

    def _quoted(self, title: str) -> str:
        """Put a title, shortened where it is long, into quotation marks; marks inside it become the inner ones."""
        inner = cycle(self.phrases.inner_quotes)
        title = _QUOTATION_MARK.sub(lambda _: next(inner), shorten(title))
        return f"{self.phrases.quotes[0]}{title}{self.phrases.quotes[1]}"

    def _count(self, key: str, number: int, **values: str) -> str:
        """Fill a message's template in the plural form of a number."""
        forms = self.phrases.plurals[key]
        template = forms.get(self.locale.plural_form(number), forms["other"])
        return template.format(count=format_decimal(number, locale=self.locale), **values)

    def _ordinal(self, number: int) -> str:
        """Write a rank: "2nd", "2."."""
        forms = self.phrases.ordinals
        template = forms.get(self.locale.ordinal_form(number), forms["other"])
        return template.format(number=format_decimal(number, locale=self.locale))

    def _percent(self, number: int) -> str:
        """Write a whole number of per cent: "97%", "97 %"."""
        return format_percent(number / 100, locale=self.locale)

    def _skeleton(self, key: str, value: str) -> str:
        """Leave a hole in a message where its one value comes."""
        return self.say(key, **{value: HOLE})

    def _without(self, key: str, without: int, rank: int) -> str:
        """Leave a hole for the title in the sentence on its absence, which comes after the gap to its reason."""
        said = self.say(key, title=HOLE, without=self.ordinal(without), rank=self.ordinal(rank))
        return self.sentences("", said)

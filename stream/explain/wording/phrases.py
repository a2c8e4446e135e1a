"""The phrases of one language, and how they are filled in to give sentences."""

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

SLOT: Final = "\0"
"""Marks the place of a value that differs from item to item, in a message that is otherwise filled in."""


@dataclass(frozen=True, slots=True)
class Phrases:
    """The templates of one language, with placeholders in braces.

    Attributes:
        language: ISO 639-1 code.
        version: raised by one whenever a template changes.
        quotes: opening and closing quotation mark, CLDR's quotation delimiters (Babel does not provide them).
        inner_quotes: the marks for a quotation within a quotation, CLDR's alternate quotation delimiters.
        messages: a template for each key.
        plurals: for each key, a template with ``{count}`` for each CLDR plural category; "other" is required.
        ordinals: a template with ``{number}`` for each CLDR ordinal category; "other" is required.
        gap: the text between two sentences.
        repairs: case-insensitive regular expressions with their replacements, applied to the separator before an
            element of a list, for languages whose "and" depends on the next word.

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
        """First 8 bytes of the SHA-256 of all fields as JSON (sorted keys, no spaces, UTF-8)."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return sha256(canonical.encode()).digest()[:DIGEST_BYTES]


_QUOTATION_MARK = re.compile('["“”„«»‟「」『』]')


class Wording:
    """The phrases of a language, with numbers and lists formatted for one locale of that language."""

    def __init__(self, phrases: Phrases, locale: Locale) -> None:
        self.phrases = phrases
        self.locale = locale
        # Few distinct titles, actions, numbers, ranks and percentages occur, each of them many times.
        self.quoted = lru_cache(maxsize=10_000)(self._quoted)
        self.count = lru_cache(maxsize=1_000)(self._count)
        self.ordinal = lru_cache(maxsize=1_000)(self._ordinal)
        self.percent = lru_cache(maxsize=100)(self._percent)
        self._separators = lru_cache(maxsize=100)(self._list_separators)
        self.with_slot = lru_cache(maxsize=100)(self._with_slot)
        self.counterfactual = lru_cache(maxsize=10_000)(self._counterfactual)

    def say(self, key: str, **values: str) -> str:
        """Fill in the template of a message; an action without a template of its own uses ``action.other``."""
        messages = self.phrases.messages
        if key not in messages and key.startswith("action."):
            key = "action.other"
        return messages[key].format(**values)

    def of_owner(self, texts: Mapping[str, str]) -> str | None:
        """Return a bundle's own text for this locale or its language, from texts by BCP 47 tag; None if it has none."""
        return texts.get(str(self.locale).replace("_", "-"), texts.get(self.locale.language))

    def join(self, parts: Iterable[str]) -> str:
        """Join parts into a list: "A and B". Repairs change the separators only, never a part."""
        listed = list(parts)
        if len(listed) < 2:
            return "".join(listed)
        before, *separators, after = self._separators(len(listed))
        joined = f"{before}{listed[0]}"
        for separator, part in zip(separators, listed[1:], strict=True):
            joined += f"{self._repaired(separator, part)}{part}"
        return f"{joined}{after}"

    def sentences(self, *said: str) -> str:
        """Join complete sentences with the language's gap."""
        return self.phrases.gap.join(said)

    def _list_separators(self, number: int) -> list[str]:
        """Return the text before, between and after the parts of a list: number + 1 strings."""
        return format_list([SLOT] * number, style="standard", locale=self.locale).split(SLOT)

    def _repaired(self, separator: str, following: str) -> str:
        """Adapt a separator to the part that follows it; ignore a match that extends into that part."""
        for pattern, replacement in self.phrases.repairs:
            match = re.search(pattern, f"{separator}{following}", flags=re.IGNORECASE)
            if match is not None and match.end() <= len(separator):
                separator = f"{separator[: match.start()]}{match.expand(replacement)}{separator[match.end() :]}"
        return separator

    def _quoted(self, title: str) -> str:
        """Shorten a title and put it in quotation marks; marks inside the title become inner quotation marks."""
        inner = cycle(self.phrases.inner_quotes)
        title = _QUOTATION_MARK.sub(lambda _: next(inner), shorten(title))
        return f"{self.phrases.quotes[0]}{title}{self.phrases.quotes[1]}"

    def _count(self, key: str, number: int, **values: str) -> str:
        """Fill in the template for the plural category of a number."""
        forms = self.phrases.plurals[key]
        template = forms.get(self.locale.plural_form(number), forms["other"])
        return template.format(count=format_decimal(number, locale=self.locale), **values)

    def _ordinal(self, number: int) -> str:
        """Write a rank: "2nd", "2."."""
        forms = self.phrases.ordinals
        template = forms.get(self.locale.ordinal_form(number), forms["other"])
        return template.format(number=format_decimal(number, locale=self.locale))

    def _percent(self, number: int) -> str:
        """Write a whole percentage: "97%", "97 %"."""
        return format_percent(number / 100, locale=self.locale)

    def _with_slot(self, key: str, name: str) -> str:
        """Return a message with SLOT in place of its only value, which the template calls name."""
        return self.say(key, **{name: SLOT})

    def _counterfactual(self, key: str, without: int, rank: int) -> str:
        """Return the gap and the sentence on an item's rank without a cited event, with SLOT in place of its title."""
        sentence = self.say(key, title=SLOT, without=self.ordinal(without), rank=self.ordinal(rank))
        return self.sentences("", sentence)

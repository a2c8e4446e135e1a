"""A linter for the phrases of all languages: ``python -m stream.explain.wording.lint``.

It requires:

1. the keys and placeholders of English, and a form for every plural and ordinal category of the language (CLDR)
2. the language's own quotation marks, in pairs, and no double spaces
3. a full stop at the end of every sentence, and none at the end of an action
4. no word that blames the user or names a personal trait (age, gender, origin, health)
5. no text longer than `TEXT_COLUMNS`, however long the titles are
6. English that reads at school grade `MAX_GRADE` or below (Automated Readability Index)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Final

from babel import Locale

from stream.explain.wording import LOCALES, Phrases, Wording
from stream.explain.wording.lengths import TEXT_COLUMNS, TITLE_COLUMNS, columns

MAX_GRADE: Final = 8.0

BLAMING: Final[Mapping[str, str]] = {
    "en": r"\b(fault|blame|wrong|should|must|failed|refus\w*|ignored|addict\w*|too (much|many|often)|wast\w*)\b",
    "de": r"\b(schuld|falsch|solltest|musst|versäumt|ignoriert|süchtig|zu (viel|oft)|verschwende\w*)\b",
    "fr": r"\b(faute|tort|devriez|devez|ignoré|négligé|accro|trop)\b",
    "es": r"\b(culpa|mal|deberías|debes|ignoraste|adict\w*|demasiad\w*)\b",
    "ja": r"(せい|間違|べき|無視|依存|しすぎ|失敗)",
}
"""A regular expression per language: words that blame or command."""

TRAITS: Final[Mapping[str, str]] = {
    "en": r"\b(age|old|young\w*|gender|sex|male|female|men|women|race|religio\w*|health|nationality|income)\b",
    "de": r"\b(alter|alt|jung|geschlecht|mann|männer|frau|frauen|herkunft|religi\w*|gesundheit|einkommen)\b",
    "fr": r"\b(âge|âgé\w*|jeune\w*|genre masculin|sexe|hommes?|femmes?|origine|religi\w*|santé|revenus?)\b",
    "es": r"\b(edad|viejo|joven|jóvenes|género|sexo|hombres?|mujer(es)?|origen|religi\w*|salud|ingresos)\b",
    "ja": r"(年齢|歳|若|性別|男|女|国籍|宗教|健康|収入)",
}
"""A regular expression per language: words for personal traits."""

_MARKS: Final = '"“”„‚‘«»‹›「」『』'  # noqa: RUF001 - quotation marks, as meant


def problems(phrases: Phrases, reference: Phrases = LOCALES["en"]) -> Iterator[str]:
    """Yield a sentence for each problem of a language; reference has the keys and placeholders to be expected."""
    yield from _shape(phrases, reference)
    for key, template in templates(phrases):
        yield from (f"{key}: {problem}" for problem in _text(phrases, key, template))
    length = columns(longest(phrases))
    if length > TEXT_COLUMNS:
        yield f"expected texts of at most {TEXT_COLUMNS} columns, got {length}: shorten {longest(phrases)!r}"
    if phrases.language == "en" and (grade := reading_grade(phrases)) > MAX_GRADE:
        yield f"expected school grade {MAX_GRADE} or below, got {grade:.1f}: use shorter words and sentences"


def templates(phrases: Phrases) -> Iterator[tuple[str, str]]:
    """Yield every template with its key, and each plural form with its key and category."""
    yield from phrases.messages.items()
    for key, forms in phrases.plurals.items():
        yield from ((f"{key} ({form})", template) for form, template in forms.items())


def longest(phrases: Phrases) -> str:
    """Compose the longest possible text: the maximum number of titles, each of the maximum width."""
    words = Wording(phrases, Locale.parse(phrases.language))
    title, rank = words.quoted("M" * TITLE_COLUMNS), words.ordinal(499)
    actions = [key for key in phrases.messages if key.startswith("action.")]
    action = max((words.say(key, titles=title) for key in actions), key=columns)
    reason = words.say("watch_history", actions=words.join([action, action]))
    texts = [
        words.sentences(reason, words.say(key, title=title, rank=rank, without=rank))
        for key in phrases.messages
        if key.startswith("counterfactual")
    ]
    texts.append(words.say("recourse.history", titles=words.join([title] * 3)))
    texts.append(words.count("category_match", 1_000_000, category=title))
    return max(texts, key=columns)


def reading_grade(phrases: Phrases) -> float:
    """Automated Readability Index (Smith and Senter, 1967) of all sentences; a placeholder counts as one word."""
    text = " ".join(re.sub(r"{\w+}", "title", template) for key, template in templates(phrases) if "action." not in key)
    words = re.findall(r"[\w’]+", text)  # noqa: RUF001 - an apostrophe, as meant
    sentences = len(re.findall(r"[.?!:](\s|$)", text))
    return 4.71 * sum(map(len, words)) / len(words) + 0.5 * len(words) / sentences - 21.43


def _shape(phrases: Phrases, reference: Phrases) -> Iterator[str]:
    """Compare keys, placeholders, plural and ordinal categories."""
    locale = Locale.parse(phrases.language)
    for name in ("messages", "plurals"):
        got, expected = getattr(phrases, name).keys(), getattr(reference, name).keys()
        yield from (f"{key} is missing" for key in sorted(expected - got))
        yield from (f"{key} is unknown: {reference.language} has no such key" for key in sorted(got - expected))
    placeholders = {key: _placeholders(template) for key, template in reference.messages.items()}
    placeholders |= {key: _placeholders(forms["other"]) for key, forms in reference.plurals.items()}
    for key, template in templates(phrases):
        required = placeholders.get(key.partition(" (")[0], set())
        if _placeholders(template) != required:
            yield f"{key}: expected the placeholders {sorted(required)}, got {sorted(_placeholders(template))}"
    for key, forms in phrases.plurals.items():
        if forms.keys() != locale.plural_form.tags | {"other"}:
            yield f"{key}: expected the plurals {sorted(locale.plural_form.tags | {'other'})}, got {sorted(forms)}"
    if phrases.ordinals.keys() != locale.ordinal_form.tags | {"other"}:
        yield f"expected the ordinals {sorted(locale.ordinal_form.tags | {'other'})}, got {sorted(phrases.ordinals)}"


def _text(phrases: Phrases, key: str, template: str) -> Iterator[str]:
    """Check quotation marks, spaces, full stop and choice of words."""
    opening, closing = phrases.quotes[0].strip(), phrases.quotes[1].strip()
    marks = [character for character in template if character in _MARKS]
    if marks != [opening, closing] * (len(marks) // 2):
        yield f"expected quotation marks in pairs of {opening} {closing}, got {' '.join(marks)}"
    if template != template.strip() or "  " in template:
        yield "expected single spaces between words and none at either end"
    if template.endswith((".", "。")) == key.startswith("action."):
        yield "expected a full stop at the end of a sentence and none at the end of an action"
    for words in (BLAMING, TRAITS):
        if found := re.search(words[phrases.language], template, re.IGNORECASE):
            yield f"{found[0]!r} blames the user or names a personal trait: use another word"


def _placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def main() -> int:
    """Print all problems and the length of each language's longest text; return 1 if there is a problem."""
    found = [f"{language}: {problem}" for language, phrases in LOCALES.items() for problem in problems(phrases)]
    sys.stdout.writelines(f"{line}\n" for line in found)
    for language, phrases in LOCALES.items():
        length, digest = columns(longest(phrases)), phrases.digest().hex()
        sys.stdout.write(
            f"{language} version {phrases.version}, {digest}: longest text {length} of {TEXT_COLUMNS} columns\n"
        )
    sys.stdout.write(f"en reads at school grade {reading_grade(LOCALES['en']):.1f}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

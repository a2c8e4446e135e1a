"""A linter for the words of a language: ``python -m stream.explain.wording.lint`` reads all of them.

What it asks for:

1. the keys and the placeholders of English, and a form for every plural and ordinal of the language (CLDR)
2. quotation marks that are the language's own, and closed; one space at most between words
3. a full stop at the end of a sentence, and none at the end of an action
4. no blame, and no word for what a person is: age, gender, origin, health
5. no text longer than `TEXT_COLUMNS`, however long the titles are
6. English of the school grade `GRADE` at most (Automated Readability Index)
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

GRADE: Final = 8.0

UNKIND: Final[Mapping[str, str]] = {
    "en": r"\b(fault|blame|wrong|should|must|failed|refus\w*|ignored|addict\w*|too (much|many|often)|wast\w*)\b",
    "de": r"\b(schuld|falsch|solltest|musst|versäumt|ignoriert|süchtig|zu (viel|oft)|verschwende\w*)\b",
    "fr": r"\b(faute|tort|devriez|devez|ignoré|négligé|accro|trop)\b",
    "es": r"\b(culpa|mal|deberías|debes|ignoraste|adict\w*|demasiad\w*)\b",
    "ja": r"(せい|間違|べき|無視|依存|しすぎ|失敗)",
}
"""Words that blame or order about, per language."""

TELLING: Final[Mapping[str, str]] = {
    "en": r"\b(age|old|young\w*|gender|sex|male|female|men|women|race|religio\w*|health|nationality|income)\b",
    "de": r"\b(alter|alt|jung|geschlecht|mann|männer|frau|frauen|herkunft|religi\w*|gesundheit|einkommen)\b",
    "fr": r"\b(âge|âgé\w*|jeune\w*|genre masculin|sexe|hommes?|femmes?|origine|religi\w*|santé|revenus?)\b",
    "es": r"\b(edad|viejo|joven|jóvenes|género|sexo|hombres?|mujer(es)?|origen|religi\w*|salud|ingresos)\b",
    "ja": r"(年齢|歳|若|性別|男|女|国籍|宗教|健康|収入)",
}
"""Words for what a person is, per language."""

_MARKS: Final = '"“”„‚‘«»‹›「」『』'  # noqa: RUF001 - quotation marks, as meant


def problems(phrases: Phrases, model: Phrases = LOCALES["en"]) -> Iterator[str]:
    """Name whatever is wrong with the words of a language."""
    yield from _shape(phrases, model)
    for key, template in templates(phrases):
        yield from (f"{key}: {problem}" for problem in _text(phrases, key, template))
    length = columns(longest(phrases))
    if length > TEXT_COLUMNS:
        yield f"a text may take {length} columns; expected {TEXT_COLUMNS} at most: {longest(phrases)}"
    if phrases.language == "en" and (grade := reading_grade(phrases)) > GRADE:
        yield f"reads like school grade {grade:.1f}; expected {GRADE} at most: shorter words and sentences"


def templates(phrases: Phrases) -> Iterator[tuple[str, str]]:
    """List every template with its key; plural forms one by one."""
    yield from phrases.messages.items()
    for key, forms in phrases.plurals.items():
        yield from ((f"{key} ({form})", template) for form, template in forms.items())


def longest(phrases: Phrases) -> str:
    """Compose the longest text there can be: as many titles as are ever named, each as long as is ever shown."""
    words = Wording(phrases, Locale.parse(phrases.language))
    title, rank = words.quoted("M" * TITLE_COLUMNS), words.ordinal(499)
    actions = [key for key in phrases.messages if key.startswith("action.")]
    action = max((words.say(key, titles=title) for key in actions), key=columns)
    reason = words.say("watch_history", actions=words.join([action, action]))
    texts = [
        words.sentences(reason, words.say(key, title=title, rank=rank, without=rank))
        for key in ("counterfactual", "counterfactual.by_score")
    ]
    texts.append(words.say("recourse.history", titles=words.join([title] * 3)))
    texts.append(words.count("category_match", 1_000_000, category=title))
    return max(texts, key=columns)


def reading_grade(phrases: Phrases) -> float:
    """Automated Readability Index (Smith and Senter, 1967) over all sentences, a placeholder counting as one word."""
    text = " ".join(re.sub(r"{\w+}", "title", template) for key, template in templates(phrases) if "action." not in key)
    words = re.findall(r"[\w’]+", text)  # noqa: RUF001 - an apostrophe, as meant
    sentences = len(re.findall(r"[.?!:](\s|$)", text))
    return 4.71 * sum(map(len, words)) / len(words) + 0.5 * len(words) / sentences - 21.43


def _shape(phrases: Phrases, model: Phrases) -> Iterator[str]:
    locale = Locale.parse(phrases.language)
    for name in ("messages", "plurals"):
        ours, theirs = getattr(phrases, name).keys(), getattr(model, name).keys()
        yield from (f"{key} is missing" for key in sorted(theirs - ours))
        yield from (f"{key} is said in no other language" for key in sorted(ours - theirs))
    expected = {key: _placeholders(template) for key, template in model.messages.items()}
    expected |= {key: _placeholders(forms["other"]) for key, forms in model.plurals.items()}
    for key, template in templates(phrases):
        wanted = expected.get(key.partition(" (")[0], set())
        if _placeholders(template) != wanted:
            yield f"{key}: expected the placeholders {sorted(wanted)}, got {sorted(_placeholders(template))}"
    for key, forms in phrases.plurals.items():
        if forms.keys() != locale.plural_form.tags | {"other"}:
            yield f"{key}: expected the plurals {sorted(locale.plural_form.tags | {'other'})}, got {sorted(forms)}"
    if phrases.ordinals.keys() != locale.ordinal_form.tags | {"other"}:
        yield f"expected the ordinals {sorted(locale.ordinal_form.tags | {'other'})}, got {sorted(phrases.ordinals)}"


def _text(phrases: Phrases, key: str, template: str) -> Iterator[str]:
    opening, closing = phrases.quotes[0].strip(), phrases.quotes[1].strip()
    marks = [character for character in template if character in _MARKS]
    if marks != [opening, closing] * (len(marks) // 2):
        yield f"expected quotation marks {opening} {closing}, closed, got {' '.join(marks)}"
    if template != template.strip() or "  " in template:
        yield "a space too many"
    if template.endswith((".", "。")) == key.startswith("action."):
        yield "expected a full stop at the end of a sentence, and of nothing else"
    for words in (UNKIND, TELLING):
        if found := re.search(words[phrases.language], template, re.IGNORECASE):
            yield f"{found[0]!r} is not to be said to anybody"


def _placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def main() -> int:
    """Print what is wrong, or that nothing is."""
    found = [f"{language}: {problem}" for language, phrases in LOCALES.items() for problem in problems(phrases)]
    sys.stdout.writelines(f"{line}\n" for line in found)
    for language, phrases in LOCALES.items():
        length, digest = columns(longest(phrases)), phrases.digest().hex()
        sys.stdout.write(
            f"{language} version {phrases.version}, {digest}: longest text {length} of {TEXT_COLUMNS} columns\n"
        )
    sys.stdout.write(f"en reads like school grade {reading_grade(LOCALES['en']):.1f}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

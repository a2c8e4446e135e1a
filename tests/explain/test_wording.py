"""The words themselves: the same in every language, right in each."""

# ruff: noqa: RUF001 - quotation marks, as meant
from __future__ import annotations

from string import Formatter

import pytest
from babel import Locale
from hypothesis import given
from hypothesis import strategies as st

from stream.explain.wording import LOCALES, wording_for


def placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


@pytest.mark.parametrize("language", LOCALES)
class TestEveryLanguage:
    def test_says_all_that_english_says(self, language: str) -> None:
        phrases, english = LOCALES[language], LOCALES["en"]
        assert phrases.language == language
        assert phrases.messages.keys() == english.messages.keys()
        assert phrases.plurals.keys() == english.plurals.keys()
        for key, template in phrases.messages.items():
            assert placeholders(template) == placeholders(english.messages[key]), key

    def test_has_a_form_for_every_plural_and_ordinal_of_its_language(self, language: str) -> None:
        phrases, locale = LOCALES[language], Locale.parse(language)
        for key, forms in phrases.plurals.items():
            assert set(forms) == locale.plural_form.tags | {"other"}, key
            assert {frozenset(placeholders(form)) for form in forms.values()} == {
                frozenset(placeholders(LOCALES["en"].plurals[key]["other"]))
            }
        assert set(phrases.ordinals) == locale.ordinal_form.tags | {"other"}

    def test_ends_its_sentences(self, language: str) -> None:
        for key, template in LOCALES[language].messages.items():
            assert template.endswith(".") != key.startswith("action."), key


@pytest.mark.parametrize(
    ("asked", "language", "locale"),
    [
        ("en", "en", "en"),
        ("en-GB", "en", "en_GB"),
        ("de", "de", "de"),
        ("de-AT", "de", "de_AT"),
        ("de_CH", "de", "de_CH"),
        ("DE-ch", "de", "de_CH"),
        ("de-DE-x-unknown", "de", "de_DE"),
        ("fr-FR", "en", "en"),
        ("zh-Hant-TW", "en", "en"),
        ("xx", "en", "en"),
        ("en-AU", "en", "en_AU"),
    ],
)
def test_a_locale_falls_back_along_its_parents_to_english(asked: str, language: str, locale: str) -> None:
    words = wording_for(asked)
    assert (words.phrases.language, str(words.locale)) == (language, locale)


@pytest.mark.parametrize(
    ("locale", "title", "quoted"),
    [
        ("en", "Up", "“Up”"),
        ("de", "Up", "„Up“"),
        ("en", "The “Real” Thing", "“The ‘Real’ Thing”"),
        ("de", "Das „wahre“ Leben", "„Das ‚wahre‘ Leben“"),
        ("de", 'The "Real" Thing', "„The ‚Real‘ Thing“"),
        ("en", "Ocean's {11}", "“Ocean's {11}”"),
        ("en", "", "“”"),
    ],
)
def test_titles_are_quoted_as_the_locale_does(locale: str, title: str, quoted: str) -> None:
    assert wording_for(locale).quoted(title) == quoted


@given(st.text(max_size=30), st.sampled_from(sorted(LOCALES)))
def test_any_title_can_be_said(title: str, locale: str) -> None:
    words = wording_for(locale)
    assert title.strip('"“”„«»‟') in words.say("action.view", titles=words.quoted(title)) or set(title) & set('"“”„«»‟')


@pytest.mark.parametrize(
    ("number", "english", "german"),
    [(1, "1st", "1."), (2, "2nd", "2."), (3, "3rd", "3."), (4, "4th", "4."), (11, "11th", "11."),
     (12, "12th", "12."), (13, "13th", "13."), (21, "21st", "21."), (112, "112th", "112."), (233, "233rd", "233.")],
)  # fmt: skip
def test_ranks_are_written_as_ordinals(number: int, english: str, german: str) -> None:
    assert (wording_for("en").ordinal(number), wording_for("de").ordinal(number)) == (english, german)


def test_counts_have_their_plural() -> None:
    words = wording_for("en")
    assert words.count("category_match", 1, category="“Crime”").startswith("You watched 1 title in “Crime”")
    assert words.count("category_match", 2, category="“Crime”").startswith("You watched 2 titles in “Crime”")


def test_lists_and_percentages_follow_the_locale() -> None:
    assert wording_for("en").join(["A", "B"]) == "A and B"
    assert wording_for("de").join(["A", "B"]) == "A und B"
    assert wording_for("en").percent(97) == "97%"
    assert wording_for("de").percent(97) == "97\N{NO-BREAK SPACE}%"


def test_an_action_without_a_word_of_its_own_is_still_said() -> None:
    assert wording_for("en").say("action.purchase", titles="“Up”") == "opened “Up”"

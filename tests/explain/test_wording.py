"""The words themselves: the same in every language, right in each."""

# ruff: noqa: RUF001 - quotation marks, as meant
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import iter_graphemes

from stream.explain.wording import LOCALES, Phrases, wording_for, wording_hash
from stream.explain.wording.lengths import TITLE_COLUMNS, columns, shorten
from stream.explain.wording.lint import problems

PINNED = Path(__file__).parent / "wording.json"


@pytest.mark.parametrize("language", LOCALES)
class TestEveryLanguage:
    def test_passes_the_linter(self, language: str) -> None:
        assert list(problems(LOCALES[language])) == []

    def test_raises_its_version_when_a_word_changes(self, language: str) -> None:
        now = {"version": LOCALES[language].version, "digest": LOCALES[language].digest().hex()}
        pinned = json.loads(PINNED.read_bytes())[language]
        assert now == pinned, f"raise the version of {language}, then put {now} into {PINNED.name}"

    def test_is_pinned_in_the_audit_whatever_the_territory(self, language: str) -> None:
        assert wording_hash(f"{language}-ZZ") == wording_hash(language) == LOCALES[language].digest()
        assert len({wording_hash(each) for each in LOCALES}) == len(LOCALES)


def changed(language: str = "en", **changes: Any) -> Phrases:
    return replace(LOCALES[language], **changes)


def said(language: str = "en", **messages: str) -> Phrases:
    return changed(
        language,
        messages={**LOCALES[language].messages, **{key.replace("_", "."): text for key, text in messages.items()}},
    )


@pytest.mark.parametrize(
    ("phrases", "problem"),
    [
        (said(basis_mixed="{who} likes this."), "placeholders"),
        (said(recourse_category="Watch less of this."), "placeholders"),
        (said(basis_mixed="As in “this."), "quotation marks"),
        (said("de", basis_mixed="Wie in “diesem”."), "quotation marks"),
        (said(basis_mixed="For  you."), "space"),
        (said(basis_mixed="For you"), "full stop"),
        (said(action_view="watched {titles}."), "full stop"),
        (said(basis_mixed="You watch too much of it."), "too much"),
        (said("de", basis_mixed="Du musst das mögen."), "musst"),
        (said(basis_mixed="Chosen for your age."), "age"),
        (said("ja", basis_mixed="あなたの年齢をもとに選ばれました。"), "年齢"),
        (said(recourse_history="{titles} " * 4 + "."), "columns"),
        (said(personalized=f"{'Individualized recommendations notwithstanding ' * 20}considerations."), "grade"),
        (changed(plurals={"category_match": {"other": LOCALES["en"].plurals["category_match"]["other"]}}), "plurals"),
        (changed(ordinals={"other": "{number}th"}), "ordinals"),
        (changed("fr", messages={}), "missing"),
    ],
)
def test_the_linter_finds(phrases: Phrases, problem: str) -> None:
    assert any(problem in found for found in problems(phrases))


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
        ("fr-CA", "fr", "fr_CA"),
        ("es-419", "es", "es_419"),
        ("ja-JP", "ja", "ja_JP"),
        ("it-IT", "en", "en"),
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
        ("fr", "Up", "«\u202fUp\u202f»"),
        ("fr", "Le «\u202fvrai\u202f» film", "«\u202fLe “\u202fvrai\u202f” film\u202f»"),
        ("es", 'El "real"', "«El “real”»"),
        ("ja", "千と千尋の神隠し", "「千と千尋の神隠し」"),
        ("ja", "「君」の名は", "「『君』の名は」"),
    ],
)
def test_titles_are_quoted_as_the_locale_does(locale: str, title: str, quoted: str) -> None:
    assert wording_for(locale).quoted(title) == quoted


@given(st.text(max_size=30), st.sampled_from(sorted(LOCALES)))
def test_any_title_fits_into_a_message(title: str, locale: str) -> None:
    words = wording_for(locale)
    plain = set(title).isdisjoint('"“”„«»‟「」『』')
    assert not plain or shorten(title) in words.say("action.view", titles=words.quoted(title))


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
    assert wording_for("fr").join(["A", "B", "C"]) == "A, B et C"
    assert wording_for("ja").join(["「A」", "「B」"]) == "「A」、「B」"
    assert wording_for("ja").sentences("一。", "二。") == "一。二。"
    assert wording_for("de").percent(97) == "97\N{NO-BREAK SPACE}%"


def test_an_unknown_action_uses_the_words_of_other() -> None:
    assert wording_for("en").say("action.purchase", titles="“Up”") == "opened “Up”"


@pytest.mark.parametrize(
    ("last", "joined"),
    [
        ("«Intacto»", "«Roma» e «Intacto»"),
        ("«Hijos del viento»", "«Roma» e «Hijos del viento»"),
        ("«Hielo»", "«Roma» y «Hielo»"),
        ("«Ionización»", "«Roma» y «Ionización»"),
        ("«Ágora»", "«Roma» y «Ágora»"),
    ],
)
def test_the_spanish_and_is_e_before_the_sound_of_i(last: str, joined: str) -> None:
    assert wording_for("es").join(["«Roma»", last]) == joined


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        (["«Point Y Identity»", "«Roma»"], "«Point Y Identity» y «Roma»"),
        (["«Roma»", "«Rosa y Inés»"], "«Roma» y «Rosa y Inés»"),
        (["«Roma y Isla»", "«Intacto»"], "«Roma y Isla» e «Intacto»"),
        (["«Padre y hijo»", "«Roma»", "«Isla»"], "«Padre y hijo», «Roma» e «Isla»"),
        (["viste «Point Y Identity»", "terminaste «Roma»"], "viste «Point Y Identity» y terminaste «Roma»"),
    ],
)
def test_spanish_changes_the_conjunction_and_never_a_title(parts: list[str], joined: str) -> None:
    assert wording_for("es").join(parts) == joined


words_of_titles = st.sampled_from(["y", "Y", "e", "i", "Identity", "hijo", "Isla", "and", "und", "et", "«i»", "“y”"])
titles = st.one_of(st.text(max_size=20), st.lists(words_of_titles, max_size=5).map(" ".join))


@given(st.lists(titles, min_size=1, max_size=4), st.sampled_from(sorted(LOCALES)))
def test_titles_stay_as_they_are_in_a_list(titles: list[str], language: str) -> None:
    words = wording_for(language)
    quoted = [words.quoted(title) for title in titles]
    rest = words.join(quoted)
    for title in quoted:
        _, found, rest = rest.partition(title)
        assert found == title


@pytest.mark.parametrize(
    ("language", "ranks"),
    [("fr", ["1re", "2e", "21e"]), ("es", ["1.ª", "2.ª", "21.ª"]), ("ja", ["1位", "2位", "21位"])],
)
def test_a_rank_agrees_with_its_noun(language: str, ranks: list[str]) -> None:
    assert [wording_for(language).ordinal(number) for number in (1, 2, 21)] == ranks


@given(st.text(max_size=200))
def test_a_shortened_title_fits_and_is_cut_between_characters(title: str) -> None:
    short = shorten(title)
    assert columns(short) <= max(TITLE_COLUMNS, 0)
    if short != title:
        kept = list(iter_graphemes(short.removesuffix("…")))
        assert list(iter_graphemes(title))[: len(kept)] == kept


def test_a_long_title_is_cut_between_words_and_a_wide_one_counts_double() -> None:
    assert shorten("Dr. Strangelove or: How I Learned to Stop Worrying and Love the Bomb") == (
        "Dr. Strangelove or: How I Learned to Stop…"
    )
    assert columns(shorten("千" * 100)) <= TITLE_COLUMNS
    family = "👨‍👩‍👧"
    assert set(iter_graphemes(shorten(family * 100))) == {family, "…"}

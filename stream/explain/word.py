"""Word: the text of each item's claim, and how personal the recommendation is, in the locale of its slate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stream.explain import basis
from stream.explain.findings import Findings
from stream.explain.kinds import KINDS
from stream.explain.select import Selection
from stream.explain.slates import Ints, Slates
from stream.explain.wording import Wording, wording_for


@dataclass(frozen=True, slots=True)
class Texts:
    """What is said of each of T items.

    text: the sentence of its claim; basis int64 [T]: how personal it is, an index into ``basis.BASES``, -1 where that
    is not known; basis_text: the same in words, empty where it is not known.
    """

    text: Sequence[str]
    basis: Ints
    basis_text: Sequence[str]


def wordings_of(slates: Slates) -> list[Wording]:
    """Return the wording of each slate's locale."""
    return [wording_for(locale) for locale in slates.texts("locale")]


def word(findings: Findings, selection: Selection, wordings: Sequence[Wording]) -> Texts:
    """Word each item's claim; wordings are those of the S slates."""
    words: list[Wording] = [wordings[slate] for slate in findings.slates.slate.tolist()]
    texts = [""] * len(words)
    for number, kind in enumerate(KINDS.values()):
        rows = (selection.kind == number).nonzero()[0]
        places = rows.tolist()
        sentences = kind.sentences(findings, rows, [words[row] for row in places])
        for row, text in zip(places, sentences, strict=True):
            texts[row] = text
    steps = basis.bases(findings.signals)
    basis_texts = [basis.sentences(each)[step] for each, step in zip(words, steps.tolist(), strict=True)]
    return Texts(texts, steps, basis_texts)

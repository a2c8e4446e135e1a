"""Propose, measure and choose, each compared with its rule in plain Python, whatever the session model can do."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from models.attribution.ablation import MASK, MASK_LAST_QUERY, METHODS, every_event
from models.bundle import Bundle
from models.session.runtime import SessionModel
from stream.explain.ablate import CITED, EVENTS, POLICIES, ablate
from stream.explain.ablate.choose import confirmed
from stream.explain.ablate.margin import RELATIVE, age_weights, citation_margin
from stream.explain.ablate.measure import measure
from stream.explain.ablate.propose import APPROXIMATE, CANDIDATES, MIN_ATTENTION, Candidates, by_evidence
from stream.explain.counterfactual import ranks
from stream.explain.decode import decode_records
from stream.explain.models import Models
from stream.explain.score import Scores, score
from stream.explain.slates import Slates, watched
from tests.bundles import tiny_bundle, tiny_impression
from tests.graphs import reduced

CLOSE = 1e-4
GRAPHS: dict[str, dict[str, bool]] = {
    "incremental inference": {"without": True, "cache": True, "blank": True},
    "every ablation": {"without": True, "blank": True},
    "no blank event": {"without": True},
    "no masking": {"blank": True},
    "deletion only": {},
}
ABLATIONS = {
    "incremental inference": ("deletion", "blanking", "masking"),
    "every ablation": ("deletion", "blanking", "masking"),
    "no blank event": ("deletion", "masking"),
    "no masking": ("deletion", "blanking"),
    "deletion only": ("deletion",),
}


@pytest.fixture(scope="module", params=GRAPHS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def models(kind: str, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Models:
    graph = reduced(bundle.session_onnx.read_bytes(), **GRAPHS[kind])
    return Models.open(Bundle.load(tiny_bundle(tmp_path_factory.mktemp("bundle"), session_onnx=graph)), 1)


@pytest.fixture(scope="module")
def columns(bundle: Bundle, slates: list[dict[str, Any]]) -> Slates:
    more = [tiny_impression(bundle, session=20, items=40, seed=seed) for seed in range(20, 26)]
    return decode_records([*slates, *more], bundle)


def every_pair(slates: Slates) -> Candidates:
    """Every event of the history as a candidate of every item."""
    item, event = np.nonzero(slates.histories.present[slates.slate])
    return Candidates(item, event, np.zeros(len(item), dtype=np.float32))


def drops_by(kind: int, model: SessionModel, slates: Slates, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Score drops and centred score drops of all items without each event, [T, W] each."""
    without = every_event(model, model.read(slates.histories), kind)[slates.slate]
    drop = np.einsum("twd,td->tw", scores.reading.vector[slates.slate][:, None] - without, scores.items)
    return drop, drop - slates.mean(drop, slates.known)[slates.slate]


def test_the_drops_are_those_of_every_ablation(kind: str, models: Models, bundle: Bundle, columns: Slates) -> None:
    scores, candidates = score(columns, models), every_pair(columns)
    measured = measure(candidates, columns, scores, models, rank_all=False)
    graph = SessionModel(bundle, incremental=False)
    pair = candidates.item, candidates.event
    drops = [tuple(each[pair] for each in drops_by(METHODS[name], graph, columns, scores)) for name in ABLATIONS[kind]]
    np.testing.assert_allclose(measured.drop, drops[0][0], atol=CLOSE)
    np.testing.assert_allclose(measured.centred_drop, drops[0][1], atol=CLOSE)
    margins = [(drop, centred / RELATIVE) for drop, centred in drops]
    nth_newest, ageing = columns.histories.width - candidates.event, models.bundle.manifest.citation_ageing
    assert ageing > 0
    smallest = np.min(margins, axis=(0, 1)) / nth_newest**ageing
    margin = citation_margin(models)
    above, below = smallest > margin + CLOSE / RELATIVE, smallest < margin - CLOSE / RELATIVE
    assert above.sum() > 20
    assert below.sum() > 20
    assert measured.above[above].all()
    assert not measured.above[below].any()
    np.testing.assert_allclose(measured.smallest_drop[above], smallest[above], atol=CLOSE / RELATIVE)
    assert (measured.ablations[above] == len(ABLATIONS[kind])).all()
    if "masking" in ABLATIONS[kind]:
        np.testing.assert_allclose(measured.attribution[above], drops[-1][1][above], atol=CLOSE)


def test_the_candidates_are_those_that_do_most_for_an_item_in_itself(
    kind: str, models: Models, columns: Slates
) -> None:
    scores = score(columns, models)
    proposed = by_evidence(columns, scores, models)
    found: dict[int, list[int]] = {}
    for item, event in zip(proposed.item.tolist(), proposed.event.tolist(), strict=True):
        found.setdefault(item, []).append(event)
    incremental = kind == "incremental inference"
    by = MASK_LAST_QUERY if incremental else MASK if "masking" in ABLATIONS[kind] else METHODS["deletion"]
    drop, centred = drops_by(by, models.session, columns, scores)
    weight = age_weights(columns.histories.width, models.bundle.manifest.citation_ageing)
    margin = citation_margin(models) * (APPROXIMATE if incremental else 1)
    eligible = watched(columns.histories, models.bundle)
    if incremental:
        newest = np.arange(columns.histories.width) >= columns.histories.width - 2
        eligible &= newest | (scores.reading.attention >= MIN_ATTENTION)
    refused_for_the_slate = refused_for_the_item = oldest = 0
    for slate, (start, stop) in enumerate(pairwise(columns.offsets.tolist())):
        total, wanted = np.zeros(columns.histories.width), {}
        for item in range(start, stop):
            able = [event for event in np.flatnonzero(eligible[slate]) if drop[item, event] * weight[event] > margin]
            best = sorted(able, key=lambda event: -drop[item, event] * weight[event])
            relative = {event: centred[item, event] * weight[event] for event in best}
            wanted[item] = [event for event in best[:CANDIDATES] if relative[event] > margin * RELATIVE]
            refused_for_the_item += any(relative[event] > margin * RELATIVE for event in best[CANDIDATES:])
            for event in wanted[item]:
                total[event] += relative[event]
        kept = {event for event in np.argsort(-total, kind="stable")[:EVENTS] if total[event] > 0}
        for item in range(start, stop):
            refused_for_the_slate += len(set(wanted[item]) - kept)
            assert found.get(item, []) == [event for event in wanted[item] if event in kept]
            oldest += columns.histories.first_column(slate) in found.get(item, [])
    assert refused_for_the_slate
    assert refused_for_the_item
    assert oldest


def test_cited_first_is_what_does_most_by_its_smallest_drop_and_next_another_title(
    models: Models, columns: Slates
) -> None:
    scores = score(columns, models)
    measured = measure(every_pair(columns), columns, scores, models, rank_all=True)
    random = np.random.default_rng(0)
    smallest = random.uniform(0, 0.3, len(measured.item)).astype(np.float32)
    above = smallest > 0.1
    measured = dataclasses.replace(measured, smallest_drop=smallest, above=above)
    cited = confirmed(measured, columns, scores, models)
    assert cited.shape == (len(columns.item), CITED)
    titles = columns.histories.item[columns.slate[measured.item], measured.event]
    second = lifted = 0
    for item in range(len(columns.item)):
        rows = np.flatnonzero(above & (measured.item == item))
        fits = [row for row in rows if measured.rank_without[row] >= measured.rank[item]]
        lifted += len(rows) - len(fits)
        best = sorted(fits, key=lambda row: -smallest[row])
        others = [row for row in best[1:] if titles[row] != titles[best[0]]]
        assert cited[item, 0] == (best[0] if best else -1)
        assert cited[item, 1] in {-1, others[0] if others else -1}
        second += cited[item, 1] >= 0
    assert second
    assert lifted


@pytest.mark.parametrize("policy", POLICIES)
def test_a_citation_has_the_numbers_that_its_event_has_when_it_is_measured_alone(
    policy: str, models: Models, columns: Slates
) -> None:
    scores = score(columns, models)
    citations = ablate(policy, columns, scores, models)
    item, place = np.nonzero(citations.column >= 0)
    assert len(item) > 20
    for each in range(0, len(item), 5):
        row, column = item[[each]], citations.column[item[each], place[each]]
        alone = Candidates(row, np.array([column]), np.zeros(1, dtype=np.float32))
        measured = measure(alone, columns, scores, models, rank_all=True)
        at = item[each], place[each]
        np.testing.assert_array_equal(citations.drop[at], measured.drop[0])
        np.testing.assert_array_equal(citations.drop_centred[at], measured.centred_drop[0])
        np.testing.assert_array_equal(citations.rank_without[at], measured.rank_without[0])
        assert citations.holds[at] == (measured.above[0] and measured.rank_without[0] >= measured.rank[row[0]])


def test_an_item_whose_scores_are_not_reproduced_keeps_the_score_that_was_sent(
    bundle: Bundle, slates: list[dict[str, Any]]
) -> None:
    models = Models.open(bundle, 1)
    other = [slate | {"items": [item | {"reranking_score": item["reranking_score"] + 1} for item in slate["items"]]}
             for slate in slates]  # fmt: skip
    columns = decode_records(other, bundle)
    measured = measure(every_pair(columns), columns, score(columns, models), models, rank_all=True)
    np.testing.assert_array_equal(measured.rank_without, measured.rank[measured.item])


def test_a_rank_counts_what_scores_higher_and_what_ties_before_it() -> None:
    offsets, random = np.array([0, 5, 5, 6, 30]), np.random.default_rng(0)
    scores = random.integers(0, 4, 30).astype(np.float32)
    position = np.concatenate([random.permutation(size) for size in np.diff(offsets)])
    found = ranks(offsets, scores, position)
    for start, stop in pairwise(offsets):
        for row in range(start, stop):
            before = [
                other
                for other in range(start, stop)
                if (-scores[other], position[other]) < (-scores[row], position[row])
            ]
            assert found[row] == len(before) + 1

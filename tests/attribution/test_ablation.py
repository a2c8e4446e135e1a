"""Session vectors of edited sessions: by incremental inference and by the graph, the same vectors."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.attribution.ablation import (
    BLANK,
    DELETE,
    MASK,
    MASK_LAST_QUERY,
    METHODS,
    Edits,
    available,
    every_event,
    session_vectors,
)
from models.bundle import Bundle
from models.errors import SessionInputError
from models.session.histories import Histories
from models.session.runtime import SessionModel, left_pad
from tests.bundles import ITEMS, tiny_bundle
from tests.graphs import reduced

SESSIONS = [[3, 7, 11, 7], [5], [], list(range(1, 31)), [9, 2], list(range(30, 0, -2))]
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def histories(sessions: list[list[int]]) -> Histories:
    items = left_pad(sessions, 50)
    return Histories(items, np.where(items > 0, items % 5 + 1, 0), np.array([len(each) for each in sessions]))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(tiny_bundle(tmp_path_factory.mktemp("bundle"), substitutes=("s040", "s050", "s060")))


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> SessionModel:
    return SessionModel(bundle)


@pytest.fixture(scope="module")
def graph(bundle: Bundle) -> SessionModel:
    return SessionModel(bundle, incremental=False)


@pytest.fixture(scope="module", params=["incremental inference", "graph"])
def either(request: pytest.FixtureRequest, model: SessionModel, graph: SessionModel) -> SessionModel:
    return model if request.param == "incremental inference" else graph


def vector_of(model: SessionModel, session: list[int]) -> np.ndarray:
    items = left_pad([session], 50)
    return model.run(items, np.where(items > 0, items % 5 + 1, 0), without=False).vector[0]


def other_bundle(directory: Path, bundle: Bundle, **kept: bool) -> SessionModel:
    graph = reduced(bundle.session_onnx.read_bytes(), **kept)
    return SessionModel(Bundle.load(tiny_bundle(directory, session_onnx=graph)))


def test_histories_of_different_lengths_are_read_as_if_each_were_alone(
    either: SessionModel, graph: SessionModel
) -> None:
    reading = either.read(histories(SESSIONS))
    for row, session in enumerate(SESSIONS):
        np.testing.assert_allclose(reading.vector[row], vector_of(graph, session), **CLOSE)
        assert reading.attention[row].sum() == pytest.approx(float(bool(session)), abs=1e-5)


def test_incremental_inference_reads_what_the_graph_reads(model: SessionModel, graph: SessionModel) -> None:
    ours, expected = (each.read(histories([*SESSIONS, []])) for each in (model, graph))
    np.testing.assert_allclose(ours.vector, expected.vector, **CLOSE)
    np.testing.assert_allclose(ours.attention, expected.attention, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_every_ablation_changes_the_vector_by_every_event(name: str, either: SessionModel, bundle: Bundle) -> None:
    reading = either.read(histories(SESSIONS))
    without = every_event(either, reading, METHODS[name])
    assert without.shape == (*reading.histories.item.shape, bundle.item_vectors.shape[1])
    assert without.dtype == np.float32
    for row, session in enumerate(SESSIONS):
        first = reading.histories.first_column(row)
        moved = np.abs(reading.vector[row] - without[row, first:]).max(axis=1, initial=0)
        assert len(moved) == len(session)
        assert (moved > 1e-4).all()
        assert not without[row, :first].any()


@pytest.mark.parametrize("name", METHODS)
def test_incremental_inference_and_the_graph_agree_on_every_ablation(
    name: str, model: SessionModel, graph: SessionModel
) -> None:
    made = histories(SESSIONS)
    ours, expected = (every_event(each, each.read(made), METHODS[name]) for each in (model, graph))
    np.testing.assert_allclose(ours, expected, **CLOSE)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_deletion_of_any_number_of_events_is_a_run_of_what_is_left(
    model: SessionModel, graph: SessionModel, data: st.DataObject
) -> None:
    sessions = data.draw(st.lists(st.lists(st.integers(1, ITEMS), max_size=12), min_size=1, max_size=4))
    made = histories(sessions)
    rows = data.draw(st.lists(st.integers(0, len(sessions) - 1), min_size=1, max_size=8))
    gone = [data.draw(st.sets(st.sampled_from(range(len(sessions[row]))))) if sessions[row] else set() for row in rows]
    deleted = np.zeros((len(rows), made.width), dtype=np.bool_)
    for number, (row, events) in enumerate(zip(rows, gone, strict=True)):
        deleted[number, [made.first_column(row) + event for event in events]] = True
    edits = Edits.deletions(np.array(rows), deleted)
    left = [[item for event, item in enumerate(sessions[row]) if event not in events]
            for row, events in zip(rows, gone, strict=True)]  # fmt: skip
    for each in (model, graph):
        vectors = session_vectors(each, each.read(made), edits)
        for vector, session in zip(vectors, left, strict=True):
            np.testing.assert_allclose(vector, vector_of(graph, session), **CLOSE)


def test_the_same_edit_gives_the_same_bits_whoever_asks(either: SessionModel) -> None:
    reading = either.read(histories(SESSIONS))
    session, column = np.nonzero(reading.histories.present)
    edits = Edits.concatenate([Edits.of_events(kind, session, column) for kind in available(either)])
    together = session_vectors(either, reading, edits)
    padded = np.concatenate([np.full((len(edits), 2), -1), edits.columns], axis=1)
    np.testing.assert_array_equal(session_vectors(either, reading, Edits(edits.session, edits.kind, padded)), together)
    order = np.random.default_rng(0).permutation(len(edits))
    shuffled = Edits(edits.session[order], edits.kind[order], edits.columns[order])
    np.testing.assert_array_equal(session_vectors(either, reading, shuffled), together[order])
    for n in order[:20]:
        alone = Edits(*(each[[n]] for each in (edits.session, edits.kind, edits.columns)))
        np.testing.assert_array_equal(session_vectors(either, reading, alone)[0], together[n])


def test_the_order_in_which_events_are_deleted_does_not_matter(either: SessionModel) -> None:
    reading = either.read(histories(SESSIONS))
    pairs = np.array(list(product(range(28, 30), range(25, 28))))
    one, other = (Edits(np.full(len(pairs), 3), np.full(len(pairs), DELETE), each) for each in (pairs, pairs[:, ::-1]))
    np.testing.assert_array_equal(session_vectors(either, reading, one), session_vectors(either, reading, other))


def test_an_edit_that_concerns_no_event_leaves_the_vector_that_was_read(either: SessionModel) -> None:
    reading = either.read(histories(SESSIONS))
    every = np.arange(len(SESSIONS))
    edits = Edits.deletions(every, np.zeros((len(every), reading.histories.width), dtype=np.bool_))
    np.testing.assert_array_equal(session_vectors(either, reading, edits), reading.vector)


def test_a_blanked_event_leaves_its_position_and_nothing_else(either: SessionModel) -> None:
    reading = either.read(histories([[3, 9, item, 7, 12] for item in (21, 41)]))
    without = every_event(either, reading, BLANK)
    np.testing.assert_allclose(without[0, 2], without[1, 2], **CLOSE)
    assert np.abs(without[0, 2] - every_event(either, reading, DELETE)[0, 2]).max() > 1e-3


def test_masking_the_newest_event_is_deleting_it(either: SessionModel) -> None:
    reading = either.read(histories(SESSIONS))
    masked, deleted = (every_event(either, reading, kind)[:, -1] for kind in (MASK, DELETE))
    np.testing.assert_allclose(masked, deleted, **CLOSE)


def test_masking_for_the_last_query_is_exact_for_the_newest_two_events_and_close_for_others(
    model: SessionModel,
) -> None:
    reading = model.read(histories(SESSIONS))
    quick, exact = (every_event(model, reading, kind) for kind in (MASK_LAST_QUERY, MASK))
    np.testing.assert_array_equal(quick[:, -2:], exact[:, -2:])
    there = reading.histories.present
    missed = np.linalg.norm(quick - exact, axis=2)[there].mean()
    moved = np.linalg.norm(reading.vector[:, None] - exact, axis=2)[there].mean()
    assert 0 < missed < 0.5 * moved


def test_what_a_model_allows_is_what_its_graph_has(tmp_path: Path, bundle: Bundle, model: SessionModel) -> None:
    assert available(model) == (DELETE, BLANK, MASK)
    assert available(other_bundle(tmp_path / "plain", bundle)) == (DELETE,)
    assert available(other_bundle(tmp_path / "blank", bundle, blank=True)) == (DELETE, BLANK)
    assert available(other_bundle(tmp_path / "masks", bundle, without=True)) == (DELETE, MASK)
    assert available(other_bundle(tmp_path / "cache", bundle, cache=True)) == (DELETE, MASK)


@pytest.mark.parametrize(
    ("kind", "columns", "says"),
    [
        (BLANK, [29], "the blank event, got one without"),
        (MASK, [29], "incremental inference, the output `without` or the input"),
        (MASK_LAST_QUERY, [29], "incremental inference, the output `without` or the input"),
        (DELETE, [25], "got padding"),
        (DELETE, [30], "got padding"),
        (MASK, [28, 29], "edits of one event of the window each"),
    ],
)
def test_an_edit_that_cannot_be_made_is_refused(
    tmp_path: Path, bundle: Bundle, kind: int, columns: Any, says: str
) -> None:
    plain = other_bundle(tmp_path, bundle)
    edits = Edits(np.array([0]), np.array([kind]), np.array([columns]))
    with pytest.raises(SessionInputError, match=says):
        session_vectors(plain, plain.read(histories(SESSIONS)), edits)

"""Removals: what the session vector would be without an event."""

from __future__ import annotations

import numpy as np
import pytest

from models.attribution import METHODS
from models.attribution import glance as glances
from models.attribution.glance import glance
from models.attribution.history import Histories, read
from models.attribution.removal import BLANKED, DELETED, MASKED, MUTED, REMOVALS, Removals, Runs
from models.bundle import Bundle
from models.errors import SessionInputError
from models.session.runtime import SessionModel, left_pad

SESSIONS = [[3, 7, 11, 7], [5], [], list(range(1, 31)), [9, 2], list(range(30, 0, -2))]


def histories(sessions: list[list[int]]) -> Histories:
    items = left_pad(sessions, 50)
    return Histories(items, np.where(items > 0, items % 5 + 1, 0), np.array([len(each) for each in sessions]))


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> SessionModel:
    return SessionModel(bundle)


def vector_of(model: SessionModel, session: list[int]) -> np.ndarray:
    items = left_pad([session], 50)
    return model.run(items, np.where(items > 0, items % 5 + 1, 0), without=False).vector[0]


def removed(model: SessionModel, made: Histories, removal: int, state: np.ndarray | None = None) -> np.ndarray:
    """Vectors [K, W, d] without each event that may be removed so, made in two goes."""
    removals, wanted = Removals(model, made, state), np.zeros((len(REMOVALS), *made.item.shape), dtype=np.bool_)
    wanted[removal] = made.item > 0
    wanted[MASKED, :, -1] = False
    removals.run(wanted & (made.item % 2 == 1))
    removals.run(wanted)
    return np.where(wanted[removal][..., None], removals.vectors[removal], 0)


def test_sessions_of_different_lengths_are_read_as_if_each_were_alone(model: SessionModel) -> None:
    reading = read(model, histories(SESSIONS))
    for row, session in enumerate(SESSIONS):
        np.testing.assert_allclose(reading.vector[row], vector_of(model, session), atol=1e-5)
        assert reading.attention[row].sum() == pytest.approx(float(bool(session)), abs=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_every_removal_gives_the_vector_without_each_event(name: str, model: SessionModel, bundle: Bundle) -> None:
    made = histories(SESSIONS)
    without = METHODS[name](model, made)
    assert without.shape == (*made.item.shape, bundle.item_vectors.shape[1])
    assert without.dtype == np.float32
    vector = read(model, made, without=False).vector
    for row, session in enumerate(SESSIONS):
        first = made.width - len(session)
        moved = np.abs(vector[row] - without[row, first:]).max(axis=1, initial=0)
        assert (moved > 1e-4).all()


def test_deletion_is_a_run_of_what_is_left(model: SessionModel) -> None:
    made = histories(SESSIONS)
    without = METHODS["deletion"](model, made)
    for row, session in enumerate(SESSIONS):
        for event in range(len(session)):
            expected = vector_of(model, session[:event] + session[event + 1 :])
            np.testing.assert_allclose(without[row, made.width - len(session) + event], expected, atol=1e-5)


def test_a_blanked_event_says_nothing_whatever_it_was(model: SessionModel) -> None:
    one, other = ([3, 9, item, 7, 12] for item in (21, 40))
    made = histories([one, other])
    without = METHODS["blanking"](model, made)
    # What stood there is gone, but not its place: deleting it is something else.
    np.testing.assert_allclose(without[0, 2], without[1, 2], atol=1e-5)
    assert np.abs(without[0, 2] - METHODS["deletion"](model, made)[0, 2]).max() > 1e-3


def test_two_events_can_be_deleted_in_either_order(model: SessionModel) -> None:
    made = histories(SESSIONS)
    removals = Removals(model, made)
    row = np.array([0, 0, 3, 3, 5])
    column = made.width - made.length[row] + np.array([0, 2, 29, 4, 1])
    other = made.width - made.length[row] + np.array([2, 0, 0, 5, 14])
    both = removals.without_two(row, column, other)
    np.testing.assert_array_equal(both[0], both[1])
    for got, index, one, two in zip(both, row, column, other, strict=True):
        gone = {int(one) - made.first_column(index), int(two) - made.first_column(index)}
        left = [item for event, item in enumerate(SESSIONS[index]) if event not in gone]
        np.testing.assert_allclose(got, vector_of(model, left), atol=1e-5)


def test_what_stands_before_an_event_need_not_be_run_again(model: SessionModel) -> None:
    made = histories(SESSIONS)
    state = glance(model, made).state
    for removal in (DELETED, BLANKED):
        whole, resumed = (removed(model, made, removal, each) for each in (None, state))
        np.testing.assert_allclose(resumed, whole, atol=1e-5)
    row, column = np.nonzero(made.item > 0)
    pairs = column < made.width - 1
    args = row[pairs], column[pairs], column[pairs] + 1
    whole, resumed = (Removals(model, made, each).without_two(*args) for each in (None, state))
    np.testing.assert_allclose(resumed, whole, atol=1e-5)


def test_a_glance_reads_what_the_graph_reads(model: SessionModel) -> None:
    made = histories([*SESSIONS, []])
    reading, graph = glance(model, made), read(model, made)
    np.testing.assert_allclose(reading.vector, graph.vector, atol=1e-5)
    np.testing.assert_allclose(reading.attention, graph.attention, atol=1e-6)


def test_a_masked_event_leaves_what_the_graph_leaves(model: SessionModel) -> None:
    made = histories(SESSIONS)
    older = (made.item > 0) & (np.arange(made.width) < made.width - 1)
    masked = removed(model, made, MASKED, glance(model, made).state)
    np.testing.assert_allclose(masked[older], METHODS["masking"](model, made)[older], atol=1e-5)


def test_a_glance_is_exact_for_the_newest_two_events_and_near_for_others(model: SessionModel) -> None:
    made = histories(SESSIONS)
    reading, exact = glance(model, made), METHODS["masking"](model, made)
    assert reading.without is not None
    np.testing.assert_allclose(reading.without[:, -2:], exact[:, -2:], atol=1e-5)
    there = made.item > 0
    np.testing.assert_array_equal(
        reading.without[~there], np.repeat(reading.vector, made.width, axis=0)[~there.ravel()]
    )
    missed = np.linalg.norm(reading.without - exact, axis=2)[there].mean()
    moved = np.linalg.norm(reading.vector[:, None] - exact, axis=2)[there].mean()
    assert missed < 0.5 * moved


def test_a_glance_at_some_events_says_of_them_what_one_at_all_says(model: SessionModel) -> None:
    made = histories(SESSIONS)
    wanted = (made.item > 0) & (made.item % 3 > 0)
    reading, some = glance(model, made), glance(model, made, wanted).without
    assert reading.without is not None
    assert some is not None
    np.testing.assert_array_equal(some[wanted], reading.without[wanted])
    vector = np.repeat(reading.vector[:, None], made.width, axis=1)
    np.testing.assert_array_equal(some[~wanted], vector[~wanted])


def test_a_glance_does_not_miss_whom_the_newest_event_hardly_heard(
    model: SessionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = histories(SESSIONS)
    whole = glance(model, made)
    older = (made.item > 0) & (np.arange(made.width) < made.width - 2)
    least = float(np.median(whole.attention[older]))
    monkeypatch.setattr(glances, "UNHEARD", least)
    some, silent = glance(model, made).without, older & (whole.attention < least)
    assert whole.without is not None
    assert some is not None
    assert silent.any()
    np.testing.assert_array_equal(some[silent], np.repeat(whole.vector[:, None], made.width, axis=1)[silent])
    np.testing.assert_array_equal(some[~silent], whole.without[~silent])


def test_a_model_that_takes_up_nothing_again_says_the_same(model: SessionModel, bundle: Bundle) -> None:
    plain = SessionModel(bundle)
    plain.reruns = None
    made = histories(SESSIONS)
    for removal in (DELETED, BLANKED):
        whole = removed(plain, made, removal, glance(plain, made).state)
        again = removed(model, made, removal, glance(model, made).state)
        np.testing.assert_allclose(again, whole, atol=1e-5)


def test_what_cannot_be_hidden_is_refused(model: SessionModel, bundle: Bundle) -> None:
    plain = SessionModel(bundle)
    plain.reruns = None
    made = histories(SESSIONS)
    kept = glance(model, made).state
    row, newest = np.array([0]), np.array([made.width - 1])
    for removal in (MASKED, MUTED):
        with pytest.raises(SessionInputError, match="an older event to hide, got the newest"):
            Runs(model, made, kept).without(np.array([removal]), row, newest)
        with pytest.raises(SessionInputError, match="use `masking` or deletion"):
            Runs(plain, made, kept).without(np.array([removal]), row, newest - 1)

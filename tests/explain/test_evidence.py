"""What is proposed before anything is confirmed, and which of what was confirmed is cited."""

from __future__ import annotations

import numpy as np

from stream.explain.evidence import CANDIDATES, CITED, EVENTS, _choose, _propose


def test_an_oldest_event_that_fills_its_column_is_proposed_like_any_other() -> None:
    relative = np.array([[0.9, 0.0, 0.0], [0.2, 0.0, 0.5]], dtype=np.float32)
    candidates = np.full((2, CANDIDATES), -1)
    yes = np.ones(2, dtype=np.bool_)
    _propose(np.array([0, 2]), yes, np.ones((1, 3), dtype=np.bool_), relative, relative, 0.1, EVENTS, candidates)
    assert candidates.tolist() == [[0, -1], [2, 0]]


def test_an_event_that_does_less_for_an_item_than_others_is_not_its_reason_however_it_tells_it_from_its_slate() -> None:
    fall = np.array([[0.9, 0.8, 0.7, 0.6]], dtype=np.float32)
    relative = np.array([[0.02, 0.2, 0.6, 0.5]], dtype=np.float32)
    candidates = np.full((1, CANDIDATES), -1)
    yes, watched = np.ones(1, dtype=np.bool_), np.array([[True, True, False, True]])
    _propose(np.array([0, 1]), yes, watched, fall, relative, 0.1, EVENTS, candidates)
    assert candidates.tolist() == [[-1, 1]]


def test_what_does_most_by_its_weakest_removal_is_cited_first_and_another_title_next() -> None:
    least = np.array([[0.3, 0.5, 0.4, 0.6, 0.05]], dtype=np.float32)
    titles, rank_without = np.array([[7, 8, 8, 9, 6]]), np.array([[2, 2, 3, 1, 4]])

    def cited(*candidates: int) -> list[int]:
        found = np.full((1, CITED), -1)
        first, rank = np.zeros(1, dtype=np.int64), np.array([2])
        _choose(np.array([candidates]), first, titles, rank, rank_without, least, 0.1, found)
        return found[0].tolist()

    assert cited(0, 1) == cited(1, 0) == [1, 0]
    assert cited(1, 2) == [1, -1]  # the same title
    assert cited(3, 0) == [0, -1]  # without event 3 the item stands higher
    assert cited(4, -1) == [-1, -1]

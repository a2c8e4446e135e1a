"""What is proposed before anything is confirmed."""

from __future__ import annotations

import numpy as np

from stream.explain.evidence import CANDIDATES, EVENTS, _propose


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

"""What is proposed before anything is confirmed."""

from __future__ import annotations

import numpy as np

from stream.explain.evidence import CANDIDATES, EVENTS, _propose


def test_an_oldest_event_that_fills_its_column_is_proposed_like_any_other() -> None:
    relative = np.array([[0.9, 0.0, 0.0], [0.2, 0.0, 0.5]], dtype=np.float32)
    candidates = np.full((2, CANDIDATES), -1)
    yes = np.ones(2, dtype=np.bool_)
    _propose(np.array([0, 2]), yes, np.ones((1, 3), dtype=np.bool_), relative, relative, 0.1, EVENTS, candidates)
    assert candidates.tolist() == [[0, -1, -1], [2, 0, -1]]

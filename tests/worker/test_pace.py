"""How often a worker asks the broker for more: seldom where it only archives, unless it is told otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from stream.service import paced
from stream.settings import Settings

OFTEN = (64 * 1024, 10)


@pytest.mark.parametrize(
    ("agents", "told", "asks"),
    [
        (["sink"], {}, (1024 * 1024, 250)),
        (["sink"], {"FETCH_MAX_WAIT_MS": "20"}, (1024 * 1024, 20)),
        (["sink"], {"FETCH_MIN_BYTES": "1"}, (1, 250)),
        (["explain"], {}, OFTEN),
        (["explain", "sink"], {}, OFTEN),
    ],
)
def test_only_a_sink_alone_fetches_seldom_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, agents: Sequence[str], told: dict[str, str], asks: tuple[int, int]
) -> None:
    for name, value in told.items():
        monkeypatch.setenv(f"WHYREC_{name}", value)
    settings = paced(Settings(), agents)
    assert (settings.fetch_min_bytes, settings.fetch_max_wait_ms) == asks

"""The base of all errors that whyrec raises on purpose, and the two about what crosses the bus.

A message says what was expected, what was got, and what to do next.
"""

from __future__ import annotations


class WhyrecError(Exception):
    """Base class: everything that whyrec raises on purpose."""


class InvalidEvent(WhyrecError):
    """A record has the right shape but says something that cannot be (or no shape at all)."""


class UndecodableEvent(WhyrecError):
    """Bytes that are no event of ours: no known framing, an unknown schema, or a truncated body."""

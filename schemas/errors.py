"""The base class of whyrec's errors, and the errors about events on the bus.

A message states what was expected, what was received, and what to do next.
"""

from __future__ import annotations


class WhyrecError(Exception):
    """Base class of all errors that whyrec raises on purpose."""


class InvalidEvent(WhyrecError):
    """A decoded record breaks a rule of its event type, for example by a value that cannot occur."""


class UndecodableEvent(WhyrecError):
    """Bytes that are no event of a known schema: unknown framing, unknown schema, or truncated body."""

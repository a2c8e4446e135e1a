"""What can be wrong with models, as opposed to events."""

from __future__ import annotations

from schemas.errors import WhyrecError


class BundleError(WhyrecError):
    """A model bundle is incomplete, was altered, or does not fit together."""


class SessionInputError(WhyrecError, ValueError):
    """Arrays handed to a session model that it cannot read: a fault of the caller, not of the bundle."""

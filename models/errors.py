"""Errors about models; errors about events are in schemas/errors.py."""

from __future__ import annotations

from schemas.errors import WhyrecError


class BundleError(WhyrecError):
    """A model bundle is incomplete, was altered, or has parts that do not fit together."""


class SessionInputError(WhyrecError, ValueError):
    """A session model was called with invalid arrays: a fault of the caller, not of the bundle."""

"""Attribution methods: which features and which past events moved an item."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from models.attribution.history import Floats, Histories
from models.attribution.removal import blanking, deletion, masking

if TYPE_CHECKING:
    from models.session.runtime import SessionModel

Removal = Callable[["SessionModel", Histories], Floats]
"""The session vector without each event of each history: float32 [K, W, d]."""

METHODS: Final[dict[str, Removal]] = {"masking": masking, "deletion": deletion, "blanking": blanking}
"""Every way of taking a past event away; a new one is a function and a row here."""

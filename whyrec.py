"""whyrec in a process of one's own: open a bundle, explain impressions, and nothing else.

>>> from whyrec import Explainer
>>> explainer = Explainer.load("my-bundle")
>>> explanations = explainer.explain([impression])

The service around it (Kafka, the archive, commands) is the package ``stream``; the command is ``whyrec``.
"""

from __future__ import annotations

from models.bundle import Bundle
from schemas.errors import InvalidEvent, WhyrecError
from stream.explain.pipeline import Explained, Explainer, Rejected

__all__ = ["Bundle", "Explained", "Explainer", "InvalidEvent", "Rejected", "WhyrecError"]

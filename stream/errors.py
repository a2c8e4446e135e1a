"""What can go wrong in the service itself, as opposed to in an event or a bundle."""

from __future__ import annotations

from schemas.errors import WhyrecError


class ConfigurationError(WhyrecError):
    """A setting is missing or contradicts another; the message names it and what to set."""


class DeliveryError(WhyrecError):
    """The broker did not acknowledge an output in the time given; nothing was committed."""


class ProducerBroken(DeliveryError):
    """The producer will never deliver again, whatever the broker does: only a new process can go on."""


class WorkerUnfit(WhyrecError):
    """A worker cannot explain a slate that it could explain at its start; it must stop and acknowledge nothing."""


class ArchiveError(WhyrecError):
    """The archive or its store is not as it must be."""


class WorkerFailed(WhyrecError):
    """A worker process did not start, or did not end, as it should; the message ends with its log's last lines."""

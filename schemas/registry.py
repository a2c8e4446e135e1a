"""The schema registry: schema ids for writers, schemas for readers, compatibility rules.

The client is that of confluent-kafka. Subjects are named by its default, TopicNameStrategy: ``<topic>-value``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final, Self

from confluent_kafka.schema_registry import ConfigCompatibilityLevel, Schema, SchemaRegistryClient, ServerConfig
from confluent_kafka.schema_registry.error import SchemaRegistryError

from schemas.errors import UndecodableEvent, WhyrecError

NOT_FOUND = 404
INCOMPATIBLE = 409
_INVALID_ID: Final = frozenset({400, 405, 410, 414, 422})
"""HTTP statuses of a request whose schema id is invalid; 401, 403, 408 and 429 concern the client instead."""

COMPATIBILITY: Final = ConfigCompatibilityLevel.FULL_TRANSITIVE
"""Every version can read every other version, so producers, workers and readers can be upgraded in any order."""


class RegistryUnavailable(WhyrecError):
    """The registry did not answer. The message itself may be valid: try again later."""


class IncompatibleSchema(WhyrecError):
    """The registry rejects a schema because it is incompatible with the schemas already registered."""


@dataclass
class Registry:
    """A client of the schema registry at ``url``. Ids and schemas are cached: they never change.

    credentials: user and password, separated by a colon. timeout_s: how long a request may take.
    """

    url: str = field(repr=False)
    credentials: str | None = field(default=None, repr=False)
    timeout_s: float = 5.0
    _client: SchemaRegistryClient = field(init=False, repr=False)
    _ids: dict[str, int] = field(init=False, default_factory=dict, repr=False)
    _schemas: dict[int, dict[str, Any]] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        # Without a timeout the client waits for ever for a registry that accepts a request and sends no response.
        settings: dict[str, Any] = {"url": self.url, "timeout": self.timeout_s}
        if self.credentials is not None:
            settings["basic.auth.user.info"] = self.credentials
        self._client = SchemaRegistryClient(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the registry."""
        self._client.close()

    def id_of(self, topic: str, schema: dict[str, Any]) -> int:
        """Return the id of ``schema`` under the topic's subject; register the schema if it is new.

        Raises:
            IncompatibleSchema: the registry rejects the schema.
            RegistryUnavailable: the registry did not answer.

        """
        if topic not in self._ids:
            try:
                self._ids[topic] = self._client.register_schema(subject(topic), _avro(schema))
            except SchemaRegistryError as error:
                if error.http_status_code == INCOMPATIBLE:
                    raise IncompatibleSchema(f"{subject(topic)}: {error.error_message}") from error
                raise self._unavailable(error) from error
            except Exception as error:
                raise self._unavailable(error) from error
        return self._ids[topic]

    def schema_of(self, schema_id: int) -> dict[str, Any]:
        """Return the Avro schema with the id ``schema_id``.

        Raises:
            UndecodableEvent: the registry has no such id, or the schema is not an Avro schema.
            RegistryUnavailable: the registry did not answer.

        """
        if schema_id not in self._schemas:
            try:
                found = self._client.get_schema(schema_id)
            except SchemaRegistryError as error:
                if error.http_status_code == NOT_FOUND:
                    raise UndecodableEvent(
                        f"schema id {schema_id} is unknown to the registry; register the producer's schema there"
                    ) from error
                if error.http_status_code in _INVALID_ID:
                    raise UndecodableEvent(
                        f"the registry rejects the schema id {schema_id} ({error.error_message}); check that the "
                        "producer uses the same registry"
                    ) from error
                raise self._unavailable(error) from error
            except Exception as error:
                raise self._unavailable(error) from error
            if found.schema_type != "AVRO" or found.schema_str is None:
                raise UndecodableEvent(f"schema id {schema_id} is {found.schema_type}; expected an Avro schema")
            self._schemas[schema_id] = json.loads(found.schema_str)
        return self._schemas[schema_id]

    def is_compatible(self, topic: str, schema: dict[str, Any]) -> bool:
        """Whether ``schema`` could be registered for the topic; a topic without schemas accepts any schema.

        Raises:
            RegistryUnavailable: the registry did not answer.

        """
        try:
            return bool(self._client.test_compatibility(subject(topic), _avro(schema)))
        except SchemaRegistryError as error:
            if error.http_status_code == NOT_FOUND:
                return True
            raise self._unavailable(error) from error
        except Exception as error:
            raise self._unavailable(error) from error

    def compatibility(self, topic: str) -> str:
        """Return the compatibility level of the topic's subject, or else the registry's default level.

        Raises:
            RegistryUnavailable: the registry did not answer.

        """
        try:
            try:
                config = self._client.get_config(subject(topic))
            except SchemaRegistryError as error:
                if error.http_status_code != NOT_FOUND:
                    raise
                config = self._client.get_config()
        except Exception as error:
            raise self._unavailable(error) from error
        return str(config.compatibility_level.value)

    def require_compatibility(self, topic: str) -> None:
        """Set the compatibility level of the topic's subject to `COMPATIBILITY`.

        Raises:
            RegistryUnavailable: the registry did not answer.

        """
        try:
            self._client.set_config(subject(topic), ServerConfig(compatibility=COMPATIBILITY))
        except Exception as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> RegistryUnavailable:
        return RegistryUnavailable(
            f"the schema registry at {_without_password(self.url)} did not answer as expected ({error}): "
            "check the address, and that the registry is running"
        )


def _without_password(url: str) -> str:
    return re.sub(r"(?<=://)[^/]*@", "", url)


def subject(topic: str) -> str:
    """Return the subject under which the schemas of a topic's values are registered (TopicNameStrategy)."""
    return f"{topic}-value"


def _avro(schema: dict[str, Any]) -> Schema:
    return Schema(json.dumps(schema), "AVRO")

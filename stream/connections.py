"""The schema registry and the codec that the settings describe, the same for all commands."""

from __future__ import annotations

from schemas.codec import Codec
from schemas.registry import Registry
from stream.errors import ConfigurationError
from stream.settings import Settings


def registry_of(settings: Settings, url: str | None = None) -> Registry | None:
    """Return the schema registry at ``url``, else the registry of the settings, else None.

    Raises:
        ConfigurationError: the address or the credentials are malformed.

    """
    found = url or settings.schema_registry_url
    if found is None:
        return None
    secret = settings.schema_registry_credentials
    try:
        return Registry(found, secret.get_secret_value() if secret is not None else None)
    except ValueError as error:
        raise ConfigurationError(
            f"the settings of the schema registry are malformed ({error}): give its address as http://HOST:PORT/PATH, "
            "and WHYREC_SCHEMA_REGISTRY_CREDENTIALS, if it needs any, as USER:PASSWORD"
        ) from error


def require_registry(settings: Settings, url: str | None = None) -> Registry:
    """Return the schema registry like :func:`registry_of`, for commands that need one.

    Raises:
        ConfigurationError: no registry is configured.

    """
    found = registry_of(settings, url)
    if found is None:
        raise ConfigurationError("no schema registry: give --registry URL or set WHYREC_SCHEMA_REGISTRY_URL")
    return found


def codec_of(settings: Settings) -> Codec:
    """Return the codec: with the Confluent wire format where a registry is set, else plain Avro."""
    return Codec(registry_of(settings))

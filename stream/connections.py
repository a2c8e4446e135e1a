"""How settings become a schema registry and a codec; every command connects the same way."""

from __future__ import annotations

from schemas.codec import Codec
from schemas.registry import Registry
from stream.errors import ConfigurationError
from stream.settings import Settings


def registry_of(settings: Settings, url: str | None = None) -> Registry | None:
    """Return the schema registry at ``url`` or the one configured, or none where there is none.

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
            f"no schema registry can be reached so ({error}): give its address as http://HOST:PORT/PATH, and "
            "WHYREC_SCHEMA_REGISTRY_CREDENTIALS, if it wants any, as USER:PASSWORD"
        ) from error


def require_registry(settings: Settings, url: str | None = None) -> Registry:
    """Like :func:`registry_of`, for commands that make no sense without one.

    Raises:
        ConfigurationError: no registry is configured.

    """
    found = registry_of(settings, url)
    if found is None:
        raise ConfigurationError("no schema registry: give --registry URL or set WHYREC_SCHEMA_REGISTRY_URL")
    return found


def codec_of(settings: Settings) -> Codec:
    """Return the codec that the settings ask for."""
    return Codec(registry_of(settings))

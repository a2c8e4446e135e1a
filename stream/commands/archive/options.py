"""Options that several subcommands share, and their checks."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import typer

from stream.settings import Settings

if TYPE_CHECKING:
    from stream.archive.objects import Store
    from stream.errors import ArchiveError

URL = typer.Option(None, "--url", help="Folder or s3://bucket/prefix, by default WHYREC_ARCHIVE_URL.", metavar="URL")


def settings_at(url: str | None) -> Settings:
    """Return the settings, with the archive at ``url`` unless it is None."""
    settings = Settings()
    return settings if url is None else settings.model_copy(update={"archive_url": url})


def require_day(option: str, day: str | None) -> None:
    """Check that a day, if given, has the form YYYY-MM-DD and exists.

    Raises:
        typer.BadParameter: it does not.

    """
    try:
        fits = day is None or date.fromisoformat(day).isoformat() == day
    except ValueError:
        fits = False
    if not fits:
        raise typer.BadParameter(f"{day!r} is not a day; expected YYYY-MM-DD, such as 2026-01-31", param_hint=option)


def require_user(user: str | None) -> str | None:
    """Return ``user`` if it is None or has the form of a user's hash.

    Raises:
        typer.BadParameter: it has another form.

    """
    if user is not None and (len(user) != 16 or not set(user) <= set("0123456789abcdef")):
        raise typer.BadParameter(f"{user!r} is not a user; expected 16 hexadecimal digits", param_hint="--user")
    return user


def nothing_at(store: Store) -> ArchiveError:
    """Return the error for a store without commit entries; its address may be wrong."""
    from stream.errors import ArchiveError

    return ArchiveError(
        f"{store.url} holds no commit entry, so nothing is archived there; check --url or WHYREC_ARCHIVE_URL"
    )

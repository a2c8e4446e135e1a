"""What the subcommands share: where the archive is, which days, and whose rows."""

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
    """Return the settings in force, with another archive where one is given."""
    settings = Settings()
    return settings if url is None else settings.model_copy(update={"archive_url": url})


def require_day(option: str, day: str | None) -> None:
    """Refuse a day that is not written as the archive writes it.

    Raises:
        typer.BadParameter: it is not.

    """
    try:
        fits = day is None or date.fromisoformat(day).isoformat() == day
    except ValueError:
        fits = False
    if not fits:
        raise typer.BadParameter(f"{day!r} is no day; expected YYYY-MM-DD, such as 2026-01-31", param_hint=option)


def require_user(user: str | None) -> str | None:
    """Return a user's hash if it is one.

    Raises:
        typer.BadParameter: it is not.

    """
    if user is not None and (len(user) != 16 or not set(user) <= set("0123456789abcdef")):
        raise typer.BadParameter(f"{user!r} is no user; expected 16 hexadecimal digits", param_hint="--user")
    return user


def nothing_at(store: Store) -> ArchiveError:
    """Nothing archived is not the same as an archive that is whole: the address may be wrong."""
    from stream.errors import ArchiveError

    return ArchiveError(
        f"{store.url} holds no commit entry, so nothing is archived there: check --url, or WHYREC_ARCHIVE_URL"
    )

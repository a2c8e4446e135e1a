"""``whyrec models promote``, ``rollback`` and ``live``: which versions of a bundle the workers hold ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stream.kafka.control import Serving


def promote(
    version: Annotated[str, typer.Argument(help="The version, as impressions name it.", metavar="NAME@VERSION")],
    share: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Give it this share of the users, and leave the default as it is; 0 takes it away."
        ),
    ] = None,
) -> None:
    """Have all workers hold a version ready, and make it the default, or that of a share of the users.

    Where WHYREC_BUNDLES_URL is set, a version whose bundle is missing or damaged there is refused.

    Example: whyrec models promote streamrec@2 --share 0.1
    """
    from stream.kafka.control import Serving

    name, number = _name_and_version(version)
    if share != 0:
        _require_bundle(version)
    served, ends = _served()
    now = served.get(name)
    if share is None:
        after = Serving(number) if now is None else now.promoted(number)
    elif now is None:
        raise typer.BadParameter(f"{name} has no default version yet; promote one without --share first")
    else:
        after = now.shared(number, share)
    _publish(name, after, ends)


def rollback(name: Annotated[str, typer.Argument(help="Name of the bundle, without a version.")]) -> None:
    """Take shares of users away from other versions; or, where none has any, return to the version before.

    Example: whyrec models rollback streamrec
    """
    served, ends = _served()
    now = served.get(name)
    if now is None:
        raise typer.BadParameter(f"no version of {name} was promoted; see whyrec models live")
    _publish(name, now.rolled_back(), ends)


def live() -> None:
    """Show which versions the workers hold ready.

    Example: whyrec models live
    """
    served, _ = _served()
    for name, serving in sorted(served.items()):
        typer.echo(_sentence(name, serving))
    if not served:
        typer.echo("no version was promoted: workers explain with the bundle they start with")


def _name_and_version(version: str) -> tuple[str, str]:
    name, at, number = version.partition("@")
    if not (name and at and number):
        raise typer.BadParameter(f"{version!r} is no version; expected NAME@VERSION, such as streamrec@2")
    return name, number


def _require_bundle(version: str) -> None:
    """Open the bundle that the workers would load, so that one command fails and not every worker.

    Raises:
        BundleError: the bundle is damaged.
        ConfigurationError: there is none.

    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from models.manifest import read_manifest
    from stream.agents.bundle_store import BundleStore
    from stream.archive.store import open_bundles
    from stream.errors import ConfigurationError
    from stream.settings import Settings

    settings = Settings()
    if settings.bundles_url is None:
        typer.echo("WHYREC_BUNDLES_URL is not set here: whether the bundle exists is not checked", err=True)
        return
    own = read_manifest(settings.bundle_dir)
    if version == f"{own.name}@{own.version}":
        return
    with TemporaryDirectory(prefix="whyrec-bundles-") as copies:
        if BundleStore(open_bundles(settings), Path(copies)).fetch(version) is None:
            raise ConfigurationError(
                f"{settings.bundles_url} has no bundle {version}: copy it there as a folder of this name, the manifest "
                "last, and promote it then"
            )


def _served() -> tuple[dict[str, Serving], dict[int, int]]:
    """Return what is served, and where the control topic ended when it was read."""
    from stream.kafka.control import ControlTopic
    from stream.settings import Settings

    control = ControlTopic(Settings())
    try:
        return control.current(), control.ends
    finally:
        control.close()


def _publish(name: str, serving: Serving, ends: dict[int, int]) -> None:
    from stream.kafka.control import publish
    from stream.settings import Settings

    publish(Settings(), name, serving, ends)
    typer.echo(_sentence(name, serving))


def _sentence(name: str, serving: Serving) -> str:
    shares = "".join(f"; {share:.1%} of users: {version}" for version, share in sorted(serving.shares.items()))
    before = f"; before it: {serving.previous}" if serving.previous else ""
    return f"{name}: default {serving.default}{shares}{before}"

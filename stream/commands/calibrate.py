"""``whyrec models calibrate``: the score drop from which on an event is cited, measured on held-out impressions."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.commands.sources import ImpressionsFrom, Strict, impressions_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from schemas.events import Impression
    from stream.evaluation.cases import Case

CALIBRATED_ON = 1_000
"""Slates, by default."""

_SHARE = 0.66


def calibrate(
    directory: Annotated[Path, typer.Argument(help="A bundle folder.", metavar="DIR")],
    *,
    movielens: Annotated[
        Path | None,
        typer.Option(help="Real users: a folder with MovieLens 100K; by default simulated ones.", metavar="DIR"),
    ] = None,
    impressions: ImpressionsFrom = None,
    strict: Strict = False,
    n: Annotated[int, typer.Option("--n", min=1, help="Slates to measure on, at most.")] = CALIBRATED_ON,
    share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of the impressions, to be left with a citation.")
    ] = _SHARE,
) -> None:
    """Find a bundle's citation margin, and write it into the manifest and the card; the models stay as they are.

    Example: whyrec models calibrate my-bundle --n 500
    """
    from rich.console import Console

    margin_of(directory, movielens, n, share, impressions=impressions, strict=strict, console=Console())


def margin_of(
    directory: Path,
    movielens: Path | None,
    n: int,
    share: float,
    *,
    console: Console,
    impressions: str | None = None,
    strict: bool = False,
) -> None:
    """Calibrate a bundle, and say so."""
    from models.bundle import Bundle, revise
    from models.card import citing, with_section
    from stream.errors import ConfigurationError
    from stream.evaluation import cases
    from stream.evaluation.calibrate import calibrate as find

    bundle = Bundle.load(directory)
    if movielens is not None and impressions is not None:
        raise ConfigurationError("calibrate needs one source: --movielens DIR, or --impressions FILE")
    if impressions is not None:
        slates, option = impressions_of(impressions, n, strict=strict), " --impressions FILE"
        if not slates:
            raise ConfigurationError(f"{impressions} holds no impressions; name a source that does")
    elif movielens is not None:
        slates, option = _slates(cases.movielens(bundle, movielens, part=1), n), " --movielens DIR"
    else:
        slates, option = _slates(cases.simulated(bundle, cases.CALIBRATION_SEED), n), ""
    with console.status("measuring what may be cited"):
        found = find(bundle, slates, share)
    if found.mismatched > found.impressions:
        raise ConfigurationError(
            f"{bundle.model_version} reproduces the scores of {found.impressions:,} impressions and differs in those "
            f"of {found.mismatched:,}, so that nothing is calibrated: whyrec models check "
            "--impressions says why they differ"
        )
    command = f"whyrec models calibrate DIR{option} --n {n} --share {share:g}"
    section = citing(
        found.margin, bundle.manifest.citation_ageing, found.confirmed_share, found.impressions, share, command
    )
    revise(directory, card=with_section(bundle.card, section), citation_margin=found.margin)
    console.print(
        f"margin {found.margin:g}: {found.confirmed_share:.1%} of {found.impressions:,} impressions have a citation "
        f"that holds{'' if found.confirmed_share >= share else f', and no margin leaves it to {share:.1%}'}",
        highlight=False,
        soft_wrap=True,
    )


def _slates(cases: Iterator[Case], n: int) -> list[Impression]:
    return [case.impression for case in islice(cases, n)]

"""``whyrec evaluate``: measure the faithfulness of explanations on held-out impressions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.commands.sources import ImpressionsFrom, Strict

_FILE_WIDTH = 110


def evaluate(
    *,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of slates, of 20 items each.")] = 10_000,
    bundle: Annotated[
        Path | None, typer.Option(help="The model bundle; default: WHYREC_BUNDLE_DIR.", metavar="DIR")
    ] = None,
    movielens: Annotated[
        Path | None,
        typer.Option(help="A folder with MovieLens 100K; default: simulated users.", metavar="DIR"),
    ] = None,
    impressions: ImpressionsFrom = None,
    strict: Strict = False,
    policy: Annotated[
        str | None, typer.Option(help="Evaluate one policy only; default: every policy.", metavar="NAME")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write every figure with its counts to this file.", metavar="FILE")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML page with plots to this file.", metavar="FILE.html")
    ] = None,
) -> None:
    """Evaluate how faithful explanations are, by slower and independent code, on held-out users.

    With impressions of a recommender, every citation is judged by running the bundle's graph and LightGBM again without
    the event; the exit status is 1 if one of them is false.

    Example: whyrec evaluate --n 500 --report evaluation.html
    """
    if impressions is not None:
        if movielens is not None or report is not None:
            raise typer.BadParameter("--impressions is judged by deletion alone: leave out --movielens and --report")
        raise typer.Exit(_judge(impressions, bundle, policy, n, json, strict=strict))

    import itertools
    from json import dumps

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from models.bundle import Bundle
    from stream.errors import ConfigurationError
    from stream.explain.kinds import POLICIES
    from stream.settings import Settings

    try:
        from stream.evaluation.cases import EVALUATION_SEED, simulated
        from stream.evaluation.cases import movielens as real
        from stream.evaluation.report import html_report
        from stream.evaluation.run import evaluate as run
        from stream.terminal.evaluation import evaluation_tables
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"an evaluation needs the extra train: the module {error.name} is missing. In the source folder, run "
            "make setup-dev, or pip install '.[train]'"
        ) from error

    if policy is not None and policy not in POLICIES:
        raise ConfigurationError(f"expected a policy out of {', '.join(POLICIES)}, got {policy!r}; choose one")
    opened = Bundle.load(bundle or Settings().bundle_dir)
    cases = simulated(opened, EVALUATION_SEED) if movielens is None else real(opened, movielens, part=2)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _FILE_WIDTH)  # no table is cut in a file or a pipe
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=n)
        found = run(
            opened,
            itertools.islice(cases, n),
            "simulated users" if movielens is None else "MovieLens 100K",
            policies=POLICIES if policy is None else (policy,),
            report=lambda done: progress.update(task, completed=done),
        )
    record = found.record()
    for part in evaluation_tables(record):
        console.print(part)
    for path, text in ((json, dumps(record, indent=2) + "\n"), (report, html_report(record))):
        if path is not None:
            path.write_text(text, encoding="utf-8")
            console.print(f"wrote {path}", highlight=False, soft_wrap=True)


def _judge(
    impressions: str, bundle: Path | None, policy: str | None, n: int, json: Path | None, *, strict: bool
) -> int:
    """Judge the citations of impressions, print what was found, and return the exit status."""
    from json import dumps

    from rich.console import Console

    from models.bundle import Bundle
    from stream.commands.sources import batches_of
    from stream.evaluation.deletion import judge
    from stream.settings import Settings

    opened = Bundle.load(bundle or Settings().bundle_dir)
    found = judge(opened, batches_of(impressions, n, strict=strict), policy or "evidence")
    false = found.wrong_drops + found.no_drops + found.wrong_ranks
    console = Console()
    console.print(
        f"{found.slates:,} slates of {found.items:,} items explained by {opened.model_version}: {found.verified:,} "
        f"items cite {found.citations:,} events, {found.mismatched:,} items have other scores than the bundle's.\n"
        f"Run again without the event: {found.wrong_drops:,} score drops are not as stated, {found.no_drops:,} are "
        f"none, {found.wrong_ranks:,} ranks are not as stated.",
        highlight=False,
    )
    if found.rejected:
        console.print(f"{found.rejected:,} impressions cannot be explained; see whyrec models check --impressions")
    if json is not None:
        json.write_text(dumps(found.record(), indent=2) + "\n", encoding="utf-8")
        console.print(f"wrote {json}", highlight=False, soft_wrap=True)
    return 1 if false else 0

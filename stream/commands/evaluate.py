"""``whyrec evaluate``: measure the faithfulness of explanations on held-out impressions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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

    Example: whyrec evaluate --n 500 --report evaluation.html
    """
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

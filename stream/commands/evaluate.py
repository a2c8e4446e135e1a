"""``whyrec audit``: is what is shown true? Judged on held-out impressions, beside chance and the published figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from rich.table import Table

_COLUMNS = 110


def audit(
    *,
    n: Annotated[int, typer.Option("--n", min=1, help="Slates of 20 to judge.")] = 10_000,
    bundle: Annotated[
        Path | None, typer.Option(help="The model bundle, by default WHYREC_BUNDLE_DIR.", metavar="DIR")
    ] = None,
    movielens: Annotated[
        Path | None,
        typer.Option(help="Real users: a folder with MovieLens 100K; by default simulated ones.", metavar="DIR"),
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Only this one, by default all.", metavar="NAME")] = None,
    json: Annotated[Path | None, typer.Option(help="Write every figure with its counts.", metavar="FILE")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots.", metavar="FILE.html")] = None,
) -> None:
    """Judge what explanations show, by slower and independent means: is every cited event truly a reason.

    Example: whyrec audit --n 500 --report audit.html
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
        from stream.evaluation.cases import AUDIT_SEED, simulated
        from stream.evaluation.cases import movielens as real
        from stream.evaluation.page import page
        from stream.evaluation.run import audit as run
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"an audit needs the extra train, and there is no module {error.name}: in the source folder, "
            "make setup-dev, or pip install '.[train]'"
        ) from error

    if policy is not None and policy not in POLICIES:
        raise ConfigurationError(f"expected a policy out of {', '.join(POLICIES)}, got {policy!r}; choose one")
    opened = Bundle.load(bundle or Settings().bundle_dir)
    cases = simulated(opened, AUDIT_SEED) if movielens is None else real(opened, movielens, part=2)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _COLUMNS)  # a file has no edge at which to cut a table
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
    _show(console, record)
    for path, text in ((json, dumps(record, indent=2) + "\n"), (report, page(record))):
        if path is not None:
            path.write_text(text, encoding="utf-8")
            console.print(f"wrote {path}", highlight=False, soft_wrap=True)


def _show(console: Console, record: Mapping[str, Any]) -> None:
    ageing = record["citation_ageing"]
    older = f" (n to the power of {ageing:g} times that for the nth newest event)" if ageing else ""
    console.print(
        f"{record['model_version']} on {record['data']}: {record['slates']:,} slates, {record['impressions']:,} "
        f"impressions, margin {record['citation_margin']:g}{older}. In grey: citing as many events at random, or the "
        "newest.",
        highlight=False,
        soft_wrap=True,
    )
    for name, heading in (("all", "All sessions"), ("long", "Sessions of 10 events and more")):
        console.print(_table(record, name, heading))
    if record["trade_off"]:
        points = ", ".join(
            f"{point['margin']:g}: {point['confirmed_share']:.0%} cited, {point['ig_top5']:.0%} of them in IG top-5"
            for point in record["trade_off"]
        )
        console.print(f"What a larger margin would show, by first citation: {points}.", highlight=False)


def _table(record: Mapping[str, Any], name: str, heading: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from stream.evaluation.figures import KEYS
    from stream.evaluation.page import percent

    table = Table(title=heading, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 0, 0, 1))
    table.add_column("", min_width=32)
    table.add_column("published", justify="right")
    for policy in record["policies"]:
        table.add_column(policy, justify="right", style="bold")
        table.add_column("random", justify="right", style="dim")
        table.add_column("newest", justify="right", style="dim")
    for key, text in KEYS.items():
        row = [text, percent(record["reference"].get(key))]
        for policy, found in record["policies"].items():
            row.append(percent(found[name][key]["value"]))
            row += [percent(record["baselines"][policy][who][name][key]["value"]) for who in ("random", "last")]
        table.add_row(*row)
    return table

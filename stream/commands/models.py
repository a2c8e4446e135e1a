"""``whyrec models``: train, import, check and describe model bundles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import WhyrecError
from stream.commands.calibrate import CALIBRATED_ON, calibrate, margin_of
from stream.commands.importing import import_models
from stream.commands.sources import ImpressionsFrom, Strict, batches_of
from stream.commands.versions import live, promote, rollback

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from models.build import Report
    from models.bundle import Bundle
    from models.data.sessions import Sessions
    from models.selector.train import Report as SelectorReport

app = typer.Typer()
app.command()(calibrate)
app.command("import")(import_models)
for _command in (promote, rollback, live):
    app.command()(_command)

_HISTORIES = 150_000
_MOVIELENS_STRIDE = 5

BundleDir = Annotated[Path, typer.Argument(help="A bundle folder.", metavar="DIR")]


class TrainingUnavailable(WhyrecError):
    """Training was asked for where it cannot be done."""


@app.command()
def train(
    *,
    out: Annotated[Path, typer.Option(help="Where to write the bundle.", metavar="DIR")],
    simulated: Annotated[bool, typer.Option("--simulated", help="Learn from simulated StreamRec users.")] = False,
    movielens: Annotated[
        Path | None, typer.Option(help="Learn from MovieLens 100K: its folder.", metavar="DIR")
    ] = None,
    histories: Annotated[int, typer.Option(min=200, help="With --simulated: how many.")] = _HISTORIES,
    epochs: Annotated[int | None, typer.Option(min=1, help="By default what the plan says.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Another number may round differently.")] = 1,
    baseline: Annotated[bool, typer.Option(help="Train an LSTM beside it, to compare with.")] = True,
) -> None:
    """Train session model, baseline and re-ranker, and write a bundle with its card.

    Example: whyrec models train --movielens ml-100k --out movielens-bundle
    """
    from dataclasses import replace

    from rich.console import Console

    if simulated == (movielens is not None):
        raise TrainingUnavailable("models train needs one source: --simulated, or --movielens DIR")
    try:
        from models.build import build
    except ModuleNotFoundError as error:
        raise TrainingUnavailable(
            f"training needs the extra train, and there is no module {error.name}: in the source folder, "
            "make setup-dev, or pip install '.[train]'"
        ) from error

    try:  # before the training, not after it
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingUnavailable(f"--out {out}: {error.strerror}; name a folder that can be made") from error

    from models.plans import MOVIELENS, SIMULATED, TRAINING_SEED

    evaluated = None
    if movielens is not None:
        from models.data.movielens import load

        plan, sessions = MOVIELENS, load(movielens)
        evaluated = load(movielens, stride=_MOVIELENS_STRIDE)
    else:
        from models.data.simulator import simulate

        plan, sessions = SIMULATED, simulate(histories, TRAINING_SEED)
    command = plan.command
    if histories != _HISTORIES:
        command += f" --histories {histories}"
    if epochs is not None:
        plan = replace(plan, recipe=replace(plan.recipe, epochs=epochs))
        command += f" --epochs {epochs}"
    if not baseline:
        command += " --no-baseline"
    if threads != 1:
        command += f" --threads {threads}"
    console = Console()
    with _progress(console) as report:
        bundle = build(
            out,
            replace(plan, threads=threads, baseline=baseline, command=command),
            sessions,
            evaluated=evaluated,
            report=report,
        )
    margin_of(out, movielens, CALIBRATED_ON, plan.cited_share, console=console)
    console.print(
        f"wrote {bundle.model_version} to {out}; read about it with: whyrec models card {out}", soft_wrap=True
    )


@app.command()
def exemplars(
    directory: BundleDir,
    *,
    simulated: Annotated[bool, typer.Option("--simulated", help="Moments of simulated StreamRec users.")] = False,
    movielens: Annotated[
        Path | None, typer.Option(help="Moments of MovieLens 100K: its folder.", metavar="DIR")
    ] = None,
    impressions: ImpressionsFrom = None,
    strict: Strict = False,
    histories: Annotated[int, typer.Option(min=200, help="With --simulated: how many.")] = _HISTORIES,
) -> None:
    """Put moments that at least 50 users share into a bundle, in place of those it has, for what similar moments tell.

    Of impressions of a recommender, the session of each user's newest slate is read.

    Example: whyrec models exemplars my-bundle --movielens ml-100k
    """
    import numpy as np
    from rich.console import Console

    from models.bundle import Bundle
    from models.data.slates import engagement_codes
    from models.exemplars.index import write
    from models.exemplars.prototypes import K_ANONYMOUS, prototypes
    from models.session.runtime import SessionModel

    if [simulated, movielens is not None, impressions is not None].count(True) != 1:
        raise TrainingUnavailable(
            "models exemplars needs one source: --simulated, --movielens DIR, or --impressions FILE"
        )
    bundle = Bundle.load(directory)
    if impressions is not None:
        from models.data.served import histories as served

        sessions = served(bundle, batches_of(impressions, strict=strict))
        codes = np.arange(len(bundle.engagements) + 1)
    else:
        sessions = _public(bundle, movielens, histories)
        codes = engagement_codes(bundle)
    model = SessionModel(bundle)
    console = Console()
    with console.status("moments are encoded and put together"):
        found = prototypes(
            sessions, lambda item, engaged: model.run(item, codes[engaged], without=False).vector, model.max_length
        )
    if not len(found):
        raise TrainingUnavailable(
            f"no moment of these {len(sessions):,} histories is shared by {K_ANONYMOUS} users who watched one item: "
            f"bring more histories; {directory} is left as it is"
        )
    write(directory, found)
    console.print(
        f"wrote {len(found):,} moments to {directory}, each shared by {found.users.min():,} users or more, of whom "
        f"{found.watched.min():,} or more watched the same next",
        soft_wrap=True,
        highlight=False,
    )


def _public(bundle: Bundle, movielens: Path | None, histories: int) -> Sessions:
    """Return the histories of MovieLens, or simulated ones, of the bundle's own catalogue."""
    from models.data.movielens import load
    from models.data.simulator import simulate
    from models.data.slates import require_same_catalog
    from models.plans import TRAINING_SEED

    sessions = simulate(histories, TRAINING_SEED) if movielens is None else load(movielens)
    require_same_catalog(bundle, sessions)
    return sessions


@app.command()
def selector(
    directory: BundleDir,
    *,
    simulated: Annotated[bool, typer.Option("--simulated", help="Feedback of simulated StreamRec users.")] = False,
    slates: Annotated[int, typer.Option(min=200, help="So many users are asked, about one slate each.")] = 8_000,
    exploration: Annotated[
        float, typer.Option(min=0, max=0.1, help="Share of items whose type is drawn at random among those that hold.")
    ] = 0.05,
) -> None:
    """Train which of the explanations that hold is said, for the policy "learned", and put it into a bundle.

    Example: whyrec models selector my-bundle --simulated
    """
    from rich.console import Console
    from rich.progress import Progress

    from models.bundle import Bundle, attach
    from models.plans import TRAINING_SEED
    from models.selector.train import train as train_selector
    from stream.evaluation import feedback

    if not simulated:
        raise TrainingUnavailable(
            "models selector needs one source: --simulated. A selector learns from users' answers to explanations, "
            "which impressions do not hold: serve the policy evidence, or train on answers with models.selector.train"
        )
    bundle = Bundle.load(directory)
    console = Console()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("asking", total=slates)
        answers = feedback.simulated(bundle, slates, TRAINING_SEED + 1, lambda count: progress.advance(task, count))
    found, report = train_selector(answers, exploration=exploration)
    attach(directory, found.files())
    _print_selector(console, report)
    console.print(f"wrote learned@{found.version} to {directory}; serve it with WHYREC_POLICY=learned", soft_wrap=True)


def _print_selector(console: Console, report: SelectorReport) -> None:
    from rich.table import Table

    console.print(
        f"{report.answers:,} answers of {report.users:,} users that nothing was learned from", highlight=False
    )
    table = Table("found helpful")
    table.add_column("estimate", justify="right")
    table.add_column("95 %", justify="right")
    for name, value in (("fixed order", report.fixed), ("learned", report.learned), ("difference", report.gain)):
        table.add_row(name, f"{value.mean:.3f}", f"± {value.margin:.3f}")
    console.print(table)
    console.print(f"calibration, off by {report.ece:.3f} on average", highlight=False)
    table = Table("predicted", "came")
    for predicted, came in report.reliability:
        table.add_row(f"{predicted:.3f}", f"{came:.3f}")
    console.print(table)
    if report.gain.mean <= report.gain.margin:
        console.print("[yellow]not shown to help more than the fixed order:[/] bring more feedback", highlight=False)
    drivers = ", ".join(f"{name} {size:.2f}" for name, size in report.drivers if size >= 0.01)
    console.print(f"goes by (mean absolute SHAP value): {drivers}", highlight=False, soft_wrap=True)


@app.command()
def check(
    directory: BundleDir,
    impressions: ImpressionsFrom = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Compare so many impressions at most.", metavar="N")] = None,
) -> None:
    """Try out a bundle: what fits, what does not, and why; with impressions, whether it has the scores that served.

    Exit status: 0, all fits; 1, scores of impressions differ; 2, the bundle or the impressions cannot be used.

    Example: whyrec models check my-bundle --impressions served.jsonl
    """
    from rich.console import Console

    from models.check import check as findings_of
    from stream.terminal.findings import findings_table

    findings = findings_of(directory)
    console = Console()
    console.print(findings_table(findings, str(directory)))
    if any(finding.fits is False for finding in findings):
        raise typer.Exit(2 if impressions else 1)
    if impressions is not None:
        raise typer.Exit(_compare(directory, impressions, limit, console))


def _compare(directory: Path, impressions: str, limit: int | None, console: Console) -> int:
    """Compare scores, print what differs and why, and return the exit status."""
    import pyarrow as pa

    from models.bundle import Bundle
    from stream.evaluation.diagnosis import diagnose
    from stream.kafka.impressions import read_impressions
    from stream.settings import Settings
    from stream.terminal.diagnosis import diagnosis_view

    unreadable: dict[int, str] = {}

    def batches() -> Iterator[pa.RecordBatch]:
        for part in read_impressions(impressions, Settings(), limit):
            unreadable.update(part.errors)
            yield part.batch

    found = diagnose(Bundle.load(directory), batches())
    for each in diagnosis_view(found, unreadable):
        console.print(each)
    if not found.items:
        return 2
    return 0 if found.reproduced == found.items and not unreadable and not found.rejected else 1


@app.command()
def card(directory: BundleDir) -> None:
    """Print what a bundle was trained on, how well it ranks, and what it is not for.

    Example: whyrec models card my-bundle
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from models.bundle import Bundle

    console = Console()
    text = Bundle.load(directory).card
    console.print(Markdown(text) if console.is_terminal else text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _progress(console: Console) -> Iterator[Report]:
    """Show one bar per stage of a training."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int, remark: str) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, remark="")
            progress.update(tasks[stage], completed=done, remark=remark)

        yield report

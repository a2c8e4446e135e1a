"""``whyrec models import``: a bundle from the files of a recommender that was trained elsewhere."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from schemas.errors import WhyrecError

if TYPE_CHECKING:
    from rich.console import Console

    from models.importing import Floats, ModuleSettings, SessionGraph

_MODEL, _RERANKER = "Session model", "Re-ranker"


class ImportUnavailable(WhyrecError):
    """A bundle was asked for that cannot be made from what was given."""


def import_models(
    *,
    out: Annotated[Path, typer.Option(help="Where to write the bundle: a new folder.", metavar="DIR")],
    catalog: Annotated[
        Path,
        typer.Option(
            help="The items, as .csv, .parquet or .jsonl with item_id, title, category and optionally popularity.",
            metavar="FILE",
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the bundle, by default that of the folder.")] = "",
    version: Annotated[str, typer.Option(help="Version of the bundle; impressions name it: name@version.")] = "1",
    engagements: Annotated[
        Path | None,
        typer.Option(help="The ways in which users interact with items: a JSON list.", metavar="FILE"),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            help="sasrec, gru4rec, bert4rec, two-tower or recbole, with --checkpoint.", rich_help_panel=_MODEL
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights, as torch.save wrote them.", metavar="FILE", rich_help_panel=_MODEL)
    ] = None,
    module: Annotated[
        str | None,
        typer.Option(
            help="A function that gives a torch.nn.Module.", metavar="PACKAGE.MODULE:FUNCTION", rich_help_panel=_MODEL
        ),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(
            help="A session graph, with --item-vectors and --max-length.", metavar="FILE", rich_help_panel=_MODEL
        ),
    ] = None,
    item_vectors: Annotated[
        Path | None,
        typer.Option(
            help="Item vectors, .npy, [n + 1, d], the first row for padding.", metavar="FILE", rich_help_panel=_MODEL
        ),
    ] = None,
    item_bias: Annotated[
        Path | None,
        typer.Option(
            help="Numbers that are added to the scores, .npy, [n + 1].", metavar="FILE", rich_help_panel=_MODEL
        ),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Number of newest events that are read.", rich_help_panel=_MODEL)
    ] = None,
    fixed_length: Annotated[
        int | None,
        typer.Option(min=1, help="Number of columns, if the model needs always the same.", rich_help_panel=_MODEL),
    ] = None,
    empty_session: Annotated[
        Literal["zero", "run", "unknown"] | None,
        typer.Option(
            help="What the recommender gives an empty session: the vector 0, a run on padding, or nobody knows.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    heads: Annotated[
        int | None, typer.Option(min=1, help="Attention heads, which weights do not tell.", rich_help_panel=_MODEL)
    ] = None,
    variant: Annotated[
        str, typer.Option(help="Of sasrec: original, 2020, pre-norm or post-norm.", rich_help_panel=_MODEL)
    ] = "original",
    activation: Annotated[
        str | None, typer.Option(help="Of the feed-forward blocks: relu or gelu.", rich_help_panel=_MODEL)
    ] = None,
    reranker: Annotated[
        Path | None,
        typer.Option(
            help="A LightGBM model, as Booster.save_model wrote it.", metavar="FILE", rich_help_panel=_RERANKER
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Its features, in its order: features.json.", metavar="FILE", rich_help_panel=_RERANKER),
    ] = None,
    reranker_output: Annotated[
        Literal["raw", "probability", "prediction"],
        typer.Option(help="What re-ranking scores are; prediction is what predict() gives.", rich_help_panel=_RERANKER),
    ] = "prediction",
    reranker_offset: Annotated[
        float, typer.Option(help="Number added to the raw score (init_score).", rich_help_panel=_RERANKER)
    ] = 0.0,
    feature_set: Annotated[
        str, typer.Option(help="Name of the feature list in impressions.", rich_help_panel=_RERANKER)
    ] = "",
) -> None:
    """Make a bundle of models that were trained elsewhere, and try it out; exit 1 if a check fails.

    Example: whyrec models import --family sasrec --checkpoint sasrec.pth --catalog films.csv --out films-bundle
    """
    from rich.console import Console

    from models import importing
    from models.catalog_files import read_items
    from stream.terminal.findings import findings_table

    if sum(each is not None for each in (checkpoint, module, onnx)) != 1 and family != "two-tower":
        raise ImportUnavailable(
            "models import needs one session model: --family NAME --checkpoint FILE, --module PACKAGE.MODULE:FUNCTION, "
            "or --onnx FILE --item-vectors FILE --max-length N"
        )
    if (reranker is None) != (features is None):
        raise ImportUnavailable("models import needs --reranker and --features together, or neither")
    console, start = Console(), time.monotonic()

    def report(line: str) -> None:
        console.print(f"{time.monotonic() - start:6.1f} s  {line}", highlight=False, soft_wrap=True, markup=False)

    items = read_items(catalog)
    report(f"read {len(items):,} items of {len(items.category_names) - 1:,} categories from {catalog}")
    words = () if engagements is None else importing.read_engagements(engagements)
    vectors = None if item_vectors is None else importing.read_vectors(item_vectors)
    if onnx is not None:
        if vectors is None or max_length is None:
            raise ImportUnavailable("--onnx needs --item-vectors FILE and --max-length N")
        session = importing.graph_of_file(onnx, vectors, max_length)
    else:
        settings = importing.ModuleSettings(heads, variant, activation, max_length, fixed_length)
        session = _exported(family, checkpoint, module, vectors, settings, len(words))
    session = dataclasses.replace(
        session,
        fixed_length=fixed_length or session.fixed_length,
        empty_session=empty_session or session.empty_session,
        item_bias=session.item_bias if item_bias is None else importing.read_vectors(item_bias),
    )
    report(
        f"session model: vectors of {session.item_vectors.shape[1]} dimensions, the newest {session.max_length} events"
    )
    origin = [f"session model: {onnx or module or f'{family}, {checkpoint or item_vectors}'}", f"catalogue: {catalog}"]
    trees = None
    if reranker is not None and features is not None:
        trees = importing.RerankerFiles.read(reranker, features, reranker_output, reranker_offset)
        origin.append(f"re-ranker: {reranker}, features: {features}")
        report(f"re-ranker: {len(trees.features)} features")
    name = name or out.resolve().name
    identity = importing.Identity(name, version, feature_set or (f"{name}-features" if trees else "none"), origin)
    findings = importing.import_bundle(
        out, session, items, identity=identity, reranker=trees, engagements=words, report=report
    )
    console.print(findings_table(findings, str(out)))
    _finish(console, out, f"{name}@{version}", fits=all(each.fits is not False for each in findings))


def _exported(
    family: str | None,
    checkpoint: Path | None,
    module: str | None,
    vectors: Floats | None,
    settings: ModuleSettings,
    engagements: int,
) -> SessionGraph:
    """Export the PyTorch module of a checkpoint or of a function."""
    from models import importing

    try:
        if module is not None:
            return importing.graph_of_function(module, vectors, settings, engagements)
        if checkpoint is not None:
            return importing.graph_of_checkpoint(family or "", checkpoint, settings, engagements)
        if vectors is None:
            raise ImportUnavailable("--family two-tower needs --item-vectors FILE or --checkpoint FILE")
        return importing.graph_of_average(vectors, settings)
    except ModuleNotFoundError as error:
        raise ImportUnavailable(
            f"importing PyTorch models needs the extra train, and there is no module {error.name}: in the source "
            "folder, make setup-dev, or pip install '.[train]'"
        ) from error


def _finish(console: Console, out: Path, model_version: str, *, fits: bool) -> None:
    if not fits:
        console.print(f"wrote {out}, which cannot be served yet: see what does not fit", soft_wrap=True)
        raise typer.Exit(1)
    console.print(
        f"wrote {model_version} to {out}; compare it with slates that were served: "
        f"whyrec models check {out} --impressions FILE",
        soft_wrap=True,
    )

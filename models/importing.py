"""Import of other people's models: from their files to a bundle that was tried out.

The session model comes from PyTorch (``models/adapters``, the extra ``train``) or as an ONNX file with item vectors.
The bundle is put together in a folder beside its own and moved into place only if the exported graph gives the scores
of the module; the checks of ``models/check.py`` are reported, whatever they say.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import onnx

from models.bundle import Bundle, write_bundle
from models.catalog import Catalog
from models.check import Finding, check
from models.errors import BundleError
from models.feature import Feature, read_features
from models.manifest import CONTRACT, AblationName, EmptySession, Engagement, OutputKind
from models.session.config import BLANK_EVENT

if TYPE_CHECKING:
    from models.adapters.adapted import Adapted

Floats = npt.NDArray[np.float32]
Report = Callable[[str], None]

_SUBSTITUTES: Final = 4
_CITATION_MARGIN: Final = 0.1


@dataclass(frozen=True, eq=False)
class SessionGraph:
    """A session model as it goes into a bundle.

    The fields are those of :func:`models.bundle.write_bundle`; parity compares the written graph with its source, gives
    the largest difference of two scores and raises BundleError if that is too large; None without another source.
    """

    onnx: bytes
    item_vectors: Floats
    max_length: int
    item_bias: Floats | None = None
    fixed_length: int | None = None
    empty_session: EmptySession = "unknown"
    parity: Callable[[Bundle], float] | None = None


@dataclass(frozen=True)
class ModuleSettings:
    """What weights do not tell: the settings of an adapter, each None if the family's default holds."""

    heads: int | None = None
    variant: str = "original"
    activation: str | None = None
    max_length: int | None = None
    fixed_length: int | None = None


@dataclass(frozen=True)
class RerankerFiles:
    """A re-ranker: LightGBM's text, the features in its order, and what its scores are (see Manifest)."""

    text: str
    features: Sequence[Feature]
    output: OutputKind = "prediction"
    offset: float = 0.0

    @classmethod
    def read(cls, text: Path, features: Path, output: OutputKind, offset: float) -> RerankerFiles:
        """Read the two files; raises BundleError."""
        return cls(_read(text).decode(errors="replace"), read_features(_read(features), CONTRACT), output, offset)


@dataclass(frozen=True)
class Identity:
    """What the bundle is called, and what its card says of its origin: a line per file or choice."""

    name: str
    version: str
    feature_set: str
    origin: Sequence[str] = field(default_factory=tuple)


def graph_of_checkpoint(family: str, checkpoint: Path, settings: ModuleSettings, engagements: int) -> SessionGraph:
    """Export the weights of a family of models (``models/adapters/families.py``). Raises BundleError."""
    from models.adapters.families import adapt

    adapted = adapt(
        family,
        checkpoint,
        heads=settings.heads,
        variant=settings.variant,
        activation=settings.activation,
        max_length=settings.max_length,
    )
    return _graph_of(adapted, settings, engagements)


def graph_of_function(
    reference: str, item_vectors: Floats | None, settings: ModuleSettings, engagements: int
) -> SessionGraph:
    """Export the module that a function gives, ``package.module:function``. Raises BundleError."""
    from models.adapters.families import module_of

    return _graph_of(module_of(reference, item_vectors, settings.max_length), settings, engagements)


def graph_of_average(item_vectors: Floats, settings: ModuleSettings) -> SessionGraph:
    """Export the two-tower average of item vectors [n + 1, d]. Raises BundleError."""
    from models.adapters.families import average_of

    return _graph_of(average_of(item_vectors, settings.max_length), settings, 0)


def _graph_of(adapted: Adapted, settings: ModuleSettings, engagements: int) -> SessionGraph:
    from models.adapters.export import export, require_parity

    if settings.fixed_length is not None:
        adapted = replace(adapted, fixed_length=settings.fixed_length)
    graph, complaints = export(adapted, max(1, engagements))
    return SessionGraph(
        graph,
        adapted.item_vectors,
        adapted.max_length,
        adapted.item_bias,
        adapted.fixed_length,
        adapted.empty_session,
        lambda bundle: require_parity(adapted, bundle, complaints),
    )


def graph_of_file(path: Path, item_vectors: Floats, max_length: int) -> SessionGraph:
    """Read an ONNX file, with the weights that it keeps in files beside it. Raises BundleError."""
    try:
        model = onnx.load(path)
    except Exception as error:
        raise BundleError(
            f"{path}: expected an ONNX file with its external weights beside it, got {type(error).__name__}: {error}."
        ) from error
    return SessionGraph(bytes(model.SerializeToString()), item_vectors, max_length)


def read_vectors(path: Path) -> Floats:
    """Read item vectors [n + 1, d], or item biases [n + 1], from a ``.npy`` file; row 0, of padding, becomes zero."""
    try:
        array = np.load(io.BytesIO(_read(path)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise BundleError(f"{path}: expected an array of numpy.save, got {error}: save it again.") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.ndim > 2 or not array.size:
        raise BundleError(f"{path}: expected an array of real numbers, one row per item after the row of padding.")
    vectors = array.astype(np.float32)
    vectors[0] = 0
    return vectors


def read_engagements(path: Path) -> tuple[Engagement, ...]:
    """Read a JSON list of engagements: names, or objects of name, role and verbs. Raises BundleError."""
    try:
        records = json.loads(_read(path))
        return tuple(Engagement(each) if isinstance(each, str) else Engagement(**each) for each in records)
    except (ValueError, TypeError) as error:
        raise BundleError(
            f'{path}: expected a JSON list such as [{{"name": "play", "role": "positive", "verbs": {{"en": "played '
            f'{{titles}}"}}}}], got {error}: correct it.'
        ) from error


def import_bundle(
    directory: Path,
    session: SessionGraph,
    catalog: Catalog,
    *,
    identity: Identity,
    reranker: RerankerFiles | None = None,
    engagements: Sequence[Engagement] = (),
    report: Report = lambda _: None,
) -> list[Finding]:
    """Write a bundle into a new folder, and return what the checks of bundles find.

    Citations are confirmed by deletion and by every other ablation that the graph allows; by substitution of the most
    popular items where it allows no other.

    Raises:
        BundleError: the parts do not fit together, or the exported graph gives other scores than the module. Nothing
            is left of the bundle then.

    """
    if directory.exists() and any(directory.iterdir()):
        raise BundleError(f"--out {directory}: expected a new folder, got one with files: name another.")
    items = len(session.item_vectors) - 1
    if items != len(catalog):
        raise BundleError(
            f"catalogue: expected {items:,} items, as many as there are item vectors after the row of padding, got "
            f"{len(catalog):,}: give every item of the session model one row, in the order of the model's item indices "
            "or with these in a column item_index."
        )
    if not engagements and "engagement_index" in _inputs_and_outputs(session.onnx):
        raise BundleError(
            "session model: expected the names of the engagements that it reads, got none: list them, in the order of "
            "their indices from 1, in a file and give it with --engagements."
        )
    ablations = _ablations(session.onnx)
    substitutes: Sequence[str] = ()
    if len(ablations) == 1 and catalog.popularity.any():
        ablations, substitutes = (*ablations, "substitution"), _most_popular(catalog)
    incoming = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(incoming, ignore_errors=True)
    try:
        bundle = write_bundle(
            incoming,
            name=identity.name,
            version=identity.version,
            session_onnx=session.onnx,
            item_vectors=session.item_vectors,
            item_bias=session.item_bias,
            catalog=catalog,
            reranker_text=None if reranker is None else reranker.text,
            features=() if reranker is None else reranker.features,
            reranker_output="raw" if reranker is None else reranker.output,
            reranker_offset=0.0 if reranker is None else reranker.offset,
            engagements=engagements,
            card=_card(identity),
            feature_set=identity.feature_set,
            max_length=session.max_length,
            fixed_length=session.fixed_length,
            empty_session=session.empty_session,
            ablations=ablations,
            substitutes=substitutes,
            citation_margin=_CITATION_MARGIN,
        )
        report(f"wrote {len(bundle.manifest.files)} files; citations must survive {', '.join(ablations)}")
        if session.parity is not None:
            difference = session.parity(bundle)
            report(f"the exported graph gives the module's scores within {difference:.1e}")
        findings = check(incoming)
        report(f"{sum(each.fits is not None for each in findings)} checks were run")
        if directory.exists():
            directory.rmdir()
        incoming.rename(directory)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return findings


def _ablations(graph: bytes) -> tuple[AblationName, ...]:
    """List deletion and what else a graph allows."""
    allowed: list[AblationName] = ["deletion"]
    if any(each.key == BLANK_EVENT for each in onnx.load_from_string(graph).metadata_props):
        allowed.append("blanking")
    if _inputs_and_outputs(graph) & {"event_mask", "without"}:
        allowed.append("masking")
    return tuple(allowed)


def _inputs_and_outputs(graph: bytes) -> set[str]:
    read = onnx.load_from_string(graph).graph
    return {each.name for each in (*read.input, *read.output)}


def _most_popular(catalog: Catalog) -> tuple[str, ...]:
    best = np.argsort(-catalog.popularity[1:], kind="stable")[:_SUBSTITUTES]
    return tuple(catalog.item_ids[index] for index in best)


def _card(identity: Identity) -> str:
    lines = "\n".join(f"- {line}" for line in identity.origin)
    return (
        f"# {identity.name}@{identity.version}\n\nImported from its owner's files; whyrec trained no part of it.\n\n"
        f"## Origin\n\n{lines}\n\n## Limits\n\nThe citation margin is {_CITATION_MARGIN:g} of the spread of session "
        "scores and was not calibrated. Ranking was not evaluated.\n"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: expected a file, got {error.strerror}: correct the path.") from error

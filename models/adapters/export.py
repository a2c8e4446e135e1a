"""Export of a PyTorch module to the ONNX graph of a bundle, with free batch and length.

The module is traced (``torch.onnx.export(dynamo=False)``). A trace holds the numbers that Python or numpy computed for
the example as constants, so the graph of a module that leaves PyTorch in ``forward`` is right for that example alone.
:func:`require_parity` runs graph and module on sessions of other lengths, and names the lines of the module that the
tracer complained about.
"""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from models.adapters.adapted import Adapted
from models.adapters.attention import with_free_length
from models.bundle import Bundle
from models.errors import BundleError
from models.session.config import BLANK_EVENT
from models.session.runtime import SessionModel, left_pad

Ints = npt.NDArray[np.int64]

OPSET: Final = 20
INPUTS: Final = ("item_index", "engagement_index", "event_mask", "want_estimate")
_OUTPUTS: Final = ("session_vector", "attention", "without_estimate")
_CONSTANTS: Final = (
    "Where the module computes with Python numbers or numpy, the graph keeps the numbers of an example: let it compute "
    "with PyTorch's operations on its inputs."
)
_TOLERANCE: Final = 1e-4
"""Largest difference of two scores, in their spread over the items: ten times what float32 rounds off."""


def export(adapted: Adapted, engagements: int = 1) -> tuple[bytes, tuple[str, ...]]:
    """Export a module; return the graph and what the tracer complained about, which is empty for most.

    Args:
        adapted: the module and what is known about it.
        engagements: number of engagements, for a module that reads them.

    Raises:
        BundleError: the module's inputs are not those of the session graph, or it cannot be traced.

    """
    module, names = with_free_length(adapted.module.eval()), input_names(adapted.module)
    length = adapted.fixed_length or min(3, adapted.max_length)
    example = _inputs(names, _random_items(len(adapted.item_vectors) - 1, [length, length]), engagements)
    free = {0: "batch"} if adapted.fixed_length else {0: "batch", 1: "length"}
    buffer = io.BytesIO()
    try:
        with torch.inference_mode():
            made = module(*example)
            outputs = _OUTPUTS[: 1 if isinstance(made, Tensor) else len(made)]
        axes = {name: free for name in names if name != INPUTS[3]} | {"session_vector": {0: "batch"}}
        if "without_estimate" in outputs:
            axes["without_estimate"] = {0: "asked"} if adapted.fixed_length else {0: "asked", 1: "length"}
        if "attention" in outputs:
            axes["attention"] = {0: "batch"} if adapted.fixed_length else {0: "batch", 3: "length"}
        with warnings.catch_warnings(record=True) as complaints:
            warnings.simplefilter("always")
            torch.onnx.export(
                module,
                example,
                buffer,
                input_names=list(names),
                output_names=list(outputs),
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:
        raise BundleError(
            f"export: expected a module that torch.onnx.export can trace on {', '.join(names)} {[2, length]}, got "
            f"{type(error).__name__}: {error}: see docs/bring-your-own.md for modules that need a change."
        ) from error
    graph = _finished(buffer.getvalue(), names, has_blank_event=adapted.has_blank_event)
    lines = dict.fromkeys(f"{each.filename}:{each.lineno}: {_first_sentence(str(each.message))}" for each in complaints
                          if issubclass(each.category, torch.jit.TracerWarning))  # fmt: skip
    return graph, tuple(lines)


def input_names(module: nn.Module) -> tuple[str, ...]:
    """Name the inputs of a module's ``forward``; the only parameter of a module is the items, whatever its name."""
    names = tuple(inspect.signature(module.forward).parameters)
    if len(names) == 1:
        return INPUTS[:1]
    if INPUTS[0] not in names or not set(names) <= set(INPUTS):
        raise BundleError(
            f"export: expected a module whose forward takes {INPUTS[0]} and optionally {' and '.join(INPUTS[1:])}, got "
            f"{', '.join(names)}: wrap it in a module with these parameters."
        )
    return names


def require_parity(adapted: Adapted, bundle: Bundle, complaints: Sequence[str] = ()) -> float:
    """Run a module and the graph of its bundle on the same sessions; return the largest difference of two scores.

    The sessions have 1, 2, max_length - 1 and max_length events, and the newest max_length out of twice as many. The
    module reads each of them by itself, without padding, the graph together and padded as the service pads them.

    Raises:
        BundleError: the graph does not run on them, or the scores differ by more than float32 rounds. complaints, of
            the tracer, are shown then.

    """
    width = adapted.max_length
    lengths = sorted({1, min(2, width), max(1, width - 1), width, 2 * width})
    sessions = _random_items(len(adapted.item_vectors) - 1, lengths)
    items, kinds = left_pad(sessions, width), max(1, len(bundle.manifest.engagements))
    lines = "".join(f"\n  {line}" for line in complaints)
    traced = f" The tracer names these lines of the module:{lines}" if lines else ""
    try:
        got = SessionModel(bundle).run(items, _engagements(items, kinds), without=False).vector
    except BundleError as error:
        raise BundleError(f"{error} {_CONSTANTS}{traced}") from error
    names = input_names(adapted.module)
    expected = np.concatenate([_vector(adapted, names, session[-width:], kinds) for session in sessions])
    scores = expected @ adapted.item_vectors[1:].T
    difference = np.abs(got @ adapted.item_vectors[1:].T - scores).max(axis=1)
    spread = float(scores.std(axis=1).mean()) or 1.0
    wrong = [length for length, each in zip(lengths, difference, strict=True) if not each <= _TOLERANCE * spread]
    if wrong:
        raise BundleError(
            f"export: expected the graph to give the scores of the module, got scores that differ by up to "
            f"{difference.max():.2g} (their spread is {spread:.2g}) for sessions of {', '.join(map(str, wrong))} "
            f"events: let the module mask padding, or give a fixed length. {_CONSTANTS}{traced}"
        )
    return float(difference.max())


def _vector(adapted: Adapted, names: Sequence[str], session: Ints, engagements: int) -> npt.NDArray[np.float32]:
    """Let the module read one session, without padding unless it has a fixed length: float32 [1, d]."""
    items = np.pad(session, ((adapted.fixed_length or len(session)) - len(session), 0))
    with torch.inference_mode():
        output = adapted.module(*_inputs(names, items[None], engagements))
    vector = output if isinstance(output, Tensor) else output[0]
    return np.asarray(vector.numpy(), dtype=np.float32)


def _inputs(names: Sequence[str], items: Sequence[Ints] | Ints, engagements: int) -> tuple[Tensor, ...]:
    """Return the inputs of these names for items [B, L], with all events unmasked and an estimate wanted."""
    index = np.stack(list(items))
    arrays = (index, _engagements(index, engagements), np.ones(index.shape, np.bool_), np.array([True]))
    made = dict(zip(INPUTS, map(torch.from_numpy, arrays), strict=True))
    made[INPUTS[3]] = made[INPUTS[3]].squeeze()
    return tuple(made[name] for name in names)


def _engagements(items: Ints, engagements: int) -> Ints:
    """Give every item an engagement, the same wherever it stands, and padding none."""
    return np.where(items > 0, 1 + items % engagements, 0)


def _random_items(items: int, lengths: Sequence[int]) -> list[Ints]:
    random = np.random.default_rng(0)
    return [random.integers(1, items + 1, length) for length in lengths]


def _finished(graph: bytes, names: Sequence[str], *, has_blank_event: bool) -> bytes:
    """Check that the graph reads every input, and note the blank event."""
    model = onnx.load_from_string(graph)
    kept = {each.name for each in model.graph.input}
    if lost := [name for name in names if name not in kept]:
        raise BundleError(
            f"export: expected session vectors that depend on {', '.join(names)}, got a graph without "
            f"{', '.join(lost)}: the module leaves PyTorch in forward (for example by numpy or by .item()); let it "
            "compute with PyTorch's operations on its inputs."
        )
    if has_blank_event:
        helper.set_model_props(model, {BLANK_EVENT: "1"})
    return bytes(model.SerializeToString())


def _first_sentence(text: str) -> str:
    return text.split(". ", maxsplit=1)[0]

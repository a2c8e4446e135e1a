"""The families of session models that can be imported by name, and modules of one's own."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Final, cast, get_args

import numpy as np
import torch
from torch import nn

from models.adapters.adapted import Adapted, Floats
from models.adapters.bert4rec import bert4rec
from models.adapters.checkpoint import read_checkpoint
from models.adapters.gru4rec import gru4rec
from models.adapters.recbole import recbole
from models.adapters.sasrec import Activation, Variant, sasrec
from models.adapters.two_tower import two_tower
from models.errors import BundleError

FAMILIES: Final = ("sasrec", "gru4rec", "bert4rec", "two-tower", "recbole")

_DEFAULT_MAX_LENGTH: Final = 50
"""Of models that read any number of events."""


def adapt(
    family: str,
    checkpoint: Path,
    *,
    heads: int | None = None,
    variant: str = "original",
    activation: str | None = None,
    max_length: int | None = None,
) -> Adapted:
    """Read a checkpoint of a family; settings that it does not state are those given, or the family's defaults.

    Raises:
        BundleError: the checkpoint is of another family, or the settings do not fit it.

    """
    weights, settings = read_checkpoint(checkpoint)
    read = max_length or _DEFAULT_MAX_LENGTH
    if family == "sasrec":
        if (activation or "relu") not in get_args(Activation):
            raise BundleError(f"--activation: expected {' or '.join(get_args(Activation))}, got {activation}.")
        chosen = cast("Activation", activation or "relu")
        adapted = sasrec(weights, heads=heads or 1, variant=cast("Variant", variant), activation=chosen)
    elif family == "bert4rec":
        if heads is None:
            raise BundleError("--heads: expected the number of heads of the BERT4Rec, which its weights do not tell.")
        adapted = bert4rec(weights, heads=heads)
    elif family == "recbole":
        stated = {"n_heads": heads, "hidden_act": activation, "MAX_ITEM_LIST_LENGTH": max_length}
        adapted = recbole(weights, settings | {name: value for name, value in stated.items() if value is not None})
    elif family in {"gru4rec", "two-tower"}:
        adapted = (gru4rec if family == "gru4rec" else two_tower)(weights, max_length=read)
    else:
        raise BundleError(f"--family: expected one of {', '.join(FAMILIES)}, got {family}.")
    return with_length(adapted, max_length)


def with_length(adapted: Adapted, max_length: int | None) -> Adapted:
    """Let a model read fewer events than it can."""
    if max_length is None or max_length == adapted.max_length:
        return adapted
    if max_length > adapted.max_length:
        raise BundleError(
            f"--max-length: expected at most {adapted.max_length}, the number of events that the model can read, got "
            f"{max_length}: lower it."
        )
    return dataclasses.replace(adapted, max_length=max_length)


def average_of(item_vectors: Floats, max_length: int | None) -> Adapted:
    """Return the two-tower average of item vectors [n + 1, d]."""
    return two_tower({"items": torch.from_numpy(item_vectors.copy())}, max_length=max_length or _DEFAULT_MAX_LENGTH)


def module_of(reference: str, item_vectors: Floats | None, max_length: int | None) -> Adapted:
    """Call ``package.module:function``, which gives an ``nn.Module`` or an Adapted; see docs/bring-your-own.md.

    Modules are found from the current folder, too.

    Raises:
        BundleError: there is no such function, it gives something else, or item vectors or max_length are missing.

    """
    module_name, _, function_name = reference.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BundleError(
            f"--module {reference}: expected PACKAGE.MODULE:FUNCTION that can be imported, got {error}: run the "
            "command in the folder of the package, or install the package."
        ) from error
    made = function()
    if isinstance(made, Adapted):
        return with_length(made, max_length)
    if not isinstance(made, nn.Module):
        raise BundleError(
            f"--module {reference}: expected a function that gives a torch.nn.Module, got a {type(made).__name__}."
        )
    if item_vectors is None or max_length is None:
        raise BundleError(
            f"--module {reference}: expected --item-vectors and --max-length beside a torch.nn.Module: give both, or "
            "let the function give a models.adapters.adapted.Adapted, which holds them."
        )
    vectors = np.array(item_vectors, dtype=np.float32)
    vectors[0] = 0
    return Adapted(made, vectors, max_length)

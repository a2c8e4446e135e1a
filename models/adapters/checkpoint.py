"""Reading checkpoints without running what they contain.

A checkpoint is a pickle, which may run any code when it is read. Here only what tensors are made of is loaded; any
other object, such as the configuration that RecBole stores, becomes a record of its attributes. Neither the code that
wrote the checkpoint nor its packages are needed.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor

from models.errors import BundleError

_LOADED: Final = frozenset(
    {
        ("collections", "OrderedDict"),
        ("torch", "Size"),
        ("torch", "device"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch.nn.parameter", "Parameter"),
        ("torch.serialization", "_get_layout"),
    }
)
_NESTED: Final = ("state_dict", "model_state_dict", "model")
"""Keys under which trainers store the weights."""


class Record:
    """An object of a class that is not loaded: its attributes, without its behaviour."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            vars(self).update(state)

    def __setitem__(self, key: Any, value: Any) -> None:
        vars(self)[str(key)] = value

    def append(self, _: Any) -> None:
        """Accept the elements of a list that is not loaded."""

    def extend(self, _: Any) -> None:
        """Accept the elements of a list that is not loaded."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_storage = module in {"torch", "torch.storage"} and name.endswith("Storage")
        is_type = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if (module, name) in _LOADED or is_storage or is_type:
            return super().find_class(module, name)
        return type(name, (Record,), {"__module__": module})


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights of a checkpoint, and the settings that it states; both by name.

    The weights are the whole checkpoint, or its entry state_dict, model_state_dict or model. Settings are the entry
    ``config``, such as RecBole stores it. All tensors come to the CPU.

    Raises:
        BundleError: the file is no checkpoint of torch.save, or holds no state dict.

    """
    restricted = ModuleType("restricted")
    restricted.Unpickler = _Unpickler  # type: ignore[attr-defined]
    restricted.load = lambda file, **options: _Unpickler(file, **options).load()  # type: ignore[attr-defined]
    try:
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=restricted)
    except OSError as error:
        raise BundleError(f"{path}: expected a checkpoint, got {error.strerror}: correct the path.") from error
    except Exception as error:
        raise BundleError(
            f"{path}: expected a file of torch.save, got {type(error).__name__}: {error}: save the model's "
            "state_dict() with torch.save."
        ) from error
    weights = content
    while isinstance(weights, Mapping) and (inner := next((weights[key] for key in _NESTED if key in weights), None)):
        weights = inner
    tensors = {name: each.detach() for name, each in weights.items() if isinstance(each, Tensor)} if isinstance(
        weights, Mapping
    ) else {}  # fmt: skip
    if not tensors:
        found = f"an object of class {type(weights).__name__}" if isinstance(weights, Record) else "something else"
        raise BundleError(
            f"{path}: expected a state dict, or one under {', '.join(_NESTED)}, got {found}: save the model's "
            "state_dict() with torch.save, or bring the module itself with --module."
        )
    settings = content.get("config", {}) if content is not weights else {}
    return tensors, _plain(settings)


def _plain(settings: Any) -> dict[str, Any]:
    """Flatten a configuration, whether it is a mapping or an object that holds some."""
    values = vars(settings) if isinstance(settings, Record) else settings
    if not isinstance(values, Mapping):
        return {}
    inner = values.get("final_config_dict")
    return dict(inner) if isinstance(inner, Mapping) else dict(values)

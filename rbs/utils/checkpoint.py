"""Weight files: safetensors with what built them, and modules built again from class path and arguments."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import rbs
from rbs.errors import CheckpointError
from rbs.utils.files import whole_file

KEY = "rbs"


_Module = TypeVar("_Module", bound=nn.Module)


RETRAIN = "name a .safetensors or .ckpt file that rbs wrote"


def save_modules(path: str | Path, modules: dict[str, nn.Module], description: dict[str, Any]) -> None:
    """Write the weights of `modules`, names prefixed by their key and a dot, with a JSON `description`."""
    tensors = {
        f"{prefix}.{name}".lstrip("."): tensor.detach().cpu().contiguous()
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    metadata = {KEY: json.dumps({**description, "version": rbs.__version__}, sort_keys=True)}
    with whole_file(path, overwrite=True) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a file of `save_modules`.

    Raises:
        CheckpointError: The file is missing, truncated, or does not say what it holds.
    """
    if not file.is_file():
        raise CheckpointError("there is no such weight file", file=file, remedy="check the path")
    try:
        with safe_open(file, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            metadata = content.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"it is truncated or not a safetensors file ({error})", file=file, remedy=RETRAIN
        ) from None
    try:
        description = json.loads(metadata[KEY])
    except (KeyError, ValueError):
        description = None
    if not isinstance(description, dict):
        raise CheckpointError("it does not say which restorer it holds", file=file, remedy=RETRAIN)
    return tensors, description


def build_from(description: dict[str, Any], kind: type[_Module], file: Path) -> _Module:
    """An untrained module from its class path. Nothing but a subclass of `kind` is ever called.

    Args:
        description: {"class_path": ..., "init_args": {...}}, and the version of rbs that wrote it.
        kind: What it must be.
        file: Where that stands.

    Raises:
        CheckpointError: It cannot be imported or built, or is something else.
    """
    path = str(description.get("class_path", ""))
    module, _, name = path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        remedy = "install the package that defines it"
        raise CheckpointError(f"its class {path!r} cannot be imported", file=file, remedy=remedy) from None
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        raise CheckpointError(f"{path!r} is not a {kind.__name__.lower()}", file=file, remedy=RETRAIN)
    try:
        return cls(**description.get("init_args", {}))
    except (TypeError, ValueError) as error:
        remedy = (
            f"it was written by rbs {description.get('version', 'unknown')}: use that version, or train again"
        )
        raise CheckpointError(f"{path} cannot be built from it ({error})", file=file, remedy=remedy) from None


def load_into(module: nn.Module, tensors: dict[str, Tensor], file: Path) -> None:
    """Load weights that must match to the last name and shape.

    Raises:
        CheckpointError: They do not; the names are given.
    """
    expected = module.state_dict()
    faults = [
        _listed("missing", expected.keys() - tensors.keys()),
        _listed("unexpected", tensors.keys() - expected.keys()),
        _listed(
            "misshapen",
            {n for n in expected.keys() & tensors.keys() if expected[n].shape != tensors[n].shape},
        ),
    ]
    if any(faults):
        fault = f"it holds another architecture than {type(module).__name__}: " + ", ".join(
            filter(None, faults)
        )
        raise CheckpointError(fault, file=file, remedy=RETRAIN)
    module.load_state_dict(tensors)


def _listed(kind: str, names: set[str]) -> str:
    shown = " ".join(sorted(names)[:3]) + (" ..." if len(names) > 3 else "")
    return f"{len(names)} {kind} ({shown})" if names else ""


def describe(thing: Any) -> dict[str, Any]:
    """Class path and arguments of an object that keeps each constructor argument under its own name."""
    cls = type(thing)
    names = list(inspect.signature(cls.__init__).parameters)[1:]
    return {
        "class_path": f"{cls.__module__}.{cls.__qualname__}",
        "init_args": {n: getattr(thing, n) for n in names},
    }

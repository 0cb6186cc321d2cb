"""Weight files: safetensors with a description, and modules built from class path and arguments."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rbs.errors import CheckpointError
from rbs.utils.allowlist import allowed
from rbs.utils.files import whole_file
from rbs.utils.version import VERSION

_Module = TypeVar("_Module", bound=nn.Module)

KEY = "rbs"
"""Name of the description in the metadata of a file."""

RETRAIN = "name a .safetensors or .ckpt file that rbs wrote"


def save_modules(path: str | Path, modules: dict[str, nn.Module], description: dict[str, Any]) -> None:
    """Write the weights of `modules`, each name after its key and a dot, and a description."""
    tensors = {
        f"{prefix}.{name}".lstrip("."): tensor.detach().cpu().contiguous()
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    metadata = {KEY: json.dumps({**description, "version": VERSION}, sort_keys=True)}
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


def build_from(spec: dict[str, Any], kind: type[_Module], file: Path, version: object) -> _Module:
    """Build an untrained module from its class path, which must be on the list of allowed ones.

    Allowed are the package in which `kind` is defined and those of `rbs.utils.allowlist`; nothing
    else is imported, and only a subclass of `kind` is called.

    Args:
        spec: {"class_path": ..., "init_args": {...}}.
        kind: Class that the module must have.
        file: File that holds `spec`.
        version: Version of rbs that wrote the file.

    Raises:
        CheckpointError: The class is not allowed, unknown, no subclass of `kind`, or takes other
            arguments.
    """
    path = str(spec.get("class_path", ""))
    module, _, name = path.rpartition(".")
    rewrite = f"it was written by rbs {version}: use that version, or train again"
    home = kind.__module__.rpartition(".")[0]
    if module.startswith("rbs.") and not _within(module, [home]):
        fault = f"its class {path!r} is no {kind.__name__} of rbs {VERSION}"
        raise CheckpointError(fault, file=file, remedy=rewrite)
    if not _within(module, [home, *allowed()]):
        fault = f"its class {path!r} is not of rbs, and files may not import other packages"
        remedy = f"if you trust that package, allow it with --allow {path.partition('.')[0]}"
        raise CheckpointError(fault, file=file, remedy=remedy)
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        remedy = rewrite if _within(module, [home]) else "install the package that defines it"
        raise CheckpointError(
            f"its class {path!r} cannot be imported ({error})", file=file, remedy=remedy
        ) from None
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        raise CheckpointError(f"its class {path!r} is no {kind.__name__}", file=file, remedy=RETRAIN)
    try:
        return cls(**spec.get("init_args", {}))
    except (TypeError, ValueError) as error:
        fault = f"{path} cannot be built from its arguments ({error})"
        raise CheckpointError(fault, file=file, remedy=rewrite) from None


def _within(module: str, packages: list[str]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


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
    """Class path and arguments of an object that keeps its constructor arguments by name."""
    cls = type(thing)
    names = list(inspect.signature(cls.__init__).parameters)[1:]
    return {
        "class_path": f"{cls.__module__}.{cls.__qualname__}",
        "init_args": {n: getattr(thing, n) for n in names},
    }

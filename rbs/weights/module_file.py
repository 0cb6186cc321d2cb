"""Weight files of one module: read, checked against their card, and built again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import nn

from rbs.errors import CheckpointError
from rbs.utils.checkpoint import RETRAIN, build_from, load_into, read_safetensors
from rbs.weights.shipped import check_recorded, file_sha256

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class ModuleFile(Generic[_Module]):
    """A module from a weight file.

    Attributes:
        module: In evaluation mode, frozen, on the CPU.
        name: Its class and the file it came from.
        version: Version of rbs that wrote the file.
        sha256: Of the file, hexadecimal.
        provenance: Record of its making.
    """

    module: _Module
    name: str
    version: str = "unknown"
    sha256: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)


def read_module(path: str | Path, kind: type[_Module], missing: str) -> ModuleFile[_Module]:
    """Read the module of a file of `rbs.utils.checkpoint.save_modules`.

    Args:
        path: The file.
        kind: Class that the module must have.
        missing: Remedy where there is no such file.

    Raises:
        CheckpointError: The file is missing, truncated or damaged, differs from its card, or holds
            something else.
    """
    file = Path(path)
    sha256 = file_sha256(file, missing)
    check_recorded(file, sha256)
    tensors, description = read_safetensors(file)
    if not description.class_path:
        raise CheckpointError(f"it holds no {kind.__name__}", file=file, remedy=RETRAIN)
    spec = {"class_path": description.class_path, "init_args": description.init_args}
    module = build_from(spec, kind, file, description.version, tensors)
    load_into(module, tensors, file)
    name = f"{type(module).__name__} {file.name}"
    module.requires_grad_(False).eval()
    return ModuleFile(module, name, description.version, sha256, description.provenance)

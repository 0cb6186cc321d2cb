"""Weight files: safetensors with a description, and modules built from class path and arguments."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rbs.errors import CheckpointError
from rbs.utils.allowlist import allowed
from rbs.utils.description import KEY, Spec, WeightsDescription
from rbs.utils.files import whole_file
from rbs.utils.schema import checked, parsed, require_types, shown
from rbs.utils.version import VERSION

_Module = TypeVar("_Module", bound=nn.Module)

RETRAIN = "name a .safetensors or .ckpt file that rbs wrote"
COPY_AGAIN = "copy it again, or use another file"

LONGEST_HEADER = 2**24
"""Bytes of a safetensors header; the largest SAM needs 2**17."""

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
"""Types of weights."""


def save_modules(path: str | Path, modules: dict[str, nn.Module], description: dict[str, Any]) -> None:
    """Write the weights of `modules`, each name after its key and a dot, and a description.

    The description records the version of rbs and a digest, by which `read_safetensors` knows
    damage.
    """
    tensors = {
        f"{prefix}.{name}".lstrip("."): tensor.detach().cpu().contiguous()
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    described = json.loads(json.dumps({**description, "version": VERSION}))
    described["digest"] = digest_of(tensors, described)
    with whole_file(path, overwrite=True) as temporary:
        save_file(tensors, temporary, metadata={KEY: json.dumps(described, sort_keys=True)})


def digest_of(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> str:
    """SHA-256 of tensors, their names, types and shapes, and of a description, hexadecimal."""
    known = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        known.update(f"{name!r} {tensor.dtype} {list(tensor.shape)}".encode())
        known.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return known.hexdigest()


def read_safetensors(file: Path) -> tuple[dict[str, Tensor], WeightsDescription]:
    """Tensors and description of a file of `save_modules`.

    Raises:
        CheckpointError: The file is missing, truncated, does not say what it holds, or is not what
            was written.
    """
    tensors, metadata = read_tensors(file)
    try:
        values = parsed(metadata[KEY])
        description = checked(WeightsDescription, values)
    except KeyError:
        fault = "it does not say which restorer it holds"
        raise CheckpointError(fault, file=file, remedy=RETRAIN) from None
    except ValueError as error:
        fault = f"it does not say which restorer it holds in a way that rbs {VERSION} knows ({error})"
        raise CheckpointError(fault, file=file, remedy=RETRAIN) from None
    if description.digest is not None and values.pop("digest") != digest_of(tensors, values):
        fault = "it is damaged: its weights or its description are not those that were written"
        raise CheckpointError(fault, file=file, remedy=COPY_AGAIN)
    return tensors, description


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of any safetensors file.

    Raises:
        CheckpointError: The file is missing or truncated.
    """
    if not file.is_file():
        raise CheckpointError("there is no such weight file", file=file, remedy="check the path")
    try:
        with file.open("rb") as stream:
            # The library parses a header of up to 100 MB, which takes a hundred times that memory.
            if int.from_bytes(stream.read(8), "little") > LONGEST_HEADER:
                raise SafetensorError("header too large")
        with safe_open(file, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            return tensors, content.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        fault = f"it is truncated or not a safetensors file ({one_line(error)})"
        raise CheckpointError(fault, file=file, remedy=RETRAIN) from None


def one_line(error: BaseException) -> str:
    """The message of a library's error, as a part of a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return shown(text)[1:-1] if len(text) <= 40 else ascii(text[:120])[1:-1]


class Budget(TorchFunctionMode):
    """Stops the making of modules that are far larger than the weights a file holds for them.

    A file of a few bytes can ask for a network of any width and depth. No more than a few times as
    many tensors and elements are allocated as the file has.

    Args:
        tensors: All tensors of the file.

    Raises:
        ValueError: Within the context: there are more.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.tensors = 8 * len(tensors) + 1000
        self.elements = 8 * sum(tensor.numel() for tensor in tensors.values()) + 2**22

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Count what a function that makes tensors is about to allocate."""
        kwargs = kwargs or {}
        if func in _MAKERS:
            self.tensors -= 1
            self.elements -= func(*args, **{**kwargs, "device": "meta"}).numel()
            if min(self.tensors, self.elements) < 0:
                raise ValueError("they ask for a far larger network than it holds weights of")
        return func(*args, **kwargs)


_MAKERS = {
    *(torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn),
    *(torch.arange, torch.linspace, torch.eye, torch.hann_window),
}


def build_from(
    spec: dict[str, Any], kind: type[_Module], file: Path, version: str, tensors: Mapping[str, Tensor]
) -> _Module:
    """Build an untrained module from its class path, which must be on the list of allowed ones.

    Allowed are the package in which `kind` is defined and those of `rbs.utils.allowlist`; nothing
    else is imported, and only a subclass of `kind` is called, with arguments of the types that it
    asks for.

    Args:
        spec: {"class_path": ..., "init_args": {...}}.
        kind: Class that the module must have.
        file: File that holds `spec`.
        version: Version of rbs that wrote the file.
        tensors: The tensors of the file, which limit the size of the module.

    Raises:
        CheckpointError: The class is not allowed, unknown, no subclass of `kind`, or takes other
            arguments.
    """
    rewrite = f"it was written by rbs {version}: use that version, or train again"
    try:
        wanted = checked(Spec, spec)
    except ValueError as error:
        fault = f"its description of a {kind.__name__} cannot be used ({error})"
        raise CheckpointError(fault, file=file, remedy=RETRAIN) from None
    cls = _class(wanted.class_path, kind, file, rewrite)
    try:
        require_types(wanted.init_args, _hints(cls))
        with Budget(tensors):
            return cls(**wanted.init_args)
    except Exception as error:  # a constructor may raise anything on values it was not made for
        fault = f"{wanted.class_path} cannot be built from its arguments ({one_line(error)})"
        raise CheckpointError(fault, file=file, remedy=rewrite) from None


def _class(path: str, kind: type[_Module], file: Path, rewrite: str) -> type[_Module]:
    module, _, name = path.rpartition(".")
    home = kind.__module__.rpartition(".")[0]
    if len(path) > 200 or not all(part.isidentifier() for part in path.split(".")):
        raise CheckpointError(f"its class {shown(path)} is no {kind.__name__}", file=file, remedy=RETRAIN)
    if _within(module, ["rbs"]) and not _within(module, [home]):
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
    return cls


def _within(module: str, packages: list[str]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def _hints(cls: type) -> dict[str, Any]:
    """Type hints of a constructor; none where they name what only type checkers import."""
    try:
        return get_type_hints(cls.__init__)  # type: ignore[misc]
    except (NameError, AttributeError, TypeError):
        return {}


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Load weights that must match to the last name and shape.

    Raises:
        CheckpointError: They do not, the names are given; or `require_weights` refuses them.
    """
    expected = module.state_dict()
    faults = [
        listed("missing", expected.keys() - tensors.keys()),
        listed("unexpected", tensors.keys() - expected.keys()),
        listed(
            "misshapen",
            {n for n in expected.keys() & tensors.keys() if expected[n].shape != tensors[n].shape},
        ),
    ]
    if any(faults):
        fault = f"it holds another architecture than {type(module).__name__}: " + ", ".join(
            filter(None, faults)
        )
        raise CheckpointError(fault, file=file, remedy=RETRAIN)
    # Indices and counters, which some networks keep beside their weights, have their own type.
    kinds = {name: tensor.dtype for name, tensor in expected.items() if not tensor.is_floating_point()}
    require_weights({n: t for n, t in tensors.items() if kinds.get(n) != t.dtype}, file)
    module.load_state_dict(tensors)


def require_weights(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Require finite numbers of the types that weights have; others would be cast silently.

    Raises:
        CheckpointError: One is of another type, or holds a value that is not finite.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS or tensor.layout != torch.strided or tensor.device.type != "cpu":
            kind = str(tensor.dtype).removeprefix("torch.")
            fault = f"its weights {shown(name)} are {kind}, not float32, float16 or bfloat16"
            raise CheckpointError(fault, file=file, remedy=RETRAIN)
    if broken := {name for name, tensor in tensors.items() if not tensor.isfinite().all()}:
        fault = f"weights are not finite: {listed('damaged', broken)}"
        raise CheckpointError(fault, file=file, remedy=COPY_AGAIN)


def listed(kind: str, names: set[str]) -> str:
    """Number, kind and the first names of tensors, as a part of a sentence; empty without any."""
    first = " ".join(shown(name)[1:-1] for name in sorted(names)[:3]) + (" ..." if len(names) > 3 else "")
    return f"{len(names)} {kind} ({first})" if names else ""


def describe(thing: Any) -> dict[str, Any]:
    """Class path and arguments of an object that keeps its constructor arguments by name."""
    cls = type(thing)
    names = list(inspect.signature(cls.__init__).parameters)[1:]
    return {
        "class_path": f"{cls.__module__}.{cls.__qualname__}",
        "init_args": {n: getattr(thing, n) for n in names},
    }

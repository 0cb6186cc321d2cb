"""Weight files of restorers: safetensors with what built them, hashed. The shipped ones lie here."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import rbs
from rbs import shipped
from rbs.errors import CheckpointError
from rbs.files import whole_file
from rbs.restorers.base import Restorer
from rbs.scans.counts import where_scanned
from rbs.scans.scan import Array
from rbs.shipped import check_recorded, file_sha256

FRAME_TILE = 768
"""Side of the tiles in which large frames are restored, pixels."""

_KEY = "rbs"
_Module = TypeVar("_Module", bound=nn.Module)
_RETRAIN = "name a .safetensors or .ckpt file that rbs wrote"


@dataclass(frozen=True)
class LoadedRestorer:
    """A restorer read from a file.

    Attributes:
        restorer: In evaluation mode, on the CPU.
        name: Its class and the file it came from, for headers and reports ("NAFNet f1.safetensors").
        version: The version of rbs that wrote it; "unknown" where the file does not say.
        sha256: Of the file, hexadecimal.
        provenance: What its writer recorded about its making.
    """

    restorer: Restorer
    name: str
    version: str
    sha256: str
    provenance: dict[str, Any] = field(default_factory=dict)

    def restore_frame(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Restore a colour frame on the device that the restorer is on.

        Frames of more than `FRAME_TILE` pixels a side are restored in tiles of that size, which overlap by a
        quarter and fade into each other: memory does not grow with the frame.

        Args:
            frame: sRGB values 0..1, (3, H, W).

        Returns:
            The restored frame, of the same kind and shape.

        Raises:
            CheckpointError: The restorer restores scans.
        """
        self._must_restore("frames")
        device = next(self.restorer.parameters()).device
        x = torch.as_tensor(np.asarray(frame, dtype=np.float32), device=device)[None]

        def restored(tiles: Tensor) -> Tensor:
            return self.restorer(tiles, torch.ones(len(tiles), device=device))

        with torch.inference_mode():
            if max(x.shape[-2:]) <= FRAME_TILE:
                return restored(x)[0].cpu().numpy()
            from monai.inferers import sliding_window_inference

            rows, columns = (min(FRAME_TILE, side) for side in x.shape[-2:])
            # MONAI's own weights are not small at a tile's rim where that lies near the frame's border.
            fading = torch.outer(_window(rows), _window(columns)).to(device)
            whole = sliding_window_inference(
                x, (rows, columns), 1, restored, overlap=0.25, mode="gaussian", roi_weight_map=fading
            )
        return whole[0].clamp(0, 1).cpu().numpy()

    def _must_restore(self, what: str) -> None:
        images = self.restorer.images
        if images.shows != what:
            raise CheckpointError(
                f"{self.name} restores {images.shows}, not {what}",
                remedy=f"name weights that were trained on {what}",
            )

    def restore(self, rapid: Array, fraction: float) -> Array:
        """Restore a whole scan on the device that the restorer is on.

        Rows at the top and at the bottom in which no view counted anything were not scanned; what the
        restorer smooths into them is taken out again.

        Args:
            rapid: Raw counts, aligned (V, H, W).
            fraction: Exposure relative to the standard scan.

        Returns:
            Standard counts (V, H, W), float32.

        Raises:
            CheckpointError: The restorer restores frames.
        """
        return self.answer(self.restorer, rapid, fraction)

    def answer(self, network: nn.Module, rapid: Array, fraction: float) -> Array:
        """As `restore`, by a network that is given what the restorer is: itself, or one built around it."""
        self._must_restore("scans")
        device = next(self.restorer.parameters()).device
        x = torch.as_tensor(np.asarray(rapid, dtype=np.float32) / np.float32(fraction), device=device)[None]
        with torch.inference_mode():
            answer = network(x, torch.tensor([fraction], dtype=torch.float32, device=device))
        return where_scanned(answer[0].cpu().numpy(), rapid)


def _window(side: int) -> Tensor:
    """Weights of a tile's rows or columns: Hann's, nowhere zero."""
    return torch.hann_window(side + 2, periodic=False)[1:-1]


def save_restorer(path: str | Path, restorer: Restorer, provenance: dict[str, Any]) -> None:
    """Write a restorer's weights and what built it, replacing an older file whole.

    Args:
        path: A .safetensors file.
        restorer: The restorer.
        provenance: How it was made: values JSON can hold.

    Raises:
        OutputError: The file cannot be written.
    """
    save_modules(path, {"": restorer}, {**restorer.spec(), "provenance": provenance})


def save_modules(path: str | Path, modules: dict[str, nn.Module], description: dict[str, Any]) -> None:
    """Write the weights of `modules`, names prefixed by their key and a dot, with a JSON `description`."""
    tensors = {
        f"{prefix}.{name}".lstrip("."): tensor.detach().cpu().contiguous()
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    metadata = {_KEY: json.dumps({**description, "version": rbs.__version__}, sort_keys=True)}
    with whole_file(path, overwrite=True) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_restorer(path: str | Path | None = None) -> LoadedRestorer:
    """Read a restorer.

    Args:
        path: A .safetensors file of `save_restorer`, a Lightning .ckpt of `RestorationTask` (its first
            restorer, the averaged weights where weights were averaged), or None for the shipped one.

    Returns:
        The restorer and where it comes from.

    Raises:
        CheckpointError: The file is missing, truncated, not a checkpoint, or holds another architecture.
    """
    file = shipped.SHIPPED if path is None else Path(path)
    sha256 = file_sha256(file, "name a weight file with --checkpoint" if path is None else "check the path")
    if path is None:
        check_recorded(file, sha256)
    tensors, description = read_safetensors(file) if file.suffix == ".safetensors" else _read_lightning(file)
    restorer = build_restorer(description, file)
    load_into(restorer, tensors, file)
    return LoadedRestorer(
        restorer=restorer.eval(),
        name=f"{type(restorer).__name__} {file.name}",
        version=str(description.get("version", "unknown")),
        sha256=sha256,
        provenance=description.get("provenance", {}),
    )


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
            f"it is truncated or not a safetensors file ({error})", file=file, remedy=_RETRAIN
        ) from None
    try:
        description = json.loads(metadata[_KEY])
    except (KeyError, ValueError):
        description = None
    if not isinstance(description, dict):
        raise CheckpointError("it does not say which restorer it holds", file=file, remedy=_RETRAIN)
    return tensors, description


def _read_lightning(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    # A pickle runs code when it is loaded freely, and weights travel between hospitals: tensors and plain
    # containers are all that is accepted, and all that RestorationTask writes.
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle make the unpickler raise anything at all
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        fault = f"it is truncated or not a checkpoint ({reason})"
        raise CheckpointError(fault, file=file, remedy=_RETRAIN) from None
    if not isinstance(checkpoint, dict) or _KEY not in checkpoint or "state_dict" not in checkpoint:
        raise CheckpointError("it is not a checkpoint of RestorationTask", file=file, remedy=_RETRAIN)
    # Where Lightning's WeightAveraging callback ran, "state_dict" holds the averaged weights already; the
    # last step's are under "current_model_state".
    prefix = "cascade.f1."
    tensors = {n.removeprefix(prefix): t for n, t in checkpoint["state_dict"].items() if n.startswith(prefix)}
    return tensors, checkpoint[_KEY]


def build_restorer(description: dict[str, Any], file: Path) -> Restorer:
    """An untrained restorer from its class path."""
    if not description.get("class_path"):
        raise CheckpointError(
            "it holds no first restorer", file=file, remedy="name the f1.safetensors beside it"
        )
    return build_from(description, Restorer, file)  # type: ignore[type-abstract]


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
        raise CheckpointError(f"{path!r} is not a {kind.__name__.lower()}", file=file, remedy=_RETRAIN)
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
        raise CheckpointError(fault, file=file, remedy=_RETRAIN)
    module.load_state_dict(tensors)


def _listed(kind: str, names: set[str]) -> str:
    shown = " ".join(sorted(names)[:3]) + (" ..." if len(names) > 3 else "")
    return f"{len(names)} {kind} ({shown})" if names else ""

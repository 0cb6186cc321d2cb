"""Weight files of restorers, and restoring whole scans and frames with what they hold."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rbs.errors import CheckpointError
from rbs.restorers.base import Restorer
from rbs.restorers.tiles import restore_scan
from rbs.scans.counts import standard_scale, where_scanned
from rbs.scans.facts import Facts
from rbs.scans.scan import Array
from rbs.utils.checkpoint import (
    COPY_AGAIN,
    RETRAIN,
    build_from,
    load_into,
    one_line,
    read_safetensors,
    save_modules,
)
from rbs.utils.description import KEY, WeightsDescription
from rbs.utils.schema import checked, require_plain
from rbs.weights.shipped import NAME, check_recorded, file_sha256, require_scale, weights_path

FRAME_TILE = 768
"""Side of the tiles in which large frames are restored, pixels."""


@dataclass(frozen=True)
class LoadedRestorer:
    """A restorer from a file.

    Attributes:
        restorer: In evaluation mode, on the CPU.
        name: Its class and the file it came from, for headers and reports ("NAFNet
            restorer.safetensors").
        version: The version of rbs that wrote it; "unknown" where the file does not say.
        sha256: Of the file, hexadecimal.
        provenance: Record of its making.
        facts: What is known of the child, for a restorer that reads it.
    """

    restorer: Restorer
    name: str
    version: str
    sha256: str
    provenance: dict[str, Any] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)

    @property
    def shows(self) -> str:
        """Kind of image it restores: "scans" or "frames"."""
        return self.restorer.images.shows

    @property
    def scale(self) -> int:
        """Rows and columns of a restoration per row and column of a scan."""
        return self.restorer.scale

    def of_child(self, facts: Facts) -> LoadedRestorer:
        """The same restorer with facts of the child whose scans it restores."""
        return replace(self, facts=facts)

    def restore_frame(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Restore a colour frame on the device that the restorer is on.

        Frames of more than `FRAME_TILE` pixels a side are restored in tiles of that size, which
        overlap by a quarter and fade into each other: memory does not grow with the frame.

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
            # MONAI's own weights are not small at a tile's rim near the border of the frame.
            fading = torch.outer(_window(rows), _window(columns)).to(device)
            whole = sliding_window_inference(
                x, (rows, columns), 1, restored, overlap=0.25, mode="gaussian", roi_weight_map=fading
            )
        return whole[0].clamp(0, 1).cpu().numpy()

    def _must_restore(self, what: str) -> None:
        images = self.restorer.images
        if images.shows != what:
            fault = f"{self.name} restores {images.shows}, not {what}"
            raise CheckpointError(fault, remedy=f"name weights that were trained on {what}")

    def restore(self, rapid: Array, exposure: float) -> Array:
        """Restore a whole scan on the device that the restorer is on.

        Rows at the top and at the bottom in which no view holds a count were not scanned; the
        counts that the restorer smooths into them are removed.

        Args:
            rapid: Raw counts, aligned (V, H, W).
            exposure: Exposure relative to the standard scan.

        Returns:
            Standard counts (V, H, W), float32; (V, 2 H, 2 W) of a restorer that enlarges.

        Raises:
            CheckpointError: The restorer restores frames.
            ScanError: The scan is too large for a restorer that enlarges.
        """
        if not self.restorer.reads_facts:
            return self.apply(self.restorer, rapid, exposure)
        facts = torch.from_numpy(self.facts.numbers())[None]
        facts = facts.to(next(self.restorer.parameters()).device)
        return self.apply(lambda x, p: self.restorer(x, p, facts), rapid, exposure)

    def apply(self, network: Callable[[Tensor, Tensor], Tensor], rapid: Array, exposure: float) -> Array:
        """Restore by the restorer itself, or by a network around it that takes the same input."""
        self._must_restore("scans")
        device = next(self.restorer.parameters()).device
        x = torch.as_tensor(standard_scale(np.asarray(rapid, np.float32), exposure), device=device)[None]
        with torch.inference_mode():
            p = torch.tensor([exposure], dtype=torch.float32, device=device)
            restored = restore_scan(network, self.restorer, x, p)
        return where_scanned(restored[0].cpu().numpy(), rapid)


def _window(side: int) -> Tensor:
    """Hann weights of the rows or columns of a tile, without the zeros."""
    return torch.hann_window(side + 2, periodic=False)[1:-1]


def save_restorer(path: str | Path, restorer: Restorer, provenance: dict[str, Any]) -> None:
    """Write the weights of a restorer and its spec, replacing an older file whole.

    Args:
        path: A .safetensors file.
        restorer: The restorer.
        provenance: Record of its making, values that JSON can hold.

    Raises:
        OutputError: The file cannot be written.
    """
    save_modules(path, {"": restorer}, {**restorer.spec(), "provenance": provenance})


def load_restorer(path: str | Path = NAME, *, scale: int | None = 1) -> LoadedRestorer:
    """Read a restorer.

    Args:
        path: A .safetensors file of `save_restorer`, a Lightning .ckpt of `RestorationTask` (its
            first restorer, the averaged weights where weights were averaged), or "shipped".
        scale: Its `Restorer.scale`; None for any.

    Returns:
        The restorer and where it comes from.

    Raises:
        CheckpointError: The file is missing, truncated, damaged, not a checkpoint, holds another
            architecture, or one of another scale.
    """
    file = weights_path(path)
    shipped = str(path) == NAME
    sha256 = file_sha256(file, "name a weight file with --checkpoint" if shipped else "check the path")
    check_recorded(file, sha256)
    if file.suffix == ".safetensors":
        tensors, description = read_safetensors(file)
    else:
        tensors, description = describe_lightning(read_lightning(file), file)
    if not description.class_path:
        raise CheckpointError(
            "it holds no first restorer", file=file, remedy="name the restorer.safetensors beside it"
        )
    spec = {"class_path": description.class_path, "init_args": description.init_args}
    restorer = build_restorer(spec, file, description.version, tensors)
    load_into(restorer, tensors, file)
    require_scale(restorer.scale, scale, file)
    return LoadedRestorer(
        restorer=restorer.eval(),
        name=f"{type(restorer).__name__} {file.name}",
        version=description.version,
        sha256=sha256,
        provenance=description.provenance,
    )


def describe_lightning(
    checkpoint: dict[str, Any], file: Path
) -> tuple[dict[str, Tensor], WeightsDescription]:
    """Weights and description of the first restorer in the content of a Lightning checkpoint.

    Raises:
        CheckpointError: It holds something else.
    """
    state = checkpoint.get("state_dict")
    if KEY not in checkpoint or not isinstance(state, dict):
        raise CheckpointError("it is not a checkpoint of RestorationTask", file=file, remedy=RETRAIN)
    # Where Lightning's WeightAveraging callback ran, "state_dict" holds the averaged weights
    # already; the last step's are under "current_model_state".
    prefix = "cascade.f1."
    try:
        tensors = {
            name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)
        }
        if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
            raise ValueError("its weights are no tensors")
        require_plain(checkpoint[KEY])
        description = checked(WeightsDescription, checkpoint[KEY])
    except (ValueError, AttributeError) as error:
        fault = f"it is not a checkpoint of RestorationTask ({one_line(error)})"
        raise CheckpointError(fault, file=file, remedy=RETRAIN) from None
    return tensors, description


def read_lightning(file: Path) -> dict[str, Any]:
    """Content of a Lightning checkpoint, without running code that it may hold.

    Raises:
        CheckpointError: The file is truncated, damaged, or holds more than tensors and plain
            containers.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
            # Parts that are packed, or that lie in the same bytes, could be of any size unpacked.
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise zipfile.BadZipFile("its parts are compressed")
            if sum(part.file_size for part in parts) > file.stat().st_size:
                raise zipfile.BadZipFile("its parts overlap")
            # PyTorch does not compare the checksums.
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"its part {damaged} is damaged")
        # A pickle can run code when it is loaded, and weights travel between hospitals: only
        # tensors and plain containers are accepted, and our trainings write nothing else.
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle raise any kind of exception
        fault = f"it is truncated or not a checkpoint ({one_line(error)})"
        raise CheckpointError(fault, file=file, remedy=COPY_AGAIN) from None
    if not isinstance(checkpoint, dict):
        raise CheckpointError("it is not a checkpoint", file=file, remedy=RETRAIN)
    return checkpoint


def build_restorer(spec: dict[str, Any], file: Path, version: str, tensors: dict[str, Tensor]) -> Restorer:
    """Build an untrained restorer from its class path; see `build_from`."""
    return build_from(spec, Restorer, file, version, tensors)  # type: ignore[type-abstract]

"""Restoring scans by ONNX Runtime, without PyTorch: the shipped weights, or an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from rbs.errors import ScanError
from rbs.inference.onnx_network import VIEWS, OnnxNetwork
from rbs.scans.counts import standard_scale, where_scanned
from rbs.scans.scan import Array
from rbs.utils.memory import WHOLE, require_whole
from rbs.weights import shipped


@dataclass(frozen=True)
class OnnxRestorer(OnnxNetwork):
    """A restorer of scans in ONNX Runtime, used as `rbs.restorers.checkpoint.LoadedRestorer` is."""

    kind = "restorer"
    option = "--checkpoint"
    does = "restores scans"
    takes = MappingProxyType({"rapid": 4, "exposure": 1})
    answers = 4
    shows: ClassVar[str] = "scans"

    def restore(self, rapid: Array, exposure: float) -> Array:
        """Restore a whole scan: `rbs.restorers.checkpoint.LoadedRestorer.restore` says how.

        Args:
            rapid: Raw counts, aligned (V, H, W).
            exposure: Exposure relative to the standard scan.

        Returns:
            Standard counts (V, H, W), float32; (V, 2 H, 2 W) of a restorer that enlarges.

        Raises:
            ScanError: It is too large to be restored at once, and the file is an export, or it is
                enlarged.
            CheckpointError: The network, of another making, cannot be run or answers with another
                shape.
        """
        if self.scale > 1:
            require_whole(self.scale * rapid.shape[1], self.scale * rapid.shape[2], "restored")
        elif rapid[0].size > WHOLE:
            return self._in_tiles(rapid, exposure)
        x = standard_scale(np.asarray(rapid, dtype=np.float32)[None], exposure)
        both = np.repeat(x, VIEWS // len(rapid), axis=1)
        rows, columns = (self.scale * side for side in both.shape[2:])
        shape = (*both.shape[:2], rows, columns)
        answer = self.answer(both, np.array([exposure], np.float32), shape=shape)
        counts = answer[0] if len(rapid) == VIEWS else answer[0].mean(axis=0, keepdims=True)
        return where_scanned(counts, rapid)

    def _in_tiles(self, rapid: Array, exposure: float) -> Array:
        """Restore by PyTorch, which shows the averages over the whole scan that tiles need."""
        if self.file.suffix == ".onnx":
            fault = f"its views have {rapid[0].size:,} pixels, and an ONNX file restores {WHOLE:,} at once"
            raise ScanError(fault, remedy="name the weights that the file was exported from")
        from rbs.restorers.checkpoint import load_restorer

        loaded = load_restorer(self.file)
        if "CUDAExecutionProvider" in self.session.get_providers():
            loaded.restorer.to("cuda")
        return loaded.restore(rapid, exposure)


def load_shipped(device: str = "cpu", *, enlarging: bool = False) -> OnnxRestorer:
    """The restorer that comes with rbs, or the one that enlarges; see `OnnxNetwork.shipped`."""
    if enlarging:
        return OnnxRestorer.shipped(shipped.ENLARGING, shipped.ENLARGING_GRAPH, device)
    return OnnxRestorer.shipped(shipped.SHIPPED, shipped.GRAPH, device)


def load_onnx(path: Path, device: str = "cpu") -> OnnxRestorer:
    """What `rbs export` wrote of a restorer of scans; see `OnnxNetwork.exported`."""
    return OnnxRestorer.exported(path, device)

"""Weight files of segmenters."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rbs.scans.counts import standard_scale
from rbs.scans.scan import Array
from rbs.segmentation.label_map import LabelMap
from rbs.segmentation.segmenter import Segmenter, facts_of
from rbs.utils.checkpoint import save_modules
from rbs.utils.memory import require_whole
from rbs.weights.module_file import read_module


@dataclass(frozen=True)
class LoadedSegmenter:
    """A segmenter from a file, or from the folder of an adapted SAM.

    Attributes:
        segmenter: In evaluation mode, frozen, on the CPU.
        name: Its class and the file it came from.
        version: The version of rbs that wrote it; empty for an adapted SAM.
        sha256: Of the file; of an adapted SAM its digest, hexadecimal.
        provenance: Record of its making.
    """

    segmenter: Segmenter
    name: str
    version: str
    sha256: str
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> LabelMap:
        """Its regions."""
        return self.segmenter.labels

    def probabilities(self, counts: Array, exposure: float, spacing_mm: tuple[float, float]) -> Array:
        """Probabilities of background and regions, float32 (V, 1 + K, H, W), of a whole scan.

        Args:
            counts: Raw counts, aligned (V, H, W).
            exposure: Exposure relative to the standard scan.
            spacing_mm: Row and column spacing, mm.

        Raises:
            ScanError: It is too large.
        """
        require_whole(*counts.shape[1:])
        device = next(self.segmenter.parameters()).device
        x = torch.as_tensor(standard_scale(np.asarray(counts, np.float32), exposure), device=device)
        with torch.inference_mode():
            found: Array = self.segmenter(x[None], *facts_of(exposure, spacing_mm, device))[0].cpu().numpy()
        return found


def save_segmenter(path: str | Path, segmenter: Segmenter, provenance: dict[str, Any]) -> None:
    """Write the weights of a segmenter and its spec, replacing an older file whole.

    Raises:
        OutputError: The file cannot be written.
    """
    save_modules(path, {"": segmenter}, {**segmenter.spec(), "provenance": provenance})


def load_segmenter(path: str | Path, base_checkpoint: Path | None = None) -> LoadedSegmenter:
    """Read a segmenter.

    Args:
        path: File of `save_segmenter`, or folder of an adapted SAM, see
            `rbs.segmentation.adapters`.
        base_checkpoint: SAM's base weights that such a folder was adapted from; None for the
            shipped or downloaded ones.

    Raises:
        CheckpointError: The file is missing, truncated, damaged, or holds no segmenter.
    """
    file = Path(path)
    if file.is_dir():
        from rbs.segmentation.adapters import load_teacher  # peft takes seconds to import

        teacher = load_teacher(file, base_checkpoint)
        return LoadedSegmenter(teacher, f"Teacher {file.name}", version="", sha256=teacher.digest)
    remedy = "train one with `make train-segmenter`, adapt SAM with `make adapt-sam`, or check the path"
    found = read_module(file, Segmenter, remedy)  # type: ignore[type-abstract]
    return LoadedSegmenter(found.module, found.name, found.version, found.sha256, found.provenance)

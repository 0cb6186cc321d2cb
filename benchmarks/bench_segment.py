"""Segmenting a scan of two views: loading the weights, and the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rbs.inference.segmentation import AnySegmenter, load_segmenter_for
from rbs.scans.dicom.reader import read_nm
from rbs.segmentation.checkpoint import load_segmenter
from rbs.weights.shipped import SEGMENTER


@pytest.mark.benchmark(group="segmenting: parts, in a process that goes on")
@pytest.mark.parametrize(
    "part", ["segment", "segment, by PyTorch", "load weights", "load weights, by PyTorch"]
)
def test_part(measure: Any, child: Path, part: str) -> None:
    """The shipped segmenter on a rapid scan of full size, its views as the camera wrote them."""
    scan = read_nm(child)

    def segment(segmenter: AnySegmenter) -> Callable[[], Any]:
        return lambda: segmenter.probabilities(scan.counts, 0.5, scan.spacing_mm)

    parts: dict[str, Callable[[], Any]] = {
        "segment": segment(load_segmenter_for()),
        "segment, by PyTorch": segment(load_segmenter(SEGMENTER)),
        "load weights": load_segmenter_for,
        "load weights, by PyTorch": lambda: load_segmenter(SEGMENTER),
    }
    measure(parts[part], rounds=7)

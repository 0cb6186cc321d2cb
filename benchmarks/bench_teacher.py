"""The teacher: views a second, packed into SAM's square picture or padded to it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from rbs.evaluation.scans.pairs import ScanPair
from rbs.segmentation.adapters import load_teacher
from rbs.segmentation.teacher import encode_window, picture_of


@pytest.mark.benchmark(group="teacher: encoding a view")
@pytest.mark.parametrize("size", ["vit_t", "vit_b"])
@pytest.mark.parametrize("way", ["packed", "padded, same zoom", "padded, as Meta's"])
def test_encoding(
    measure: Any,
    sizes: Any,
    pair: ScanPair,
    teachers: Any,
    base_weights: Any,
    device: torch.device,
    size: Any,
    way: str,
) -> None:
    """Bands side by side; the scan padded to a square at that zoom; or shrunk to SAM's input."""
    if size == "vit_b" and way == "padded, same zoom":
        pytest.skip("its attention alone would take 13 GB")
    teacher = load_teacher(teachers(size), base_weights(size)).to(device)
    counts = torch.as_tensor(pair.network_input[0], device=device)[None, :1]
    length = max(counts.shape[2:])
    square = F.pad(counts, (0, length - counts.shape[3], 0, length - counts.shape[2]))
    side = length // teacher.embedding_stride * teacher.patch
    if way == "padded, as Meta's":
        side = min(side, teacher.tokens * teacher.patch)

    def padded() -> Any:
        picture = picture_of(square, teacher.pixel_mean, teacher.pixel_std, teacher.labelled)
        return encode_window(teacher.image_encoder, F.interpolate(picture, (side, side), mode="bilinear"))

    with torch.inference_mode():
        measure(
            (lambda: teacher.embed(counts, torch.ones(1), torch.ones(1, 2))) if way == "packed" else padded,
            rounds=3 if size == "vit_t" else 1,
            warm_up=size == "vit_t",
            tokens=(side // teacher.patch) ** 2 if way != "packed" else None,
        )

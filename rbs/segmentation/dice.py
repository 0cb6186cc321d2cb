"""Dice of the regions of a segmenter, and of unadapted SAM with perfect boxes to compare with.

    Dice = 2 |A and B| / (|A| + |B|)

Pixels are summed over the views of a patient before dividing; then the mean is over patients who
have the region.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from scipy import ndimage
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F

from rbs.restorers.image_domain import DOMAINS, Domain
from rbs.segmentation.label_map import LABEL_MAPS, LabelMap
from rbs.segmentation.labels import LABELLED
from rbs.segmentation.sam import Size
from rbs.segmentation.segmenter import Segmenter
from rbs.segmentation.teacher import Teacher, encode_window, picture_of, window_positions
from rbs.segmentation.tiles import pack, plan
from rbs.utils.files import whole_file

BOXES = 12
"""Box prompts for one region of one view: one around each of its largest connected parts."""


class DiceTally:
    """Pixels counted per case, patient and noise level; a case counted twice counts once.

    Args:
        labels: The regions.
    """

    def __init__(self, labels: LabelMap = LABEL_MAPS["scans"]) -> None:
        self.labels = labels
        self.counted: dict[tuple[int, str, str], Any] = {}

    def add(self, case: int, patient: str, level: str, found: Tensor, labels: Tensor) -> None:
        """Count the pixels of one scan or frame.

        Args:
            case: Number of the case: a visit of a patient.
            patient: Identifier.
            level: Noise level, one of `LabelledImages.levels`.
            found: Region masks, bool (V, K, H, W).
            labels: True labels, int (V, H, W).
        """
        there = self.labels.masks(labels)
        pixels = torch.stack([(found & there).sum((0, 2, 3)), found.sum((0, 2, 3)), there.sum((0, 2, 3))])
        self.counted[case, patient, level] = pixels.cpu().numpy()

    def gather(self) -> None:
        """Join what the processes of a distributed training counted."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, self.counted)
            for part in parts:
                self.counted.update(part)

    def rows(self, mode: str, split: str) -> list[dict[str, str]]:
        """Rows of mode, split, level, Dice by region and mean; empty where no patient has it."""
        patients: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(int))
        for (_, patient, level), pixels in sorted(self.counted.items()):
            patients[level][patient] = patients[level][patient] + pixels
        rows = []
        for level, counted in patients.items():
            both, found, there = np.stack(list(counted.values()), axis=1)
            dice = np.where(there > 0, 2 * both / np.maximum(found + there, 1), np.nan)
            means = [d[np.isfinite(d)].mean() if np.isfinite(d).any() else np.nan for d in dice.T]
            values = [*means, np.nanmean(means) if np.isfinite(means).any() else np.nan]
            text = ["" if np.isnan(value) else f"{value:.4f}" for value in values]
            names = ["mode", "split", "level", *self.labels.names, "mean"]
            rows.append(dict(zip(names, [mode, split, level, *text], strict=True)))
        return rows


def update_rows(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Write rows into a table, in place of those of the same mode, split and level."""
    table = {}
    if path.exists():
        with path.open(newline="") as file:
            table = {_name(row): row for row in csv.DictReader(file)}
    table |= {_name(row): row for row in rows}
    with whole_file(path, overwrite=True) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(name for row in table.values() for name in row))
        writer.writeheader()
        writer.writerows(table.values())


def regions_found(segmenter: Segmenter, x: Tensor, exposure: Tensor, spacing_mm: Tensor) -> Tensor:
    """Masks of the most probable regions, bool (B, V, K, H, W).

    Args:
        segmenter: The network.
        x: Scans or frames, (B, C, H, W), see `Segmenter.forward`.
        exposure: Exposure of each, (B,).
        spacing_mm: Row and column spacing, mm, (B, 2).
    """
    labels = segmenter.logits(x, exposure, spacing_mm).argmax(dim=2)
    return segmenter.labels.masks(labels.flatten(0, 1)).unflatten(0, labels.shape[:2])


def regions_prompted(
    size: Size, sam: Sam, image: Tensor, labels: Tensor, images: Domain = DOMAINS["roots"]
) -> tuple[Tensor, Tensor]:
    """Masks by unadapted SAM, prompted by boxes around the true parts of each region.

    Args:
        size: Size of `sam`.
        sam: Base model.
        image: (V, H, W) counts at standard scale, or a frame (3, H, W).
        labels: True labels, int (V, H, W); of a frame (1, H, W).
        images: Domain of the image.

    Returns:
        Masks, bool (V, K, h, w), and labels, (V, h, w), both in the packed picture; Dice is the
        same there.
    """
    shape, labelled = Teacher(size, sam), LABELLED[images.shows]
    layout = plan(image.shape[1], image.shape[2], shape.embedding_stride)
    packed = pack(images.views(image[None].float()), layout)
    truth = pack(labels[:, None].float(), layout)[:, 0].round().long()
    height, width = (cells * shape.patch for cells in layout.grid)
    picture = F.interpolate(
        picture_of(packed, sam.pixel_mean, sam.pixel_std, labelled),
        (height, width),
        mode="bilinear",
        antialias=True,
    )
    scale = torch.tensor([width / truth.shape[2], height / truth.shape[1]] * 2)
    found = torch.zeros(len(truth), len(labelled.labels), *truth.shape[1:], dtype=torch.bool)
    for view, (shown, label) in enumerate(zip(picture, truth, strict=True)):
        embedding = encode_window(sam.image_encoder, shown[None])
        rows, columns = embedding.shape[-2:]
        positions = window_positions(sam.prompt_encoder, rows, columns)
        no_mask = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(-1, -1, rows, columns)
        for k in range(len(labelled.labels)):
            boxes = _boxes((label == k + 1).cpu().numpy())
            if not len(boxes):
                continue
            prompts, _ = sam.prompt_encoder(None, (boxes * scale).to(shown.device), None)
            masks, _ = sam.mask_decoder(embedding, positions, prompts, no_mask, multimask_output=False)
            pixels = F.interpolate(masks, label.shape, mode="bilinear")
            found[view, k] = (pixels[:, 0] > sam.mask_threshold).any(dim=0).cpu()
    return found, truth.cpu()


def _boxes(mask: Any) -> Tensor:
    """Boxes (N, 4) as x0, y0, x1, y1 around the largest connected parts of a mask."""
    parts, _ = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(parts.ravel())[1:]
    slices = ndimage.find_objects(parts)
    boxes = []
    for part in np.argsort(-sizes, kind="stable")[:BOXES]:
        rows, columns = slices[part]
        boxes.append([columns.start, rows.start, columns.stop, rows.stop])
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def _name(row: dict[str, str]) -> tuple[str, str, str]:
    return row["mode"], row["split"], row["level"]

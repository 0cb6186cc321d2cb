"""SAM's own prompts on a frame: points, boxes, or a grid of points; no adapted decoder is needed.

They propose masks where there are none yet, for a person to check.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam

from rbs.endoscopy.colour import in_8_bits

Mask = npt.NDArray[np.bool_]
Point = tuple[float, float]
Box = tuple[float, float, float, float]


def mask_at(
    sam: Sam,
    frame: npt.NDArray[np.float32],
    *,
    points: Sequence[Point] = (),
    outside: Sequence[Point] = (),
    boxes: Sequence[Box] = (),
) -> Mask:
    """Segment the object at the points and those in the boxes, joined to one mask.

    Args:
        sam: A model of `rbs.segmentation.sam.build_sam`.
        frame: sRGB values 0..1, (3, H, W).
        points: Pixels (x, y), right and down, of one object. Of SAM's three proposals the one with
            the highest estimated quality is taken.
        outside: Pixels outside it.
        boxes: Corners (x0, y0, x1, y1) around one object each.

    Returns:
        Mask, bool (H, W).

    Raises:
        ValueError: There is neither a point nor a box, or one lies outside the frame.
    """
    if not (points or boxes):
        raise ValueError("SAM needs a point or a box")
    height, width = frame.shape[1:]
    for x, y in (*points, *outside, *(box[:2] for box in boxes), *(box[2:] for box in boxes)):
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(f"({x:g}, {y:g}) lies outside the frame of {width} x {height} pixels")
    predictor = SamPredictor(sam)
    predictor.set_image(in_8_bits(frame).transpose(1, 2, 0))
    found = np.zeros((height, width), bool)
    if points:
        kinds = np.array([1] * len(points) + [0] * len(outside))
        masks, quality, _ = predictor.predict(np.array([*points, *outside], float), kinds)
        found |= masks[quality.argmax()]
    for box in boxes:
        masks, _, _ = predictor.predict(box=np.array(box, float), multimask_output=False)
        found |= masks[0]
    return found


def all_masks(
    sam: Sam,
    frame: npt.NDArray[np.float32],
    *,
    points_a_side: int = 32,
    least_quality: float = 0.88,
    least_stability: float = 0.95,
) -> npt.NDArray[np.bool_]:
    """Segment all objects from a grid of points, the largest first.

    Args:
        sam: A model of `rbs.segmentation.sam.build_sam`.
        frame: sRGB values 0..1, (3, H, W).
        points_a_side: Rows and columns of the grid.
        least_quality: Least overlap with the truth, as SAM estimates it, of masks that are kept.
        least_stability: Their least overlap with themselves when the threshold is moved.

    Returns:
        Masks, bool (N, H, W); N may be 0.
    """
    generator = SamAutomaticMaskGenerator(
        sam,
        points_per_side=points_a_side,
        pred_iou_thresh=least_quality,
        stability_score_thresh=least_stability,
    )
    found = sorted(generator.generate(in_8_bits(frame).transpose(1, 2, 0)), key=lambda mask: -mask["area"])
    return np.array([mask["segmentation"] for mask in found], bool).reshape(-1, *frame.shape[1:])

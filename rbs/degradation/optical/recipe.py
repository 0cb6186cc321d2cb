"""Several degradations as one: in the order light travels, under the mask of the video processor."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from rbs.endoscopy.colour import Degradation, Frame, Mask, Stage


@dataclass(frozen=True)
class Recipe:
    """Degradations in the order light travels.

    Attributes:
        steps: By ascending stage; several of one stage stay in their order.

    Raises:
        ValueError: A step stands before one that light meets earlier.
    """

    steps: tuple[Degradation, ...]

    def __post_init__(self) -> None:
        for first, then in itertools.pairwise(self.steps):
            if first.stage > then.stage:
                raise ValueError(f"light meets '{then}' before '{first}'")

    def __call__(self, frame: Frame, rng: np.random.Generator, valid: Mask | None = None) -> Frame:
        """The degraded frame in 8 bits, as a camera delivers it.

        Args:
            frame: Clean frame, float32 (3, H, W), sRGB 0..1. Degrade whole frames and crop
                afterwards: light and haze belong to the field of view.
            rng: Decides what is random.
            valid: Where the frame shows what the camera saw, (H, W). The rest (black borders,
                insets, text) is laid over the picture after the camera: it neither bleeds into it
                nor gets its noise.

        Returns:
            float32 (3, H, W), multiples of 1/255.
        """
        before = [step for step in self.steps if step.stage < Stage.SCALING]
        scene = frame if valid is None else _continued(frame, valid)
        seen = scene
        for step in before:
            seen = step(seen, rng)
        if valid is not None:
            seen = np.where(valid, seen, _laid_over(seen, frame, scene, valid))
        for step in self.steps[len(before) :]:
            seen = step(seen, rng)
        return np.round(seen * 255).astype(np.float32) / np.float32(255)

    def __str__(self) -> str:
        return "; ".join(map(str, self.steps)) or "nothing"


def _continued(frame: Frame, valid: Mask) -> Frame:
    """The frame with the nearest valid colour where it is not valid, as the scene goes on behind a mask."""
    if valid.all() or not valid.any():
        return frame
    row, column = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return frame[:, row, column]


def _laid_over(seen: Frame, frame: Frame, scene: Frame, valid: Mask) -> Frame:
    """What the processor lays over the picture, over what the camera has seen instead of the scene.

    A mask's rim, and the ground of a stroke of text, still show the scene, darkened by black or
    lightened by white. They have to change with the picture, or would tell a network how bright the
    clean one was.
    """
    black = frame / np.maximum(scene, 1e-3)
    white = (1 - frame) / np.maximum(1 - scene, 1e-3)
    through = np.where(frame <= scene, seen * black, 1 - (1 - seen) * white)
    reach = max(valid.shape) / 50
    near = np.clip(2 - 2 * distance_transform_edt(~valid) / reach, 0, 1)
    return (frame + near * (through - frame)).astype(np.float32)

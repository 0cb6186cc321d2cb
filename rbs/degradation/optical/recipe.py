"""Several optical degradations as one: in the order light travels, under the processor's mask."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar, Protocol

import numpy as np
from scipy.ndimage import distance_transform_edt

from rbs.degradation import Degrader
from rbs.endoscopy.colour import Frame, Mask


class Stage(IntEnum):
    """Places where a picture is degraded, in the order light travels."""

    AIR = 1
    LENS = 2
    EXPOSURE = 3
    SENSOR = 4
    HIGHLIGHTS = 5
    SCALING = 6
    COMPRESSION = 7


class Step(Degrader, Protocol):
    """One degradation: a frozen dataclass of physical parameters; its text names it."""

    stage: ClassVar[Stage]


@dataclass(frozen=True)
class Recipe:
    """Degradations in the order light travels; the answer has 8 bits, as a camera delivers it.

    Attributes:
        steps: By ascending stage; several of one stage stay in their order.
        field_of_view: Pixels that show what the camera saw, (H, W); None for all. The rest (black
            borders, insets, text) is laid over the picture after the camera: it neither bleeds into
            it nor gets its noise.

    Raises:
        ValueError: A step stands before one that light meets earlier.
    """

    steps: tuple[Step, ...]
    field_of_view: Mask | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for first, then in itertools.pairwise(self.steps):
            if first.stage > then.stage:
                raise ValueError(f"light meets '{then}' before '{first}'")

    def __call__(self, frame: Frame, rng: np.random.Generator) -> Frame:
        """Degrade a clean frame, float32 (3, H, W), sRGB 0..1, into multiples of 1/255.

        Degrade whole frames and crop afterwards: light and haze belong to the field of view.
        """
        shown = self.field_of_view
        before = [step for step in self.steps if step.stage < Stage.SCALING]
        scene = frame if shown is None else _continued(frame, shown)
        seen = scene
        for step in before:
            seen = step(seen, rng)
        if shown is not None:
            seen = np.where(shown, seen, _overlay(seen, frame, scene, shown))
        for step in self.steps[len(before) :]:
            seen = step(seen, rng)
        return np.round(seen * 255).astype(np.float32) / np.float32(255)

    def __str__(self) -> str:
        return "; ".join(map(str, self.steps)) or "nothing"


def _continued(frame: Frame, field: Mask) -> Frame:
    """The frame with its nearest colour outside the field of view, as the scene goes on there."""
    if field.all() or not field.any():
        return frame
    row, column = distance_transform_edt(~field, return_distances=False, return_indices=True)
    return frame[:, row, column]


def _overlay(seen: Frame, frame: Frame, scene: Frame, field: Mask) -> Frame:
    """The processor's mask and text over `seen`, the camera's picture of the scene.

    A mask's rim, and the ground of a stroke of text, still show the scene, darkened by black or
    lightened by white. They have to change with the picture, or would tell a network how bright the
    clean one was.
    """
    black = frame / np.maximum(scene, 1e-3)
    white = (1 - frame) / np.maximum(1 - scene, 1e-3)
    through = np.where(frame <= scene, seen * black, 1 - (1 - seen) * white)
    reach = max(field.shape) / 50
    near = np.clip(2 - 2 * distance_transform_edt(~field) / reach, 0, 1)
    return (frame + near * (through - frame)).astype(np.float32)

r"""Scenes: expectations that no phantom has, made of those they have, to train restorers on.

A network that has seen drawn children alone learns how they were drawn, and on a patient takes for
noise what was never drawn. A scene is any image a camera could count, and its noise is known
exactly as for phantoms: only the expectation changes, counts are drawn from it afterwards. Domain
randomisation (Tobin et al., IROS 2017, arXiv 1703.06907), of what differs from one patient, camera
and hospital to the next:

.. math::
    \lambda' = b\,\frac{m}{m'}\,\Big[(1 - w)\, Z_s \lambda + w\,
    Z_{s'} \lambda^{\mathsf T}\Big]^{\gamma}

with :math:`Z_s` a magnification (bodies from infants to adults, and their blur with them),
:math:`\lambda^{\mathsf T}` another place of the same scan turned by a right angle (edges and
crossings no skeleton has), :math:`\gamma` the contrast of uptake, :math:`m / m'` what keeps the
mean, and :math:`b` the activity.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from rbs.data.augmentation.geometric import log_uniform
from rbs.scans.scan import Array

MAGNIFICATION = (0.6, 1.8)
"""Log-uniform."""
OVERLAID, OVERLAY_WEIGHT = 0.5, (0.05, 0.5)
"""Share of scenes that are overlaid, and the weights of the overlay."""
CONTRAST = (0.7, 1.4)
"""The exponent, log-uniform."""
ACTIVITY = (0.4, 2.5)
"""Log-uniform."""


def draw_scene(expectation: Array, crop: tuple[int, int], rng: np.random.Generator) -> Array:
    """A scene the size of a crop.

    Args:
        expectation: Expected counts of a whole scan (V, H, W), at least as large as the crop.
        crop: Rows and columns.
        rng: Source of everything random.

    Returns:
        Expected counts (V, *crop), float32, not negative. All views show the same place.
    """
    scene = _magnified(expectation, crop, rng)
    if rng.random() < OVERLAID:
        weight = rng.uniform(*OVERLAY_WEIGHT)
        turned = _magnified(expectation, (crop[1], crop[0]), rng).transpose(0, 2, 1)
        scene = (1 - weight) * scene + weight * turned
    mean = scene.mean()
    if not mean:
        return scene
    scene = (scene / mean) ** log_uniform(CONTRAST, rng)
    return np.asarray(scene * (log_uniform(ACTIVITY, rng) * mean / scene.mean()), np.float32)


def _magnified(expectation: Array, crop: tuple[int, int], rng: np.random.Generator) -> Array:
    """A place of the scan, larger or smaller than it is, and as bright."""
    factor = log_uniform(MAGNIFICATION, rng)
    rows, columns = (
        min(round(side / factor), whole) for side, whole in zip(crop, expectation.shape[1:], strict=True)
    )
    # A place with tracer: chosen by what it holds, the best of two.
    places = [
        tuple(
            int(rng.integers(whole - side + 1))
            for side, whole in zip((rows, columns), expectation.shape[1:], strict=True)
        )
        for _ in range(2)
    ]
    cuts = [expectation[:, top : top + rows, left : left + columns] for top, left in places]
    fuller = max(cuts, key=lambda cut: float(cut.mean()))
    image = torch.from_numpy(np.ascontiguousarray(fuller, np.float32))[None]
    resized = F.interpolate(image, size=crop, mode="bicubic", antialias=True, align_corners=False)
    return np.asarray(resized[0].clamp(min=0).numpy())

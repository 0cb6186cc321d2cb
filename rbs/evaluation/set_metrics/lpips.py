"""LPIPS (Zhang et al., CVPR 2018, arXiv 1801.03924) on the picture a reader sees, as one more `Metric`.

A texture metric learned on photographs: it rewards noise of the right texture, so it is no measure
of truth.
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rbs.errors import CheckpointError
from rbs.evaluation.scans.metrics import NOISY, Metric, Target

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

log = logging.getLogger(__name__)

BACKBONE = "alexnet_features.pth"
TORCHVISION_FILE = "alexnet-owt-7be5be79.pth"


def display_grey(counts: Array, peak: float) -> Array:
    """Inverse grey of a bone scan: 1 (white) at zero counts falling linearly to -1 (black) at P and above.

    Args:
        counts: Standard counts, any shape.
        peak: P, standard counts.
    """
    return 1 - 2 * np.clip(counts / peak, 0, 1)


def find_backbone() -> Path | None:
    """AlexNet's ImageNet weights: in the folder RBS_WEIGHTS, else torchvision's download, else None."""
    import torch

    folder = os.environ.get("RBS_WEIGHTS")
    places = [Path(folder) / BACKBONE] if folder else []
    places.append(Path(torch.hub.get_dir()) / "checkpoints" / TORCHVISION_FILE)
    return next((place for place in places if place.is_file()), None)


def load_lpips(backbone: Path) -> torch.nn.Module:
    """The lpips package's LPIPS-alex v0.1 with an AlexNet read from a file.

    Args:
        backbone: State dict with torchvision's keys features.*.

    Raises:
        CheckpointError: The file is no AlexNet.
    """
    import lpips
    import torch

    with warnings.catch_warnings():
        # lpips 0.1.4 calls torchvision with the arguments of 2021.
        warnings.simplefilter("ignore", UserWarning)
        model = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    try:
        state = torch.load(backbone, map_location="cpu", weights_only=True)
        # lpips cuts AlexNet into slices but keeps torchvision's layer numbers: features.3.weight ->
        # slice2.3.weight
        own = {key: state["features." + key.split(".", 1)[1]] for key in model.net.state_dict()}
        model.net.load_state_dict(own)
    except Exception as error:  # bytes that are no pickle make the unpickler raise anything at all
        raise CheckpointError(
            "it does not hold torchvision's AlexNet features", file=backbone, remedy="remove or replace it"
        ) from error
    return model.eval().requires_grad_(False)


def lpips_at_hand() -> torch.nn.Module | None:
    """LPIPS, or None, with a line in the log, where the backbone's weights are not at hand."""
    backbone = find_backbone()
    if backbone is None:
        log.warning(
            "LPIPS is left out: put %s into the folder RBS_WEIGHTS, or let torchvision download it with "
            "torchvision.models.alexnet(weights='IMAGENET1K_V1')",
            BACKBONE,
        )
        return None
    return load_lpips(backbone)


def lpips_metric() -> Metric | None:
    """LPIPS of scans as a metric; None where its weights are not at hand."""
    model = lpips_at_hand()
    if model is None:
        return None

    def compute(estimate: Array, target: Target) -> float:
        import torch

        with torch.inference_mode():
            pictures = [
                torch.from_numpy(display_grey(x, target.peak)).float()[:, None].expand(-1, 3, -1, -1)
                for x in (estimate, target.standard)
            ]
            # One view at a time: whole scans of both views at once would need twice the memory.
            scores = [model(t[None], s[None]).item() for t, s in zip(*pictures, strict=True)]
        return float(np.mean(scores))

    return Metric(
        "lpips",
        "LPIPS",
        "",
        False,
        "the independent standard scan (noisy)",
        "LPIPS-alex v0.1 on the inverse-grey picture, window [0, P], whole views, mean of both",
        compute,
        group=NOISY,
        mask="whole views",
        peak="window [0, P]",
    )

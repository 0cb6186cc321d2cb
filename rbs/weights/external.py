"""Weights of networks that others trained, which rbs neither ships nor downloads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rbs.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn

ALEXNET = ("alexnet_features.pth", "alexnet-owt-7be5be79.pth")
"""AlexNet trained on ImageNet: its convolutions alone, or torchvision's download."""
PUT_ALEXNET = (
    f"put {ALEXNET[0]} into the folder RBS_WEIGHTS, or let torchvision download it with "
    "torchvision.models.alexnet(weights='IMAGENET1K_V1')"
)
"""Remedy where it is missing."""


def find(*names: str) -> Path | None:
    """Find a file by its names, in the folder RBS_WEIGHTS or among torch's downloads."""
    return next((place / name for place in _folders() for name in names if (place / name).is_file()), None)


def _folders() -> list[Path]:
    import torch

    named = [Path(folder)] if (folder := os.environ.get("RBS_WEIGHTS")) else []
    return [*named, Path(torch.hub.get_dir()) / "checkpoints"]


def require_alexnet() -> Path:
    """The file of `ALEXNET`.

    Raises:
        CheckpointError: There is none.
    """
    if (file := find(*ALEXNET)) is not None:
        return file
    fault = f"there is no such weight file, nor {ALEXNET[1]} among torch's downloads"
    raise CheckpointError(fault, file=_folders()[0] / ALEXNET[0], remedy=PUT_ALEXNET)


def load_alexnet(file: Path) -> nn.Sequential:
    """AlexNet's convolutional part, torchvision's `features`, frozen.

    Args:
        file: State dict with torchvision's keys features.*.

    Raises:
        CheckpointError: The file is no AlexNet.
    """
    import torch
    from torchvision.models import alexnet

    with torch.device("meta"):  # spares the 58 million weights of the classifier
        features: nn.Sequential = alexnet(weights=None).features
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        own = {key: state[f"features.{key}"].float() for key in features.state_dict()}
        features.load_state_dict(own, assign=True)
    except Exception as error:  # bytes that are no pickle make the unpickler raise anything at all
        raise CheckpointError(
            "it does not hold torchvision's AlexNet features", file=file, remedy="remove or replace it"
        ) from error
    return features.eval().requires_grad_(False)

"""Files of the networks that metrics need."""

from __future__ import annotations

import os
from pathlib import Path


def find(*names: str) -> Path | None:
    """Find a file by its names, in the folder RBS_WEIGHTS or among torch's downloads."""
    import torch

    folders = [Path(torch.hub.get_dir()) / "checkpoints"]
    if folder := os.environ.get("RBS_WEIGHTS"):
        folders.insert(0, Path(folder))
    return next((place / name for place in folders for name in names if (place / name).is_file()), None)

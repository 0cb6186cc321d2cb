"""Reading .npz files whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an .npz file by name.

    Raises:
        ValueError: The file is missing, damaged, or no .npz file.
    """
    try:
        with np.load(path) as content:
            return dict(content)
    except Exception as error:  # a flipped bit surfaces in zipfile, zlib or numpy as nearly any exception
        raise ValueError(" ".join(str(error).split())[:150] or type(error).__name__) from error

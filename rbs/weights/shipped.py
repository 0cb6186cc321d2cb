"""The weight files that come with rbs, and the check against their cards. Needs no PyTorch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rbs.errors import CheckpointError
from rbs.utils.schema import parsed

FOLDER = Path(__file__).parent
SHIPPED = FOLDER / "restorer.safetensors"
"""The shipped restorer; `restorer.json` beside it holds its SHA-256, licence and making."""
GRAPH = FOLDER / "restorer_graph.onnx"
"""Its network for ONNX Runtime, without the weights."""
ENLARGING = FOLDER / "restorer_x2.safetensors"
"""The shipped restorer of coarse scans, to twice as many rows and columns."""
ENLARGING_GRAPH = FOLDER / "restorer_x2_graph.onnx"
"""Its network for ONNX Runtime, without the weights."""
SEGMENTER = FOLDER / "segmenter.safetensors"
"""The shipped segmenter of scans."""
SEGMENTER_GRAPH = FOLDER / "segmenter_graph.onnx"
"""Its network for ONNX Runtime, without the weights."""
DESCRIBER = FOLDER / "describer.safetensors"
"""The shipped description network of scans."""
DESCRIBER_GRAPH = FOLDER / "describer_graph.onnx"
"""Its network for ONNX Runtime, without the weights."""
NAME = "shipped"
"""Names the shipped weights wherever weights are named."""


def weights_path(name: str | Path) -> Path:
    """Path of a weight file as options name it: "shipped" is the restorer that comes with rbs."""
    return SHIPPED if str(name) == NAME else Path(name)


def require_scale(scale: int, wanted: int | None, file: Path) -> None:
    """Require that a restorer gives as many rows and columns as are asked for.

    Args:
        scale: Rows and columns of its restorations per row and column of a scan.
        wanted: Those that are asked for; None for any.
        file: Its file.

    Raises:
        CheckpointError: It gives others.
    """
    if wanted in (scale, None):
        return
    if scale == 1:
        fault, remedy = "its restorations keep the pixels of the scan", "name weights trained with scale 2"
    else:
        fault = "its restorations have twice as many rows and columns as the scan"
        remedy = "restore with it by `rbs restore --scale 2`, or name other weights"
    raise CheckpointError(fault, file=file, remedy=remedy)


def teacher_folder(name: str | Path) -> Path:
    """Folder of an adapted teacher as options name it: "shipped" is the one that comes with rbs."""
    return FOLDER / "teacher" if str(name) == NAME else Path(name)


def file_sha256(file: Path, remedy: str = "check the path") -> str:
    """SHA-256 of a weight file, hexadecimal.

    Args:
        file: The file.
        remedy: What to do where it is missing.

    Raises:
        CheckpointError: The file is missing or cannot be read.
    """
    try:
        if file.is_file():
            with file.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        fault = f"it cannot be read ({error.strerror or error})"
        raise CheckpointError(fault, file=file, remedy="check its permissions") from error
    raise CheckpointError("there is no such weight file", file=file, remedy=remedy)


def check_recorded(file: Path, sha256: str) -> None:
    """Compare a file with the card beside it, which every shipped file has.

    Raises:
        CheckpointError: They differ, or a shipped file has no readable card.
    """
    shipped = file.resolve().parent == SHIPPED.parent.resolve()
    card = (file.resolve() if shipped else file).with_suffix(".json")
    try:
        recorded = parsed(card.read_bytes())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        recorded = None if shipped else sha256
    if sha256 != recorded:
        remedy = "install rbs again" if shipped else "copy both again"
        raise CheckpointError("it differs from the hash recorded beside it", file=file, remedy=remedy)

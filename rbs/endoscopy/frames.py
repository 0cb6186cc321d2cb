"""Pictures on disk: read as frames, sRGB values 0..1, and written without loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rbs.errors import FrameError
from rbs.files import whole_file

Frame = npt.NDArray[np.float32]
"""(3, H, W), gamma-encoded sRGB values 0..1."""
Mask = npt.NDArray[np.bool_]
"""(H, W)."""

_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I")


def read_frame(path: Path) -> Frame:
    """Read a picture of any depth and kind of colour as a frame.

    Grey pictures and palettes become colours, sixteen bits keep their depth where Pillow does (grey ones),
    what is transparent is shown on black, and the orientation that a camera noted is applied.

    Args:
        path: PNG, JPEG, TIFF, BMP or whatever else Pillow reads.

    Returns:
        float32 (3, H, W), sRGB 0..1.

    Raises:
        FrameError: The file is missing, no picture, damaged, holds several pictures, or floating point.
    """
    picture = _decoded(path)
    if picture.mode in _SIXTEEN_BIT:
        grey = np.asarray(picture).astype(np.float32) / np.float32(65535)
        return np.repeat(grey[None], 3, axis=0)
    if picture.mode == "F":
        fault = "it holds floating-point values of unknown range"
        raise FrameError(fault, file=path, remedy="save it as PNG")
    if picture.has_transparency_data:
        from PIL import Image

        opaque = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", opaque.size, (0, 0, 0, 255)), opaque)
    colours = np.asarray(picture.convert("RGB"), np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray(colours / np.float32(255))


def read_mask(path: Path) -> Mask:
    """Read a mask: whatever is not black, or not clear, is in it.

    JPEG blurs the edges of masks: of these, what is brighter than half is in it.

    Raises:
        FrameError: As `read_frame`.
    """
    picture = _decoded(path)
    if picture.mode == "P":
        return np.asarray(picture) > 0  # numbers of classes, whatever colours they have
    values = np.asarray(picture.convert("L") if picture.mode not in _SIXTEEN_BIT else picture)
    return values > (127 if picture.format == "JPEG" or path.suffix.lower() in (".jpg", ".jpeg") else 0)


def reduced(frame: Frame, longest_side: int | None) -> Frame:
    """A frame, or any planes (C, H, W), made smaller by averaging areas until its longer side is this.

    Smaller ones, and all where `longest_side` is None, are left as they are.
    """
    from PIL import Image

    rows, columns = frame.shape[1:]
    if longest_side is None or max(rows, columns) <= longest_side:
        return frame
    share = longest_side / max(rows, columns)
    size = max(1, round(columns * share)), max(1, round(rows * share))
    planes = [Image.fromarray(plane).resize(size, Image.Resampling.BOX) for plane in frame.astype(np.float32)]
    return np.stack([np.asarray(plane, np.float32) for plane in planes])


def write_frame(path: Path, frame: Frame, *, comment: str = "", overwrite: bool = False) -> None:
    """Write a frame as an 8-bit PNG, whole or not at all.

    Args:
        path: The file.
        frame: sRGB values, clipped to 0..1, (3, H, W).
        comment: Said in the file: what made it.
        overwrite: Whether an existing file is replaced.

    Raises:
        OutputError: The file exists, or cannot be written.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    said = PngInfo()
    if comment:
        said.add_text("Comment", comment)
    eight = np.rint(255 * np.clip(frame, 0, 1)).astype(np.uint8)
    with whole_file(path, overwrite=overwrite) as part:
        Image.fromarray(eight.transpose(1, 2, 0)).save(part, "PNG", pnginfo=said)


def _decoded(path: Path) -> Any:
    """The picture, upright and wholly decoded."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not path.is_file():
        raise FrameError("there is no such picture", file=path, remedy="check the path")
    try:
        with Image.open(path) as picture:
            # A JPEG of some cameras holds previews of itself: its first picture is the one.
            held = getattr(picture, "n_frames", 1)
            if held > 1 and picture.format != "MPO":
                fault = f"it holds {held} pictures"
                raise FrameError(fault, file=path, remedy="save them as one file each")
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            upright.format = picture.format  # transposing forgets it
            return upright
    except UnidentifiedImageError:
        raise FrameError("it is no picture", file=path, remedy="remove it from the folder") from None
    # Pillow raises nearly anything on damaged files.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise FrameError(f"it cannot be decoded ({error})", file=path, remedy="copy it again") from error

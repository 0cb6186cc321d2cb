"""Pictures on disk: read as frames, sRGB values 0..1, and written without loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rbs.endoscopy.colour import Frame, Mask, in_8_bits
from rbs.errors import FrameError, RbsError
from rbs.utils.files import whole_file

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are read."""

SUFFIXES = (".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Names of such files."""

_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I")
_MOST_PIXELS = 2**26
_TWELVE_BITS = 4095
_LABELS = 32
"""Values that a map of labels may have; a mask of more was compressed or interpolated."""


def read_frame(path: Path) -> Frame:
    """Read a picture of any depth and kind of colour as a frame.

    Grey pictures and palettes become colours, sixteen bits keep their depth where Pillow does (grey
    ones), transparent pictures are shown on black, and the orientation that a camera noted is
    applied.

    Args:
        path: A picture in one of `FORMATS`.

    Returns:
        float32 (3, H, W), sRGB 0..1.

    Raises:
        FrameError: The file is missing, no picture, damaged, too large, holds several pictures,
            floating point, or 12 bits in the lowest of 16.
    """
    return _colours(path, _decoded(path))


def glance(path: Path, longest_side: int) -> Frame:
    """As `read_frame` and `reduced`, but quicker: a JPEG may be decoded at less than its size.

    Raises:
        FrameError: As `read_frame`.
    """
    return reduced(_colours(path, _decoded(path, 2 * longest_side)), longest_side)


def read_mask(path: Path) -> Mask:
    """Read a mask: all pixels that are neither black nor transparent.

    Compression and interpolation blur the edges of masks: of a JPEG, and of a mask of more values
    than a map of labels has, the mask is the pixels brighter than half.

    Raises:
        FrameError: As `read_frame`.
    """
    picture = _decoded(path)
    if picture.mode == "P":
        return np.asarray(picture) > 0  # numbers of classes, whatever colours they have
    if picture.mode in _SIXTEEN_BIT:
        values = np.asarray(picture).astype(np.int64)
    else:
        values = np.asarray(_on_black(picture).convert("RGB")).max(axis=2)
    jpeg = picture.format == "JPEG" or path.suffix.lower() in (".jpg", ".jpeg")
    blurred = jpeg or len(np.unique(values)) > _LABELS
    return values > (32767 if values.max() > 255 else 127) if blurred else values > 0


def size_of(path: Path) -> tuple[int, int]:
    """Rows and columns of a picture as it is shown, from its header alone.

    Raises:
        FrameError: The header cannot be read.
    """
    from PIL import ExifTags, Image

    with _explained(path), Image.open(path, formats=FORMATS) as picture:
        turned = picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        columns, rows = picture.size[::-1] if turned else picture.size
        return rows, columns


def reduced(frame: Frame, longest_side: int | None) -> Frame:
    """Reduce a frame, or any planes (C, H, W), by averaging areas until its longer side is this.

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
        comment: Note in the file on its origin.
        overwrite: Replace an existing file.

    Raises:
        OutputError: The file exists, or cannot be written.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    said = PngInfo()
    if comment:
        said.add_text("Comment", comment)
    with whole_file(path, overwrite=overwrite) as part:
        Image.fromarray(in_8_bits(frame).transpose(1, 2, 0)).save(part, "PNG", pnginfo=said)


def write_mask(path: Path, mask: Mask, *, overwrite: bool = False) -> None:
    """Write a mask as a PNG of 0 and 255.

    Raises:
        OutputError: It exists, or cannot be written.
    """
    from PIL import Image

    with whole_file(path, overwrite=overwrite) as part:
        Image.fromarray(mask.astype(np.uint8) * 255).save(part, "PNG")


def _colours(path: Path, picture: Any) -> Frame:
    if picture.mode in _SIXTEEN_BIT:
        values = np.asarray(picture)
        _refuse_twelve_bits(path, int(values.max()))
        return np.repeat(values.astype(np.float32)[None] / np.float32(65535), 3, axis=0)
    if picture.mode == "F":
        fault = "it holds floating-point values of unknown range"
        raise FrameError(fault, file=path, remedy="save it as PNG")
    values = np.asarray(_on_black(picture).convert("RGB"))
    if picture.info.get("cut from 16 bits"):
        _refuse_twelve_bits(path, 256 * int(values.max()))
    return np.ascontiguousarray(values.transpose(2, 0, 1), np.float32) / np.float32(255)


def _refuse_twelve_bits(path: Path, highest: int) -> None:
    if 0 < highest <= _TWELVE_BITS:
        fault = f"its sixteen bits hold nothing above {_TWELVE_BITS}, as of a camera of 10 or 12 bits"
        raise FrameError(fault, file=path, remedy="scale it to all of its range, or save it in eight bits")


def _on_black(picture: Any) -> Any:
    from PIL import Image

    if not picture.has_transparency_data:
        return picture
    clear = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, (0, 0, 0, 255)), clear)


def _decoded(path: Path, enough: int | None = None) -> Any:
    """The picture, upright and decoded: at its size, or with `enough` pixels on its longer side."""
    from PIL import Image, ImageOps

    with _explained(path), Image.open(path, formats=FORMATS) as picture:
        if picture.width * picture.height > _MOST_PIXELS:
            fault = f"it has {picture.width} x {picture.height} pixels, more than any endoscope"
            raise FrameError(fault, file=path, remedy="give single frames")
        # A JPEG of some cameras holds previews of itself: its first picture is the one.
        held = getattr(picture, "n_frames", 1)
        if held > 1 and picture.format != "MPO":
            fault = f"it holds {held} pictures"
            raise FrameError(fault, file=path, remedy="save them as one file each")
        # Pillow cuts sixteen bits of colours to eight, and only the way it decodes them tells.
        cut = any(";16" in str(tile) for tile in picture.tile)
        if enough is not None:
            scale = min(1.0, enough / max(picture.size))
            picture.draft("RGB", (round(picture.width * scale), round(picture.height * scale)))
        picture.load()
        upright = ImageOps.exif_transpose(picture)
        upright.format = picture.format  # transposing forgets it
        upright.info["cut from 16 bits"] = cut
        return upright


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Explain errors of a picture: Pillow meets damage with nearly any exception there is."""
    from PIL import UnidentifiedImageError

    if not path.is_file():
        raise FrameError("there is no such picture", file=path, remedy="check the path")
    try:
        yield
    except RbsError:
        raise
    except UnidentifiedImageError:
        fault = "it is no picture" if path.stat().st_size else "it is empty"
        raise FrameError(fault, file=path, remedy="copy it again, or remove it") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            fault = f"it cannot be read ({error.strerror})"
            raise FrameError(fault, file=path, remedy="check the permissions") from error
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise FrameError(f"it cannot be decoded ({reason})", file=path, remedy="copy it again") from error

"""Decoding the pixels of a DICOM file to the very integers that were stored, or refusing them.

A decoder is as credulous as the header it is given: damaged numbers of bits, frames or rows would
yield other counts, or gigabytes of them, without a word. So what the header says is checked against
what is stored.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from pydicom import Dataset, FileDataset
from pydicom.encaps import generate_fragmented_frames, generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from rbs.errors import ScanError
from rbs.scans.dicom import jpeg_lossless
from rbs.scans.scan import Array

_UNCOMPRESSED = {
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
}
_JPEG_LOSSLESS = {JPEGLossless, JPEGLosslessSV1}
_DECODERS = {RLELossless: "pydicom", JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pillow"}
"""pydicom's names of its decoders. By default it prefers GDCM if that is installed, which ends the
whole process at some damaged streams."""
LOSSLESS = {*_UNCOMPRESSED, *_JPEG_LOSSLESS, *_DECODERS}
"""Transfer syntaxes that keep every count and that rbs or its dependencies decode."""

EXPORT_RAW = "export the original, uncompressed raw counts from the camera's workstation"

MOST_PIXELS = 2**24
"""Pixels of all frames together; two views in four energy windows of 1024 x 512 are a quarter of
it."""


def stored_pixels(ds: FileDataset, path: Path) -> Array:
    """The whole numbers stored in a data set of one of the transfer syntaxes `LOSSLESS`.

    Returns:
        (frames, rows, columns) int32, or int64 where a pixel has more than 16 bits.

    Raises:
        ScanError: There are none, or header and pixels contradict each other.
        Exception: Nearly any, where the pixels are damaged.
    """
    transfer_syntax = ds.file_meta.TransferSyntaxUID
    if "PixelData" not in ds:
        raise ScanError("it holds no pixels; it may be truncated", file=path, remedy="export it again")
    rows, columns = (whole_number(ds, keyword, 0, path) for keyword in ("Rows", "Columns"))
    shape = (whole_number(ds, "NumberOfFrames", 1, path) or 1, rows, columns)
    if min(shape) < 1:
        raise ScanError(f"its frames, rows and columns are {shape}", file=path, remedy="export it again")
    size = int(np.prod(shape, dtype=object))
    if size > MOST_PIXELS:
        fault = f"its frames, rows and columns are {shape}, more than a whole-body scan has"
        raise ScanError(fault, file=path, remedy="name a whole-body scan")
    if transfer_syntax in _UNCOMPRESSED:
        needed, there = size * whole_number(ds, "BitsAllocated", 0, path) // 8, len(ds.PixelData)
        # A wrong number of frames or a cut file would otherwise give other counts without a word.
        if there not in (needed, needed + needed % 2):
            fault = f"it holds {there} bytes of pixels instead of {needed}; it is truncated or damaged"
            raise ScanError(fault, file=path, remedy="export it again")
    else:
        _check_streams(ds.PixelData, transfer_syntax, shape, path)
    if transfer_syntax in _JPEG_LOSSLESS:
        streams = map(jpeg_lossless.parse, generate_frames(ds.PixelData, number_of_frames=shape[0]))
        pixels = np.stack([jpeg_lossless.decode(stream) for stream in streams])
        pixels = pixels.view(np.int16) if ds.get("PixelRepresentation") == 1 else pixels
    else:
        decoder = _DECODERS.get(transfer_syntax, "")
        ds.pixel_array_options(correct_unused_bits=False, decoding_plugin=decoder)
        pixels = ds.pixel_array.reshape(shape)
    if not np.issubdtype(pixels.dtype, np.integer):
        raise ScanError(f"its pixels are {pixels.dtype}, not whole counts", file=path, remedy=EXPORT_RAW)
    pixels = _without_unused_bits(pixels, ds, path)
    return pixels.astype(np.int32) if pixels.dtype.itemsize <= 2 else pixels.astype(np.int64)


def whole_number(ds: Dataset, keyword: str, otherwise: int, path: Path) -> int:
    """The number an element holds, or `otherwise` where it is missing or empty.

    Raises:
        ScanError: It holds something else.
    """
    value = ds.get(keyword)
    if value is None or value == "":
        return otherwise
    if not isinstance(value, int):
        raise ScanError(f"its {keyword} is no whole number", file=path, remedy="export it again")
    return int(value)


def _without_unused_bits(pixels: Array, ds: Dataset, path: Path) -> Array:
    """Clear the bits above Bits Stored; they may hold an overlay, but no counts."""
    bits, high_bit = whole_number(ds, "BitsStored", 0, path), whole_number(ds, "HighBit", 0, path)
    unused = max(0, 8 * pixels.dtype.itemsize - bits)
    kept = pixels << unused >> unused  # keeps the sign
    # Old files keep overlays there, and say in which bit (PS3.3 C.9.2, retired).
    overlays = any(e.tag.group & 0xFF00 == 0x6000 and e.tag.element == 0x0102 and e.value for e in ds)
    as_stated = high_bit < bits and (overlays or np.array_equal(kept, pixels))
    if as_stated or ds.get("CountsAccumulated") == kept.sum(dtype=np.int64):
        return kept
    fault = f"its pixels do not fit into the lowest {bits} bits, as its header says they do"
    raise ScanError(fault, file=path, remedy=EXPORT_RAW)


def _check_streams(encoded: bytes, transfer_syntax: UID, shape: tuple[int, int, int], path: Path) -> None:
    """Refuse too many or too few frames, and those of another size or lossy against the header."""
    frames = list(generate_fragmented_frames(encoded, number_of_frames=shape[0]))
    # Without a table of offsets several frames pass for the fragments of one, and all but the first
    # are lost.
    starts = sum(fragment[:4] == frame[0][:4] for frame in frames for fragment in frame)
    if not len(frames) == starts == shape[0]:
        fault = f"it holds {starts} compressed frames instead of {shape[0]}; it is truncated or damaged"
        raise ScanError(fault, file=path, remedy="export it again")
    if transfer_syntax == RLELossless:  # has no header of its own, and no loss
        return
    parameters = {JPEGLSLossless: _of_jpeg_ls, JPEG2000Lossless: _of_jpeg_2000}.get(
        transfer_syntax, _of_jpeg_lossless
    )
    for frame in frames:
        rows, columns, lossless = parameters(b"".join(frame))
        if (rows, columns) != shape[1:]:
            fault = f"its header says {shape[1]} x {shape[2]} pixels, the compressed frame {rows} x {columns}"
            raise ScanError(fault, file=path, remedy="export it again")
        if not lossless:
            raise ScanError("its pixels are lossily compressed", file=path, remedy=EXPORT_RAW)


def _of_jpeg_lossless(frame: bytes) -> tuple[int, int, bool]:
    """Rows, columns and whether a JPEG Lossless stream has all its bits: no point transform."""
    stream = jpeg_lossless.parse(frame)
    return stream.rows, stream.columns, stream.point_transform == 0


def _of_jpeg_ls(frame: bytes) -> tuple[int, int, bool]:
    """Rows, columns and whether a JPEG-LS stream is lossless: ITU-T T.87, annex C."""
    place, size = 2, (0, 0)
    while (marker := frame[place : place + 2]) != b"\xff\xda":  # start of scan
        if marker == b"\xff\xf7":  # start of frame
            size = struct.unpack(">HH", frame[place + 5 : place + 9])
        place += 2 + struct.unpack(">H", frame[place + 2 : place + 4])[0]
    components = frame[place + 4]
    return *size, frame[place + 5 + 2 * components] == 0  # NEAR, the error allowed


def _of_jpeg_2000(frame: bytes) -> tuple[int, int, bool]:
    """Rows, columns and whether a codestream is reversible JPEG 2000: ITU-T T.800, annex A."""
    place = frame.index(b"\xff\x4f\xff\x51")  # start of codestream and size, perhaps inside a JP2 file
    right, lower, left, upper = struct.unpack(">4I", frame[place + 8 : place + 24])
    place += 2
    while frame[place : place + 2] != b"\xff\x52":  # coding style
        place += 2 + struct.unpack(">H", frame[place + 2 : place + 4])[0]
    return lower - upper, right - left, frame[place + 13] == 1

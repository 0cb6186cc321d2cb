"""The content of an instance, apart from how a transfer syntax writes it down."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from rbs.scans.dicom.pixels import stored_pixels
from rbs.scans.dicom.quiet import quiet
from rbs.scans.dicom.reader import decoded
from rbs.scans.dicom.texts import put_stored

_ENCODED = ("PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "DerivationDescription")
"""Elements that differ between transfer syntaxes: dcmtk describes its compression in the last."""
_PADDING = 0xFFFCFFFC


@quiet()
def content_digest(path: Path) -> str:
    """SHA-256 of pixels and header, hexadecimal: the same in every lossless transfer syntax.

    Args:
        path: The file.

    Raises:
        Exception: Nearly any, where the file is damaged.
    """
    ds, damaged = decoded(path)
    digest = hashlib.sha256(repr(damaged).encode())
    pixels = stored_pixels(ds, path)
    digest.update(f"{pixels.shape} {pixels.dtype}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    digest.update(_header(ds))
    return digest.hexdigest()


def _header(ds: Dataset) -> bytes:
    """The elements beside the pixels in Implicit VR Little Endian, with stated lengths."""
    for keyword in _ENCODED:
        if keyword in ds:
            del ds[keyword]
    _normalise(ds)
    put_stored(ds)
    written = DicomBytesIO()
    written.is_implicit_VR = written.is_little_endian = True
    write_dataset(written, ds)
    return written.getvalue()


def _normalise(ds: Dataset) -> None:
    """Take out group lengths and padding, and state the lengths of sequences, at any depth."""
    for element in list(ds):
        if element.tag.element == 0 or element.tag == _PADDING:
            del ds[element.tag]
        elif element.VR == "SQ":
            element.is_undefined_length = False
            for item in element.value:
                item.is_undefined_length_sequence_item = False
                _normalise(item)

"""Label maps as files: DICOM Segmentation, NIfTI or PNG."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rbs.scans.dicom.files import stem_and_suffix
from rbs.scans.dicom.segmentation import write_segmentation
from rbs.scans.dicom.writer import Derivation
from rbs.scans.regions import PALETTE
from rbs.scans.scan import Array, Scan
from rbs.utils.files import whole_file


def write_nifti(path: Path, labels: Array, source: Scan, derivation: Derivation) -> None:
    """Write labels (frames, rows, columns) as the NIfTI array (columns, rows, frames).

    Pixels have their size in mm; a planar view has no place in the room, so no orientation is
    stated.

    Args:
        path: The file to write.
        labels: uint8, as of `write_segmentation`.
        source: The scan.
        derivation: What made the labels.

    Raises:
        OutputError: The file exists or cannot be written.
    """
    import nibabel

    image = nibabel.Nifti1Image(np.ascontiguousarray(labels.T), None)
    down, across = source.spacing_mm
    image.header.set_zooms((across, down, 1.0))
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"rbs {derivation.version}, RESEARCH".encode()
    content = image.to_bytes()
    with whole_file(path) as temporary:
        temporary.write_bytes(gzip.compress(content) if path.suffix.lower() == ".gz" else content)


def write_png(path: Path, labels: Array, source: Scan, derivation: Derivation) -> None:
    """Write labels as a palette picture, the frames of the file beside each other.

    The index of a pixel is its label. Arguments and errors as of `write_nifti`.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    picture = Image.fromarray(np.concatenate(list(labels), axis=1).astype(np.uint8)).convert("P")
    picture.putpalette([value for colour in PALETTE for value in colour])
    about = PngInfo()
    about.add_text("Comment", f"Regions by {derivation.model}, rbs {derivation.version}. Research use only.")
    with whole_file(path) as temporary:
        picture.save(temporary, "PNG", pnginfo=about)


def _write_dicom(path: Path, labels: Array, source: Scan, derivation: Derivation) -> None:
    write_segmentation(path, labels, source, derivation=derivation)


@dataclass(frozen=True)
class LabelFormat:
    """A format of label maps.

    Attributes:
        write: Writes the labels of a scan.
        suffixes: What names of its files may end in, in lower case.
        suffix: Of the files that are named after scans; None for that of the scan.
    """

    write: Callable[[Path, Array, Scan, Derivation], None]
    suffixes: tuple[str, ...]
    suffix: str | None = None

    def output_name(self, path: Path) -> str:
        """Name of the labels of a scan: `child_seg.dcm` of `child.dcm`."""
        stem, suffix = stem_and_suffix(path)
        return f"{stem}_seg{suffix if self.suffix is None else self.suffix}"

    def outputs(self, output: Path) -> dict[str, Path]:
        """All files written for a label map `output`, by what they hold."""
        return {"label map": output}


FORMATS: Mapping[str, LabelFormat] = {
    "seg": LabelFormat(_write_dicom, (".dcm", ".ima")),
    "nifti": LabelFormat(write_nifti, (".nii.gz", ".nii"), ".nii.gz"),
    "png": LabelFormat(write_png, (".png",), ".png"),
}
"""Formats by the names of the command line."""

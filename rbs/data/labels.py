"""Label files: the regions in a scan, beside its DICOM file, or drawn in a viewer.

NAME.labels.npz beside NAME.dcm holds `labels`, uint8 (frames, rows, columns), in the frames of that
file: k + 1 for `rbs.scans.scan.REGIONS[k]`, 0 for background, posterior frames not mirrored. A
DICOM Segmentation object that refers to the scan serves as well.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from rbs.errors import ManifestError, ScanError
from rbs.scans.dicom.files import stem_and_suffix
from rbs.scans.dicom.segmentation import read_segments
from rbs.scans.regions import DESCRIBED
from rbs.scans.scan import REGIONS, Array, Scan
from rbs.segmentation.anatomy import NONE, region_of
from rbs.segmentation.coco import CocoFile, CocoPicture
from rbs.utils.files import read_npz, whole_file


def labels_file(scan: Path) -> Path:
    """Place of the label file of a scan."""
    return scan.with_name(f"{stem_and_suffix(scan)[0]}.labels.npz")


def write_labels(scan: Path, labels: Array) -> None:
    """Write the label file of a scan, in place of an older one.

    Raises:
        OutputError: It cannot be written.
    """
    with whole_file(labels_file(scan), overwrite=True) as path:
        np.savez_compressed(path, labels=labels)


def read_labels(file: Path, scan: Scan) -> Array:
    """Labels of the frames of a scan, uint8 (frames, rows, columns).

    Args:
        file: An .npz file, or a DICOM Segmentation object whose segments have the codes of
            `rbs.scans.regions` or names that `rbs.segmentation.anatomy` knows. Where segments
            overlap, the later one of `REGIONS` wins.
        scan: The scan, as `read_nm` gave it.

    Raises:
        ManifestError: It is no label file, or not of this scan.
        ScanError: Likewise, of a DICOM file.
    """
    if file.suffix.lower() != ".npz":
        return _drawn_labels(file, scan)
    try:
        labels = read_npz(file)["labels"]
    except (ValueError, KeyError) as error:
        remedy = "give an .npz with the array labels, or a DICOM Segmentation object"
        raise ManifestError(f"it is no label file ({error})", file=file, remedy=remedy) from error
    if labels.shape != scan.counts.shape:
        fault = f"its labels have shape {labels.shape}, those of {scan.provenance.path} {scan.counts.shape}"
        raise ManifestError(fault, file=file, remedy="give the labels of this scan")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() > len(REGIONS):
        raise ManifestError("it holds unknown labels", file=file, remedy=f"use 0 to {len(REGIONS)}")
    return labels.astype(np.uint8)


def _drawn_labels(file: Path, scan: Scan) -> Array:
    """Labels from a DICOM Segmentation object."""
    by_code = {region.code[:2]: name for name, region in DESCRIBED.items()}
    masks: dict[str, Array] = {}
    for segment in read_segments(file, scan):
        region = by_code.get(segment.code[:2]) or region_of(segment.label)
        if region is None and (region := region_of(segment.code[2])) == NONE:
            region = None  # viewers call what nobody named a tissue
        if region is None:
            remedy = f"name it after what it shows: {', '.join(REGIONS)}, or a bone"
            raise ScanError(f"its segment '{segment.label}' is no known region", file=file, remedy=remedy)
        masks[region] = segment.mask | masks.get(region, np.False_)
    labels = np.zeros(scan.counts.shape, np.uint8)
    for value, name in enumerate(REGIONS, start=1):
        if name in masks:
            labels[masks[name]] = value
    return labels


def read_regions(table: Path) -> dict[str, str]:
    """Regions of categories, from a CSV with the columns category and region.

    Raises:
        ManifestError: It cannot be read, or names an unknown region.
    """
    known = (*REGIONS, NONE)
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            regions = {row["category"]: row["region"].strip() for row in csv.DictReader(file, strict=True)}
    except (OSError, ValueError, KeyError, AttributeError, csv.Error) as error:
        fault = f"it is no CSV of categories and regions ({type(error).__name__})"
        raise ManifestError(fault, file=table, remedy="begin with category,region") from error
    if wrong := [region for region in regions.values() if region not in known]:
        raise ManifestError(
            f"unknown region {wrong[0]!r}", file=table, remedy=f"use one of {', '.join(known)}"
        )
    return regions


def label_pictures(
    coco: CocoFile, values: Mapping[str, int], folder: Path, pictures: Sequence[Path], scans: Sequence[Path]
) -> list[Path]:
    """Write the label files of scans that were recovered from annotated pictures.

    Args:
        coco: The annotations.
        values: Label of each category.
        folder: Folder of the pictures.
        pictures: Their paths below it.
        scans: The file that each was recovered to.

    Returns:
        Pictures without annotations.

    Raises:
        ManifestError: No picture is annotated, two are meant by one name, or an annotation does not
            fit.
        OutputError: A label file cannot be written.
    """
    found = dict(_annotated(coco, pictures))
    if pictures and not found:
        names = ", ".join(list(coco.pictures)[:3])
        fault = f"it annotates none of the {len(pictures)} pictures, but {names or 'nothing'}"
        raise ManifestError(fault, file=coco.path, remedy="give the annotations of these pictures")
    for picture, scan in zip(pictures, scans, strict=True):
        if picture in found:
            with Image.open(folder / picture) as image:
                shape = (image.height, image.width)
            write_labels(scan, coco.labels(found[picture], values, shape)[None])
    return [picture for picture in pictures if picture not in found]


def _annotated(coco: CocoFile, pictures: Sequence[Path]) -> Iterator[tuple[Path, CocoPicture]]:
    """Annotations of pictures, by their path or, where that is not listed, by their name alone."""
    by_name: dict[str, list[CocoPicture]] = {}
    for listed, entry in coco.pictures.items():
        by_name.setdefault(Path(listed).name, []).append(entry)
    names = [picture.name for picture in pictures]
    for picture in pictures:
        if picture.as_posix() in coco.pictures:
            yield picture, coco.pictures[picture.as_posix()]
        elif alike := by_name.get(picture.name):
            if len(alike) > 1 or names.count(picture.name) > 1:
                fault = f"{picture.name} may be one of several pictures of that name"
                raise ManifestError(fault, file=coco.path, remedy="list pictures by their path below IN")
            yield picture, alike[0]

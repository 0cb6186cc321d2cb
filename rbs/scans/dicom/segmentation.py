"""DICOM Segmentation objects of planar scans: written from label maps, and read.

A planar view has no place in the room: cameras state a position without an orientation, or neither,
and the two views look from opposite sides. So a segmentation has no frame of reference, and its
pixels are those of the scan by reference to its frames (PS3.3 A.51.5.1). highdicom reads such
objects, but makes none of an NM object.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.pixels.utils import pack_bits
from pydicom.tag import Tag
from pydicom.uid import UID, NuclearMedicineImageStorage, SegmentationStorage, generate_uid

from rbs.errors import ScanError
from rbs.scans.dicom.modules import code, date_time, own_codes
from rbs.scans.dicom.reader import blaming, decoded
from rbs.scans.dicom.writer import (
    Derivation,
    blaming_source,
    encoded,
    in_ascii,
    name_series,
)
from rbs.scans.regions import DESCRIBED, Code, Region
from rbs.scans.scan import REGIONS, Array, Scan
from rbs.utils.files import whole_file

LABEL_MAP_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""Label Map Segmentation Storage (Supplement 243), which pydicom does not name yet."""

SEGMENTATIONS = (SegmentationStorage, LABEL_MAP_STORAGE)
"""Classes of objects that hold segments."""

_STUDY = (
    *("SpecificCharacterSet", "TimezoneOffsetFromUTC", "SyntheticData"),
    *("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber"),
    *("ReferringPhysicianName", "SeriesDescription", "SeriesNumber", "BodyPartExamined"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
"""What a segmentation has in common with its scan, beside the groups of `_PATIENT`."""

_PATIENT = (0x0010, 0x0012)
"""Groups of the patient, and of the de-identification or the clinical trial."""

_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("StudyID", "AccessionNumber", "ReferringPhysicianName", "ContentCreatorName"),
    "PatientOrientation",
)
"""What may be empty and must be there."""


def write_segmentation(
    path: str | Path,
    labels: Array,
    source: Scan,
    *,
    derivation: Derivation,
    manual: bool = False,
    overwrite: bool = False,
) -> None:
    """Write the regions of a scan as a Segmentation object: a binary segment for each one present.

    Args:
        path: The file to write.
        labels: k + 1 for `REGIONS[k]`, 0 for background, (frames, rows, columns) of `source`, the
            posterior one not mirrored.
        source: The scan, as `read_nm` gave it.
        derivation: What made the labels.
        manual: Whether a person drew them.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ScanError: `source` has no header or identity to refer to, or there is no region.
        OutputError: The file cannot be written.
    """
    file = source.provenance.path
    header = source.provenance.header
    uids = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    missing = [uid for uid in uids if header is None or not header.get(uid)]
    if header is None or missing:
        fault = f"it has no {missing[0]}, by which its regions would refer to it"
        raise ScanError(fault, file=file, remedy="export it again")
    if labels.shape != source.counts.shape:
        fault = f"labels {labels.shape} are not of its frames {source.counts.shape}"
        raise ScanError(fault, file=file, remedy="give a label for each pixel of each frame")
    present = [value for value in range(1, len(REGIONS) + 1) if (labels == value).any()]
    if not present:
        raise ScanError("there is no region to write", file=file, remedy="is it a bone scan?")
    with blaming_source(source):
        ds = _shared_with(header)
        ds.SOPClassUID, ds.Modality = SegmentationStorage, "SEG"
        ds.SOPInstanceUID, ds.SeriesInstanceUID = generate_uid(None), generate_uid(None)
        ds.InstanceCreationDate, ds.InstanceCreationTime = date_time(datetime.now())
        for name in ("Series", "Content"):
            setattr(ds, f"{name}Date", ds.InstanceCreationDate)
            setattr(ds, f"{name}Time", ds.InstanceCreationTime)
        name_series(ds, "regions RESEARCH", 3000)
        ds.ImageType = ["DERIVED", "PRIMARY"]
        ds.Manufacturer, ds.ManufacturerModelName = "rbs", in_ascii(derivation.model)[:64]
        ds.DeviceSerialNumber, ds.SoftwareVersions = derivation.weight_hash[:64], derivation.version
        ds.ContentLabel, ds.ContentDescription = "REGIONS", "Regions of the skeleton. Research use only."
        ds.CodingSchemeIdentificationSequence = [own_codes()]
        ds.SegmentationType, ds.SegmentsOverlap = "BINARY", "NO"
        ds.SegmentSequence = [
            _segment(number, REGIONS[value - 1], DESCRIBED[REGIONS[value - 1]], derivation, manual)
            for number, value in enumerate(present, start=1)
        ]
        masks = []
        for number, value in enumerate(present, start=1):
            masks += [(number, n, mask) for n, mask in enumerate(labels == value) if mask.any()]
        _add_frames(ds, [(number, n) for number, n, _ in masks], source, header)
        _add_pixels(ds, np.stack([mask for *_, mask in masks]))
        content = encoded(ds)
    with whole_file(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)


def _shared_with(header: Dataset) -> Dataset:
    """A data set of the patient and the study of a scan."""
    ds = Dataset()
    for element in header:
        if element.keyword in _STUDY or element.tag.group in _PATIENT:
            ds[element.tag] = copy.deepcopy(element)
    for keyword in _EMPTY:
        if keyword not in ds:
            setattr(ds, keyword, None)
    if ds.get("BodyPartExamined") == "WHOLE BODY":
        ds.BodyPartExamined = "WHOLEBODY"
    if str(ds.get("LossyImageCompression") or "") != "01":
        ds.LossyImageCompression = "00"
    return ds


def _segment(number: int, name: str, region: Region, derivation: Derivation, manual: bool) -> Dataset:
    item = Dataset()
    item.SegmentNumber, item.SegmentLabel, item.SegmentDescription = number, name, region.description
    item.SegmentedPropertyCategoryCodeSequence = [code(*region.category)]
    item.SegmentedPropertyTypeCodeSequence = [code(*region.code)]
    item.RecommendedDisplayCIELabValue = cielab(region.colour)
    item.SegmentAlgorithmType = "MANUAL" if manual else "AUTOMATIC"
    if not manual:
        item.SegmentAlgorithmName = in_ascii(derivation.model)[:64]
        algorithm = Dataset()
        algorithm.AlgorithmFamilyCodeSequence = [code("123110", "DCM", "Artificial Intelligence")]
        algorithm.AlgorithmName = item.SegmentAlgorithmName
        algorithm.AlgorithmVersion = f"rbs {derivation.version}"
        algorithm.AlgorithmParameters = f"weights sha256 {derivation.weight_hash}"
        algorithm.AlgorithmSource = "rbs"
        item.SegmentationAlgorithmIdentificationSequence = [algorithm]
    return item


def _add_frames(ds: Dataset, frames: Sequence[tuple[int, int]], source: Scan, header: Dataset) -> None:
    """Say of each frame its segment (from 1) and the frame of the scan that it lies on (from 0)."""
    organisation = generate_uid(None)
    ds.DimensionOrganizationSequence = [Dataset()]
    ds.DimensionOrganizationSequence[0].DimensionOrganizationUID = organisation
    ds.DimensionIndexSequence = [
        _dimension(organisation, "ReferencedSegmentNumber", "SegmentIdentificationSequence"),
        _dimension(organisation, "StackID", "FrameContentSequence"),
    ]
    ds.SharedFunctionalGroupsSequence = [Dataset()]
    ds.PerFrameFunctionalGroupsSequence = [_frame(segment, n, source, header) for segment, n in frames]
    instance = Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = (
        header.SOPClassUID,
        header.SOPInstanceUID,
    )
    series = Dataset()
    series.SeriesInstanceUID = header.SeriesInstanceUID
    series.ReferencedInstanceSequence = [instance]
    ds.ReferencedSeriesSequence = [series]


def _dimension(organisation: str, pointer: str, group: str) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = organisation
    item.DimensionIndexPointer, item.FunctionalGroupPointer = Tag(pointer), Tag(group)
    item.DimensionDescriptionLabel = pointer
    return item


def _frame(segment: int, n: int, source: Scan, header: Dataset) -> Dataset:
    """Functional groups of the part of a segment that lies in frame `n` of the scan."""
    content = Dataset()
    content.DimensionIndexValues = [segment, n + 1]
    content.StackID, content.InStackPositionNumber = str(n + 1), 1
    content.FrameLabel = str(source.views[n])
    seen = Dataset()
    seen.ReferencedSOPClassUID, seen.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    if header.SOPClassUID == NuclearMedicineImageStorage or len(source.views) > 1:
        seen.ReferencedFrameNumber = _numbers(source)[n]
    seen.SpatialLocationsPreserved = "YES"
    purpose = code("121322", "DCM", "Source image for image processing operation")
    seen.PurposeOfReferenceCodeSequence = [purpose]
    derived = Dataset()
    derived.SourceImageSequence = [seen]
    derived.DerivationCodeSequence = [code("113076", "DCM", "Segmentation")]
    identified = Dataset()
    identified.ReferencedSegmentNumber = segment
    item = Dataset()
    item.FrameContentSequence = [content]
    item.DerivationImageSequence = [derived]
    item.SegmentIdentificationSequence = [identified]
    return item


def _numbers(scan: Scan) -> tuple[int, ...]:
    """Number of each frame of the scan in its file, counted from 1."""
    return scan.provenance.frames or tuple(range(1, len(scan.views) + 1))


def _add_pixels(ds: Dataset, masks: Array) -> None:
    """Put masks (frames, rows, columns), a bit a pixel."""
    ds.NumberOfFrames, ds.Rows, ds.Columns = masks.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 1
    ds.HighBit = ds.PixelRepresentation = 0
    ds.add_new("PixelData", "OB", pack_bits(masks.astype(np.uint8), pad=True))


def cielab(colour: tuple[int, int, int]) -> list[int]:
    """An sRGB colour as 16-bit CIELab (PS3.3 C.10.7.1.1), white point D50."""
    rgb = np.array(colour) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    # Bradford-adapted from D65, over the white point.
    xyz = (
        np.array(
            [
                [0.4360747, 0.3850649, 0.1430804],
                [0.2225045, 0.7168786, 0.0606169],
                [0.0139322, 0.0971045, 0.7141733],
            ]
        )
        @ linear
        / (0.96422, 1.0, 0.82521)
    )
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])
    return [round(65535 * value) for value in (lab[0] / 100, (lab[1] + 128) / 255, (lab[2] + 128) / 255)]


@dataclass(frozen=True)
class Segment:
    """A segment of a Segmentation object.

    Attributes:
        label: Its name.
        code: Its type: value, coding scheme and meaning.
        mask: bool, (frames, rows, columns) of the scan it refers to.
    """

    label: str
    code: Code
    mask: Array


def read_segments(file: Path, scan: Scan) -> list[Segment]:
    """Read the segments of a Segmentation object of any maker that refers to a scan.

    Args:
        file: A binary, fractional (0.5 and more is inside) or label map segmentation.
        scan: The scan, as `read_nm` gave it.

    Raises:
        ScanError: It cannot be read, is no segmentation, or not of this scan.
    """
    with blaming(file):
        return _read(file, scan)


def _read(file: Path, scan: Scan) -> list[Segment]:
    ds, _ = decoded(file)
    if ds.get("SOPClassUID") not in SEGMENTATIONS:
        remedy = "name a DICOM Segmentation object, or an .npz with the array labels"
        raise ScanError("it is no segmentation", file=file, remedy=remedy)
    shape = (int(ds.Rows), int(ds.Columns))
    if shape != scan.shape:
        fault = f"its frames have {shape} pixels, those of {scan.provenance.path} {scan.shape}"
        raise ScanError(fault, file=file, remedy="give the segmentation of this scan")
    kind = str(ds.get("SegmentationType") or "")
    pixels = np.reshape(ds.pixel_array, (-1, *shape))
    frames = list(ds.get("PerFrameFunctionalGroupsSequence") or [Dataset()] * len(pixels))
    shared = next(iter(ds.get("SharedFunctionalGroupsSequence") or []), Dataset())
    if len(frames) != len(pixels):
        fault = f"it holds {len(pixels)} frames and describes {len(frames)}"
        raise ScanError(fault, file=file, remedy="export it again")
    places = [_frame_of_scan(ds, groups, shared, scan, file) for groups in frames]
    if all(n is None for n in places):
        fault = f"none of its frames lies on the frames read of {scan.provenance.path}"
        raise ScanError(fault, file=file, remedy="give the segmentation of this scan and energy window")
    masks: dict[int, Array] = {}
    for n, groups, frame in zip(places, frames, pixels, strict=True):
        if n is None:
            continue
        for number, inside in _parts(ds, kind, groups, shared, frame):
            mask = masks.setdefault(number, np.zeros(scan.counts.shape, bool))
            mask[n] |= inside
    described = {int(item.SegmentNumber): item for item in ds.get("SegmentSequence") or []}
    if unknown := sorted(set(masks) - set(described)):
        fault = f"its segment {unknown[0]} is not described"
        raise ScanError(fault, file=file, remedy="export it again")
    return [_described(described[number], mask) for number, mask in sorted(masks.items())]


def _frame_of_scan(ds: Dataset, groups: Dataset, shared: Dataset, scan: Scan, file: Path) -> int | None:
    """Frame of the scan that a frame of a segmentation lies on; None for one of another scan."""
    uid = scan.provenance.sop_instance_uid
    derived = groups.get("DerivationImageSequence") or shared.get("DerivationImageSequence") or []
    seen = [image for item in derived for image in item.get("SourceImageSequence") or []]
    of_scan = [image for image in seen if image.get("ReferencedSOPInstanceUID") == uid]
    if seen and not of_scan:
        if uid in _referenced(ds):
            return None
        raise _refers_elsewhere(file, scan)
    if not seen:
        if not (referenced := _referenced(ds)):
            remedy = "draw the regions on the scan itself, and export them with their reference to it"
            raise ScanError("it refers to no scan", file=file, remedy=remedy)
        if uid not in referenced:
            raise _refers_elsewhere(file, scan)
    stated = {int(n) for image in of_scan for n in np.atleast_1d(image.get("ReferencedFrameNumber") or [])}
    if not stated and len(scan.views) == 1:
        return 0
    numbers = _numbers(scan)
    if stated and scan.provenance.frames and stated.isdisjoint(numbers):
        return None  # of another energy window
    if len(stated) != 1 or not stated <= set(numbers):
        fault = f"it does not say which of the {len(scan.views)} frames of the scan its frames lie on"
        remedy = "export it with the Referenced Frame Number of each frame"
        raise ScanError(fault, file=file, remedy=remedy)
    return numbers.index(stated.pop())


def _referenced(ds: Dataset) -> set[str]:
    """SOP Instance UIDs of all images that a segmentation refers to."""
    series = ds.get("ReferencedSeriesSequence") or []
    of_series = [image for item in series for image in item.get("ReferencedInstanceSequence") or []]
    frames = [
        image
        for groups in ds.get("PerFrameFunctionalGroupsSequence") or []
        for item in groups.get("DerivationImageSequence") or []
        for image in item.get("SourceImageSequence") or []
    ]
    return {str(image.get("ReferencedSOPInstanceUID")) for image in (*of_series, *frames)}


def _refers_elsewhere(file: Path, scan: Scan) -> ScanError:
    fault = f"it refers to another scan than {scan.provenance.path}"
    return ScanError(fault, file=file, remedy="give the segmentation of this scan")


def _parts(ds: Dataset, kind: str, groups: Dataset, shared: Dataset, frame: Array) -> list[tuple[int, Array]]:
    """Numbers of the segments in a frame, and where they are, bool (rows, columns)."""
    if kind == "LABELMAP" or ds.SOPClassUID == LABEL_MAP_STORAGE:
        background = int(ds.get("PixelPaddingValue") or 0)
        return [(int(n), frame == n) for n in np.unique(frame) if n != background]
    identified = groups.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
    half = 0.5 * int(ds.MaximumFractionalValue) if kind == "FRACTIONAL" else 0.5
    return [(int(identified[0].ReferencedSegmentNumber), frame >= half)]


def _described(item: Dataset, mask: Array) -> Segment:
    kind: Any = next(iter(item.get("SegmentedPropertyTypeCodeSequence") or []), Dataset())
    names = (str(kind.get(name) or "") for name in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"))
    value, scheme, meaning = names
    return Segment(str(item.get("SegmentLabel") or ""), (value, scheme, meaning), mask)

"""Writing Nuclear Medicine images: acquired (phantoms), recovered, thinned and restored ones.

A restored or thinned object is written from the header of its source, DICOM PS3.3 A.5 (NM Image
IOD). NM has no Modality LUT, so the scale of restored counts goes into the Real World Value
Mapping.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from rbs.errors import RbsError, ScanError
from rbs.scans.dicom.modules import (
    LARGEST_RESTORED,
    STALE,
    code,
    complete,
    date_time,
    describe_tracer,
    detector,
    drop,
    own_codes,
    refine,
    scale_mapping,
    scan_velocity,
    set_pixels,
)
from rbs.scans.dicom.quiet import quiet
from rbs.scans.dicom.reader import RECOVERED, THINNED, cut_code, first_line
from rbs.scans.dicom.texts import can_be_written, put_stored
from rbs.scans.scan import STANDARD_VELOCITY, Array, Scan
from rbs.utils.files import whole_file

RESTORED = ("RESTORED", "99RBS", "Restoration of a low-count scan")
"""Derivation code of restored scans, which `read_nm` refuses as input."""

DEVIATION = ("DEVIATION", "99RBS", "Standard deviation of restored counts")
"""Derivation code of the uncertainty of restored scans, likewise."""

SCALES = (1000, 100, 10)
"""Pixel value of one restored count, the finest that fits. Steps of a tenth of a count are lost in
the noise; coarser ones would quantise the skeleton away for the sake of a hot bladder."""

MOST_CLIPPED = 1e-3
"""Share of pixels too hot for the coarsest scale above which a scan is no bone scan in counts."""


@dataclass(frozen=True)
class PatientHeader:
    """Patient attributes of an acquired object; None leaves one unknown.

    Attributes:
        patient_id: Identifier.
        patient_name: Name; the identifier, as the family name, where empty.
        sex: "M", "F", "O" or empty.
        age_y: Age, years.
        height_m: Height, m.
        weight_kg: Weight, kg.
        activity_mbq: Activity given, MBq.
    """

    patient_id: str
    patient_name: str = ""
    sex: str = ""
    age_y: float | None = None
    height_m: float | None = None
    weight_kg: float | None = None
    activity_mbq: float | None = None


@dataclass(frozen=True)
class StudyHeader:
    """The study that several series of one visit share.

    Attributes:
        uid_seed: Text the Study Instance UID is derived from; the same text gives the same study.
        started: Date and time of the study.
        description: Study Description.
    """

    uid_seed: str
    started: datetime
    description: str = "Whole body bone"


@dataclass(frozen=True)
class Derivation:
    """Origin of a restored scan.

    Attributes:
        model: Name of the restorer.
        version: Version of the software.
        weight_hash: SHA-256 of the weights, hexadecimal.
        short: The model in 64 characters, what matters first; as `model` where empty.
    """

    model: str
    version: str
    weight_hash: str
    short: str = ""


@dataclass(frozen=True)
class Stored:
    """Contents of a restored file.

    Attributes:
        counts: Sum of the counts of all frames, as its pixels and their scale give them.
        clipped: Number of pixels whose counts were too many to be stored.
        largest: The most counts a pixel can hold.
    """

    counts: float
    clipped: int
    largest: float


def write_acquired_nm(
    path: str | Path,
    scan: Scan,
    *,
    patient: PatientHeader,
    study: StudyHeader,
    uid_seed: str,
    series_description: str = "Whole body bone",
    series_number: int = 1,
    acquired: datetime | None = None,
    synthetic: bool = False,
) -> None:
    """Write counts as the NM object a camera would have made; equal arguments give equal bytes.

    Args:
        path: The file to write.
        scan: Whole counts up to 65535 of one or two views, with velocity (cm/min) and duration (s)
            if known; they tell the scan length, or else the frame does.
        patient: What is said of the patient.
        study: The study the object belongs to.
        uid_seed: Text the series and instance UIDs are derived from, unique to this acquisition.
        series_description: Series Description.
        series_number: Series Number.
        acquired: Start of the acquisition; the start of the study where None.
        synthetic: Whether to mark the object as synthetic data.

    Raises:
        ScanError: The counts are not whole numbers of 16 bits.
        OutputError: The file cannot be written.
    """
    when = acquired or study.started
    ds = Dataset()
    _encode(ds, patient.patient_id, patient.patient_name, study.description, series_description)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"]
    if synthetic:
        ds.SyntheticData = "YES"
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["rbs study", study.uid_seed])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["rbs series", uid_seed])
    ds.SOPInstanceUID = generate_uid(entropy_srcs=["rbs instance", uid_seed])
    ds.StudyDate, ds.StudyTime = date_time(study.started)
    for name in ("Series", "Acquisition", "Content"):
        date, time = date_time(when)
        setattr(ds, f"{name}Date", date)
        setattr(ds, f"{name}Time", time)
    ds.StudyDescription, ds.SeriesDescription = study.description, series_description
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = "1", series_number, 1
    ds.BodyPartExamined = "WHOLEBODY"
    ds.Manufacturer = "rbs" if synthetic else None
    if synthetic:
        ds.ManufacturerModelName = "phantom"
    _describe_patient(ds, patient)
    ds.PatientOrientationCodeSequence = [code("102538003", "SCT", "recumbent")]
    modifier = [code("40199007", "SCT", "supine")]
    ds.PatientOrientationCodeSequence[0].PatientOrientationModifierCodeSequence = modifier
    ds.PatientGantryRelationshipCodeSequence = [code("102540008", "SCT", "headfirst")]
    describe_tracer(ds, patient.activity_mbq, study.started)
    _describe_acquisition(ds, scan)
    ds.WholeBodyTechnique = "1PS"
    ds.ScanLength = round(
        scan.velocity / 6 * scan.duration_s
        if scan.velocity and scan.duration_s
        else scan.counts.shape[1] * scan.spacing_mm[0]
    )
    ds.DetectorInformationSequence = [
        detector(view, scan.counts.shape[1:], scan.spacing_mm) for view in scan.views
    ]
    complete(ds, scan)
    set_pixels(ds, _whole_counts(scan))
    _save(ds, path)


def write_recovered_nm(
    path: str | Path,
    scan: Scan,
    *,
    patient: PatientHeader,
    study_seed: str,
    uid_seed: str,
    description: str,
    jpeg_ratio: float | None = None,
    overwrite: bool = False,
) -> None:
    """Write counts recovered from a picture; equal arguments give equal bytes.

    The object is marked DERIVED with the derivation code `RECOVERED`, by which `read_nm` takes it
    for counts. What a picture does not tell (dates, camera, tracer) stays empty, the velocity too
    where it is not known.

    Args:
        path: The file to write.
        scan: Whole counts up to 65535 of one or two views.
        patient: What is said of the patient.
        study_seed: Text the Study Instance UID is derived from: the same for the pictures of one
            visit.
        uid_seed: Text the series and instance UIDs are derived from, unique to the picture.
        description: Scale, confidence, dispersion and source, for the Derivation Description.
        jpeg_ratio: Compression ratio of a JPEG: what was once lossy stays marked so.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ScanError: The counts are not whole numbers of 16 bits.
        OutputError: The file cannot be written.
    """
    ds = Dataset()
    _encode(ds, patient.patient_id, patient.patient_name)
    ds.ImageType = ["DERIVED", "PRIMARY", "WHOLE BODY", "EMISSION"]
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["rbs study", study_seed])
    ds.SeriesInstanceUID, ds.SOPInstanceUID = _uid("series", uid_seed), _uid("instance", uid_seed)
    ds.SeriesDescription = "Counts recovered from a picture"
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.BodyPartExamined = "WHOLEBODY"
    _describe_patient(ds, patient)
    _describe_acquisition(ds, scan)
    complete(ds, scan)
    _say_how(ds, RECOVERED, description, scan.cut)
    _contribute(ds, "rbs", "recover-counts", "", "Recovered the counts of an 8-bit picture")
    ds.LossyImageCompression = "00" if jpeg_ratio is None else "01"
    if jpeg_ratio is not None:
        ds.LossyImageCompressionRatio, ds.LossyImageCompressionMethod = f"{jpeg_ratio:.4g}", "ISO_10918_1"
    set_pixels(ds, _whole_counts(scan))
    _save(ds, path, overwrite)


def write_thinned_nm(path: str | Path, scan: Scan, source: Scan, *, description: str, uid_seed: str) -> None:
    """Write a simulated scan thinned from `source`, or its remainder; equal arguments, equal bytes.

    The object is marked DERIVED with the derivation code `THINNED`, which `read_nm` takes for what
    it is: raw Poisson counts. Velocity and duration are those of `scan`, the simulated ones.

    Args:
        path: The file to write.
        scan: Whole counts, with the velocity (cm/min) and duration (s) they simulate.
        source: The scan they were thinned from, as `read_nm` gave it.
        description: What was done, for the Derivation Description ("50 % of the counts of ..., seed
            3").
        uid_seed: Text the new UIDs are derived from, unique to the source, the draw and the part of
            it.

    Raises:
        ScanError: `source` has no header, or the counts are not whole numbers of 16 bits.
        OutputError: The file cannot be written.
    """
    with blaming_source(source):
        ds = _derived_from(source, scan, "thinned SIMULATED", uid_seed)
        ds.ImageType = ["DERIVED", "PRIMARY", "WHOLE BODY", "EMISSION"]
        for keyword in ("ScanVelocity", "ActualFrameDuration", "CountRate"):
            drop(ds, keyword)
        _describe_acquisition(ds, scan)
        complete(ds, scan)
        _say_how(ds, THINNED, description, scan.cut)
        _contribute(ds, "rbs", "thinning", "", "Simulated a scan by binomial thinning")
        set_pixels(ds, _whole_counts(scan))
        _save(ds, path)


def write_restored_nm(
    path: str | Path, scan: Scan, source: Scan, *, derivation: Derivation, overwrite: bool = False
) -> Stored:
    """Write a restored scan as an object derived from the rapid scan `source`.

    Pixels are round(k x counts), k the largest of `SCALES` that keeps them below 32768; a few
    hotter ones are clipped there. The Real World Value Mapping holds 1/k. Acquisition facts stay
    those of the rapid scan: no gamma events were created.

    Args:
        path: The file to write.
        scan: Restored counts of the frames of `source`, which may be on finer pixels; its velocity
            is the one they are the counts of.
        source: The rapid scan, as `read_nm` gave it.
        derivation: What made it.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ScanError: `source` has no header, the frames do not match, or too many pixels are too hot.
        OutputError: The file cannot be written.
    """
    return _write_result(
        path,
        scan,
        source,
        derivation,
        kind=RESTORED,
        series="restored RESEARCH",
        holds="Counts",
        how="Restored to the counts",
        overwrite=overwrite,
    )


def write_deviation_nm(path: str | Path, scan: Scan, source: Scan, *, derivation: Derivation) -> Stored:
    """Write the standard deviation of a restored scan as an object derived from the rapid scan.

    It is stored as a restored scan is, in a series of its own, and says in words what its pixels
    are.

    Args:
        path: The file to write.
        scan: Standard deviation of the restored counts; its velocity is the one those are the
            counts of.
        source: The rapid scan, as `read_nm` gave it.
        derivation: What states it.

    Raises:
        ScanError: As `write_restored_nm`.
        OutputError: The file cannot be written.
    """
    return _write_result(
        path,
        scan,
        source,
        derivation,
        kind=DEVIATION,
        series="SD of restored RESEARCH",
        holds="Standard deviation of the restored counts",
        how="Standard deviation, pixel by pixel, of the restored counts",
        note="; errors of neighbouring pixels go together: that of a region's mean is larger than 1/sqrt(n)",
        number_after=1000,  # the restored one, which is numbered alike
    )


def _write_result(
    path: str | Path,
    scan: Scan,
    source: Scan,
    derivation: Derivation,
    *,
    kind: tuple[str, str, str],
    series: str,
    holds: str,
    how: str,
    note: str = "",
    number_after: int = 0,
    overwrite: bool = False,
) -> Stored:
    """Write what a network made of `source`, in counts."""
    scale_up = scan.counts.shape[1] // source.counts.shape[1]
    if scale_up > 1:
        coarse, fine = (" x ".join(f"{mm:.4g}" for mm in s.spacing_mm) for s in (source, scan))
        note += f"; each pixel of {coarse} mm cut into {scale_up} x {scale_up} of {fine} mm"
        series = series.replace("restored", f"restored x{scale_up}")
    with blaming_source(source):
        pixels, scale, clipped = _scaled(scan.counts, source.provenance.path)
        ds = _derived_from(source, scan, series)
        ds.ImageType = ["DERIVED", "SECONDARY", "WHOLE BODY", "EMISSION"]
        ds.SeriesNumber += number_after
        if source.velocity is not None:  # the one the scale rests on, also where the user stated it
            ds.ScanVelocity = scan_velocity(source.velocity)
        complete(ds, source)
        if scale_up > 1:
            refine(ds, scan.spacing_mm)
        made_by = f"{derivation.model}, rbs {derivation.version}, weights sha256 {derivation.weight_hash}"
        exposure = f"of a {scan.velocity or STANDARD_VELOCITY:.4g} cm/min scan"
        _say_how(ds, kind, f"{how} {exposure} by {made_by}; pixel value = {scale:g} x counts{note}")
        _contribute(ds, "rbs", derivation.short or derivation.model, derivation.version, kind[2])
        ds.ContentQualification = "RESEARCH"
        ds.ImageComments = "Research use only. Not for diagnostic use."
        set_pixels(ds, pixels)
        ds.RealWorldValueMappingSequence = [scale_mapping(scale, f"{holds} {exposure}")]
        window = max(1, round(float(np.percentile(pixels[pixels > 0], 99.5)))) if pixels.any() else 1
        ds.WindowCenter, ds.WindowWidth = f"{window / 2:.10g}", str(window)
        _save(ds, path, overwrite)
        return Stored(float(pixels.sum(dtype=np.int64)) / scale, clipped, LARGEST_RESTORED / scale)


def _say_how(ds: Dataset, derivation: tuple[str, str, str], description: str, cut: int = 0) -> None:
    """State the derivation in words and by a code, by which rbs knows its own objects again.

    Counts that were cut (`Scan.cut`) are a derivation of their own, which came before.
    """
    steps = [cut_code(cut), derivation] if cut else [derivation]
    ds.DerivationCodeSequence = [code(*step) for step in steps]
    ds.CodingSchemeIdentificationSequence = [own_codes()]
    ds.DerivationDescription = in_ascii(description)[:1024]


def _scaled(counts: Array, file: Path | None) -> tuple[Array, int, int]:
    """Pixels round(k x counts), k, and how many of them were clipped."""
    scale = next((k for k in SCALES if k * counts.max() <= LARGEST_RESTORED), SCALES[-1])
    pixels = np.rint(counts.astype(np.float64) * scale)
    clipped = int((pixels > LARGEST_RESTORED).sum())
    if clipped > MOST_CLIPPED * pixels.size:
        raise ScanError(
            f"{clipped:,} of {pixels.size:,} restored pixels exceed {LARGEST_RESTORED / scale:,.0f} counts, "
            "the most that can be stored",
            file=file,
            remedy="check its counts and its velocity",
        )
    return np.minimum(pixels, LARGEST_RESTORED).astype(np.uint16), scale, clipped


def _derived_from(source: Scan, scan: Scan, label: str, uid_seed: str | None = None) -> Dataset:
    """The header of `source` without what no longer holds, as a new series of the same study.

    With a `uid_seed` the UIDs follow from it and the dates stay: such an object can be made again.
    """
    file = source.provenance.path
    if source.provenance.header is None:
        raise ScanError(
            "the source scan has no DICOM header to derive from", file=file, remedy="read it with read_nm"
        )
    finer, left = np.divmod(scan.counts.shape, source.counts.shape)
    if scan.views != source.views or left.any() or finer[0] != 1 or finer[1] != finer[2]:
        fault = f"the derived counts {scan.counts.shape} do not match {source.counts.shape}"
        raise ScanError(fault, file=file, remedy="derive counts of the same frames")
    ds = deepcopy(source.provenance.header)
    ds.remove_private_tags()
    for tag in list(ds.keys()):
        if tag.group & 0xFF00 in (0x5000, 0x6000):  # curves and overlays drawn on the source
            del ds[tag]
    for keyword in STALE:
        drop(ds, keyword)
    if ds.get("SOPInstanceUID") and ds.get("SOPClassUID"):
        reference = Dataset()
        reference.ReferencedSOPClassUID = ds.SOPClassUID
        reference.ReferencedSOPInstanceUID = ds.SOPInstanceUID
        reference.SpatialLocationsPreserved = "YES" if finer[1] == 1 else "NO"
        purpose = code("121322", "DCM", "Source image for image processing operation")
        reference.PurposeOfReferenceCodeSequence = [purpose]
        ds.SourceImageSequence = [reference]
    if ds.get("BodyPartExamined") == "WHOLE BODY":
        ds.BodyPartExamined = "WHOLEBODY"  # the standard's term; any other would ask for a laterality
    ds.SeriesInstanceUID, ds.SOPInstanceUID = _uid("series", uid_seed), _uid("instance", uid_seed)
    if not ds.get("StudyInstanceUID"):
        ds.StudyInstanceUID = _uid("study", uid_seed)
    drop(ds, "InstanceCreationDate")
    drop(ds, "InstanceCreationTime")
    if uid_seed is None:
        ds.InstanceCreationDate, ds.InstanceCreationTime = date_time(datetime.now())
        ds.ContentDate, ds.ContentTime = ds.InstanceCreationDate, ds.InstanceCreationTime
    name_series(ds, label, 1000)
    burned_in = str(ds.get("BurnedInAnnotation") or "NO").strip().upper() != "NO"
    ds.BurnedInAnnotation = "YES" if burned_in else "NO"
    lossy = str(ds.get("LossyImageCompression") or "") == "01"  # counts recovered from a JPEG
    ds.LossyImageCompression = "01" if lossy else "00"
    return ds


def name_series(ds: Dataset, label: str, number_after: int) -> None:
    """Tell the series of a derived object from its source, whose name and number `ds` has."""
    described = str(ds.get("SeriesDescription") or "")
    described = described if described and can_be_written(described, ds) else "Whole body"
    ds.SeriesDescription = f"{described[:40]} {label}"
    number = str(ds.get("SeriesNumber") or "")
    ds.SeriesNumber = number_after + (int(number[-6:]) if number.isdecimal() else 0)
    ds.InstanceNumber = 1


def _uid(level: str, seed: str | None) -> str:
    """A UID that follows from the seed; a random one without."""
    return generate_uid(entropy_srcs=None if seed is None else [f"rbs {level}", seed])


def _encode(ds: Dataset, *texts: str) -> None:
    """State UTF-8 where a text needs it; without, pydicom writes question marks."""
    if not all(text.isascii() for text in texts):
        ds.SpecificCharacterSet = "ISO_IR 192"


def _describe_patient(ds: Dataset, patient: PatientHeader) -> None:
    ds.PatientID, ds.PatientName = patient.patient_id, patient.patient_name or f"{patient.patient_id}^"
    ds.PatientSex = patient.sex
    if patient.age_y is not None:
        months = int(patient.age_y * 12)
        ds.PatientAge = f"{months:03d}M" if months < 24 else f"{int(patient.age_y):03d}Y"
    if patient.height_m is not None:
        ds.PatientSize = f"{patient.height_m:.4g}"
    if patient.weight_kg is not None:
        ds.PatientWeight = f"{patient.weight_kg:.5g}"


def _describe_acquisition(ds: Dataset, scan: Scan) -> None:
    if scan.velocity is not None:
        ds.ScanVelocity = scan_velocity(scan.velocity)
    if scan.duration_s is not None:
        ds.ActualFrameDuration = round(scan.duration_s * 1000)
    ds.CountsAccumulated = int(scan.counts.sum())


def in_ascii(text: str) -> str:
    """A name from outside as DICOM can hold it: backslashes would part it in two values."""
    return re.sub(r"[^ -\[\]-~]", "?", text)


def _contribute(ds: Dataset, manufacturer: str, model: str, version: str, what: str) -> None:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code("109102", "DCM", "Processing Equipment")]
    item.Manufacturer, item.ManufacturerModelName = manufacturer, in_ascii(model)[:64]
    if version:
        item.SoftwareVersions = in_ascii(version)[:64]
    if "InstanceCreationDate" in ds:
        item.ContributionDateTime = f"{ds.InstanceCreationDate}{ds.InstanceCreationTime}"
    item.ContributionDescription = what
    ds.ContributingEquipmentSequence = [item]


def _whole_counts(scan: Scan) -> Array:
    counts = scan.counts
    if (counts != np.rint(counts)).any() or counts.max() > 65535:
        raise ScanError(
            "the counts are not whole numbers up to 65535", file=scan.provenance.path, remedy="use raw counts"
        )
    return counts.astype(np.uint16)


def _save(ds: Dataset, path: str | Path, overwrite: bool = False) -> None:
    content = encoded(ds)
    with whole_file(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)


def encoded(ds: Dataset) -> bytes:
    """Bytes of a data set's file, Explicit VR Little Endian; equal data sets give equal bytes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    put_stored(ds)
    # In memory first: pydicom calls a value it cannot encode an OSError, as if the disk were at
    # fault.
    content = BytesIO()
    ds.save_as(content, enforce_file_format=True)
    return content.getvalue()


@contextmanager
def blaming_source(source: Scan) -> Iterator[None]:
    """Blame what pydicom cannot carry over or write on the header it came from."""
    try:
        with quiet():
            yield
    except RbsError:
        raise
    except Exception as error:  # a damaged header surfaces in pydicom as nearly any exception there is
        fault = f"its header cannot be carried over ({first_line(error)})"
        raise ScanError(fault, file=source.provenance.path, remedy="export it again") from error

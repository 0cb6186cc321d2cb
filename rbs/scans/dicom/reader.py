"""Reading Nuclear Medicine whole-body images, and refusing those that are not raw counts.

Thinning, Poisson losses and the restoration itself hold only for the integers a camera counted, so
a file is refused unless it shows that it holds them.
"""

from __future__ import annotations

import logging
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    NuclearMedicineImageStorage,
    UID_dictionary,
)
from pydicom.valuerep import STR_VR

from rbs.errors import RbsError, ScanError, printable
from rbs.scans.dicom.pixels import EXPORT_RAW, LOSSLESS, MOST_PIXELS, stored_pixels, whole_number
from rbs.scans.dicom.quiet import quiet
from rbs.scans.dicom.texts import keep_stored, text_of
from rbs.scans.dicom.views import UNNAMED, name_views
from rbs.scans.noise import examine
from rbs.scans.ranges import DURATION
from rbs.scans.scan import Array, Provenance, Scan, View
from rbs.utils.files import require_regular

THINNED = ("THINNED", "99RBS", "Binomial thinning of raw counts")
"""Derivation code of simulated scans: derived, yet still raw Poisson counts, so `read_nm` accepts
them."""

RECOVERED = ("RECOVERED", "99RBS", "Counts recovered from a picture")
"""Derivation code of counts recovered from pictures (`rbs.scans.pictures`), accepted by
`read_nm`."""

MOST_CUT = 99
"""The highest count below which an object may say that its counts were cut to 0."""

WHOLE_BODY = ("WHOLE BODY", "WHOLEBODY", "STATIC", "")
"""Names that cameras give a whole-body scan in the third value of Image Type."""

_OTHER_KINDS = ("DYNAMIC", "GATED", "TOMO", "GATED TOMO", "RECON TOMO", "RECON GATED TOMO")
_PHOTOMETRIC = frozenset(PhotometricInterpretation)
_PRIVATE = {"1.2.840.113619.5.2": "GE Private Implicit VR Big Endian (1.2.840.113619.5.2)"}
_UNDEFINED = "none that DICOM defines"

IDENTITY = ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID")
"""Attributes by which an object is filed."""

LARGEST_FILE = 8 * MOST_PIXELS
"""Bytes of the largest file that is read, also of what a deflated one inflates to."""

TC_99M_KEV = 140.5
"""Energy of the photons of technetium-99m, keV."""

_EXPORT_SCALE = "export it with one real world value mapping that has a slope alone"
_EXPORT_PLAIN = "export it uncompressed (Explicit VR Little Endian)"
_LOG = logging.getLogger("rbs")

START = 132
"""Bytes by which a DICOM file is known."""


def read_nm(
    path: str | Path,
    *,
    content: bytes | None = None,
    views: tuple[View, ...] | None = None,
    energy_window: int | None = None,
    velocity: float | None = None,
    require_raw: bool = True,
    require_views: bool = True,
    processed: bool = False,
) -> Scan:
    """Read the raw counts of a whole-body scan from a DICOM Nuclear Medicine file.

    Args:
        path: A file of one or two views.
        content: Its bytes, where they were read before; the file is not opened then.
        views: The view of each frame, for files that do not name them.
        energy_window: The energy window to read, counted from 1, for files with several.
        velocity: Bed velocity, cm/min, for files that do not state it.
        require_raw: Whether to refuse counts that are not raw (see `rbs.scans.noise`).
        require_views: Whether to refuse a file whose views nothing names. Otherwise they are
            arbitrary, and the provenance has no view rule: good for looking at, not for restoring.
        processed: Whether to read restored and other derived images, too, at the scale of their
            real world values (one mapping with a slope and no intercept): good for looking at.

    Returns:
        The scan with integer counts (those of a derived image are floats), posterior frames not
        mirrored, and the header in its provenance.

    Raises:
        ScanError: The file cannot be read, is no whole-body scan, does not hold raw counts, or
            states another view or velocity than was given.
    """
    path = Path(path)
    with blaming(path):
        return _read(path, content, views, energy_window, velocity, require_raw, require_views, processed)


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Turn any error of a file into one sentence about it, without values of its header.

    Raises:
        ScanError: It is no DICOM file, cannot be opened, or is damaged.
    """
    try:
        with quiet():
            yield
    except RbsError:
        raise
    except InvalidDicomError as error:
        raise ScanError(
            "it is not a DICOM file", file=path, remedy="name a DICOM Nuclear Medicine file"
        ) from error
    except Exception as error:  # a damaged file surfaces in pydicom as nearly any exception there is
        if isinstance(error, OSError) and error.strerror:
            fault, remedy = f"it cannot be read ({error.strerror})", "check the name and the permissions"
            raise ScanError(fault, file=path, remedy=remedy) from error
        fault = f"it cannot be decoded ({first_line(error)})"
        raise ScanError(fault, file=path, remedy="export it again") from error


def first_line(error: Exception) -> str:
    """First line of an error of pydicom up to the first value it quotes, or else its kind."""
    line = re.split(r"""['"]""", (str(error).splitlines() or [""])[0])[0].strip()
    return line[:150] or type(error).__name__


@quiet()
def decoded(path: Path, content: bytes | None = None, **options: Any) -> tuple[FileDataset, list[str]]:
    """Read a file and decode every element now; text keeps its bytes (`rbs.scans.dicom.texts`).

    pydicom would decode an element when it is first asked for, and fail where nobody expects it.
    Damaged elements are left out, or they would fail later, on writing. Files without a preamble
    are read too.

    Args:
        path: The file.
        content: Its bytes, where they were read before; the file is not opened then.
        options: Those of `pydicom.dcmread`.

    Returns:
        The data set, and what was left out.

    Raises:
        InvalidDicomError: It is no DICOM file.
        ScanError: It is a pipe or a device, or would fill the memory.
        Exception: Nearly any, on a file damaged in its structure.
    """
    if content is None:
        require_regular(path, ScanError)
        if (size := path.stat().st_size) > LARGEST_FILE:
            fault = f"it has {size:,} bytes, more than a whole-body scan"
            raise ScanError(fault, file=path, remedy="name a whole-body scan")
    with path.open("rb") if content is None else BytesIO(content) as file:
        start = file.read(START)
        if not starts_like_dicom(start):
            raise InvalidDicomError
        preamble = start[128:] == b"DICM"
        if preamble:
            _refuse_to_inflate(file, path)
        file.seek(0)
        ds = pydicom.dcmread(file, force=not preamble, **options)
    if not ds.file_meta.get("TransferSyntaxUID"):
        implicit, little = ds.original_encoding
        ds.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        )
    return ds, _decode_elements(ds)


def starts_like_dicom(start: bytes) -> bool:
    """True for the start of a DICOM file: a preamble, or an element of group 2 or 8 at once."""
    if len(start) < 8 or start[128:START] == b"DICM":
        return start[128:START] == b"DICM"
    # The first element of an old file is a short one: a length, a character set or the image type.
    for order in "<>":
        group, element, length = struct.unpack(f"{order}HHI", start[:8])
        if group in (2, 8) and element <= 0x20 and (length <= 1024 or start[4:6].isalpha()):
            return True
    return False


def _refuse_to_inflate(file: BinaryIO, path: Path) -> None:
    """Refuse a deflated file that would inflate to gigabytes, which pydicom would do at once.

    Args:
        file: Open behind its preamble.
        path: Its path.
    """
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while piece := file.read(2**14):
        size += len(inflater.decompress(piece))
        if size > LARGEST_FILE:
            fault = "it inflates to more than a whole-body scan holds"
            raise ScanError(fault, file=path, remedy=_EXPORT_PLAIN)


def _read(
    path: Path,
    content: bytes | None,
    views: tuple[View, ...] | None,
    energy_window: int | None,
    velocity: float | None,
    require_raw: bool,
    require_views: bool,
    processed: bool,
) -> Scan:
    if content is None and path.is_file() and path.stat().st_size == 0:
        raise ScanError("it is empty", file=path, remedy="export it again")
    ds, damaged = decoded(path, content)
    _refuse_unreadable_identity(ds, damaged, path)
    for element in damaged:
        _LOG.warning("%s: left out the damaged element %s", printable(path), element)
    transfer_syntax = ds.file_meta.TransferSyntaxUID
    _refuse_other_images(ds, path)
    _refuse_processed(ds, transfer_syntax, path, processed)
    counts = stored_pixels(ds, path)
    header = Dataset()
    # Command and file groups have no place in a data set; a damaged file may hold them all the
    # same.
    header.update({e.tag: e for e in ds if e.tag.group >= 0x0008 and e.keyword != "PixelData"})
    _drop_zeros(header)
    counts, frames = _select_window(header, counts, energy_window, path)
    if counts.shape[0] > 2:
        fault = f"it holds {counts.shape[0]} frames"
        raise ScanError(fault, file=path, remedy="name a whole-body scan of one or two views")
    _refuse_negatives(counts, path)
    if is_processed(header):
        counts = counts * _slope(header, path)
    else:
        _check_counts(header, counts, require_raw, path)
    names: tuple[View, ...] = tuple(View)[: len(counts)]
    rule: str | None = None
    try:
        names, rule = name_views(header, len(counts), views, path)
        _LOG.info("%s: views %s, named by %s", printable(path), ", ".join(names), rule)
    except ScanError as error:
        if require_views or error.fault != UNNAMED:
            raise
    return Scan(
        counts=counts,
        views=names,
        spacing_mm=_spacing(header, path),
        velocity=_velocity(header, velocity, path),
        duration_s=_duration(header, path),
        patient_id=text_of(header, "PatientID"),
        cut=0 if is_processed(header) else _cut(header),
        provenance=Provenance(
            path=path,
            sop_instance_uid=str(header.get("SOPInstanceUID") or "") or None,
            view_rule=rule,
            stored_as=f"{_class_of(header)}, {ds.BitsStored} bits, {transfer_syntax.name}",
            header=header,
            frames=frames,
        ),
    )


def _decode_elements(ds: Dataset) -> list[str]:
    damaged = []
    for tag in list(ds.keys()):
        try:
            raw = ds.get_item(tag)
            element = ds[tag]
            keep_stored(ds, raw)
            for item in element.value if element.VR == "SQ" else ():
                damaged += _decode_elements(item)
        except Exception as error:  # as in read_nm
            damaged.append(f"{tag} ({type(error).__name__})")
            del ds[tag]
    return damaged


def _refuse_unreadable_identity(ds: Dataset, damaged: list[str], path: Path) -> None:
    """Refuse a file that would lose its patient or study, which a derived object must name."""
    for keyword in IDENTITY:
        lost = any(element.startswith(str(Tag(keyword))) for element in damaged)
        if lost or (keyword in ds and ds[keyword].VR not in STR_VR):
            raise ScanError(f"its {keyword} is damaged, or no text", file=path, remedy="export it again")


def _refuse_other_images(ds: Dataset, path: Path) -> None:
    if ds.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        remedy = "name the folder it stands in"
        raise ScanError("it is a DICOMDIR, the table of contents of a folder", file=path, remedy=remedy)
    if ds.get("SOPClassUID") != NuclearMedicineImageStorage:
        if ds.get("Modality") != "NM":
            fault = f"it is {_class_of(ds)} (modality {_modality(ds)}), no Nuclear Medicine image"
            raise ScanError(fault, file=path, remedy="name a DICOM Nuclear Medicine file")
        _LOG.info("%s: stored as %s, read as NM for its modality", printable(path), _class_of(ds))
    kinds = _image_type(ds)
    if len(kinds) > 2 and kinds[2] not in WHOLE_BODY:
        kind = kinds[2] if kinds[2] in _OTHER_KINDS else _UNDEFINED
        raise ScanError(f"its image type is {kind}", file=path, remedy="name a whole-body scan")
    if "TRANSMISSION" in kinds:
        raise ScanError("it is a transmission image", file=path, remedy="name an emission scan")


def is_processed(header: Dataset) -> bool:
    """True for a derived image, unless it holds counts: those that rbs thinned or recovered do."""
    return "DERIVED" in _image_type(header)[:1] and not _counted(header)


def _counted(header: Dataset) -> bool:
    """True for what rbs derived that holds counts all the same."""
    return bool(_derivations(header) & {THINNED[:2], RECOVERED[:2]})


def _slope(header: Dataset, path: Path) -> float:
    """Real world value of a step of the pixels of a derived image.

    Raises:
        ScanError: None is stated, or several, or a pixel of 0 is said to be another value than 0.
    """
    mappings = header.get("RealWorldValueMappingSequence") or []
    slope = positive_number(mappings[0].get("RealWorldValueSlope")) if len(mappings) == 1 else None
    if slope is None:
        fault = "it is a derived image, and what a step of its pixels stands for is not stated"
        raise ScanError(fault, file=path, remedy=_EXPORT_SCALE)
    offsets = mappings[0].get("RealWorldValueIntercept"), header.get("RescaleIntercept")
    if any(offset not in (None, 0) for offset in offsets):
        raise ScanError("a pixel of 0 stands for another value than 0", file=path, remedy=_EXPORT_SCALE)
    return slope


def _refuse_processed(ds: Dataset, transfer_syntax: UID, path: Path, processed: bool) -> None:
    if str(ds.get("LossyImageCompression") or "") == "01" and not _counted(ds):
        raise ScanError("its pixels are lossily compressed", file=path, remedy=EXPORT_RAW)
    if transfer_syntax not in LOSSLESS:
        stored_as = _name_of(transfer_syntax) or "something that DICOM does not define"
        fault = f"it is stored as {stored_as}, which is lossy or cannot be decoded here"
        raise ScanError(fault, file=path, remedy=_EXPORT_PLAIN)
    if is_processed(ds) and not processed:
        raise ScanError(
            "it is a derived image, not an acquired one (ImageType)", file=path, remedy=EXPORT_RAW
        )
    if ds.get("SamplesPerPixel", 1) != 1:
        raise ScanError("it is a colour picture", file=path, remedy=EXPORT_RAW)
    photometric = str(ds.get("PhotometricInterpretation") or "MONOCHROME2")
    if photometric != "MONOCHROME2":
        fault = (
            f"its pixels are {photometric if photometric in _PHOTOMETRIC else _UNDEFINED}, not MONOCHROME2"
        )
        raise ScanError(fault, file=path, remedy=EXPORT_RAW)
    slope, intercept = (ds.get(keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if slope not in (None, 1) or intercept not in (None, 0):
        told = (_number_in(slope), _number_in(intercept))
        _LOG.warning("%s: RescaleSlope %s and intercept %s ignored: NM has none", printable(path), *told)


# Of coded values only the terms of the standard are shown: anything else may be a patient's name,
# where a length is damaged or somebody typed it into the wrong field.
def _class_of(ds: Dataset) -> str:
    """Name of the class of an object in DICOM's dictionary."""
    stated = ds.get("SOPClassUID")
    unknown = "an object of a class that DICOM does not define" if stated else "an object of no stated class"
    return _name_of(stated) or unknown


def _number_in(value: Any) -> str:
    """A number for a message."""
    return f"{value:g}" if isinstance(value, int | float) else "unstated" if value is None else "no number"


def _name_of(uid: Any) -> str:
    """Name of a UID in DICOM's dictionary, or ours of private ones; empty if it has none."""
    return UID(str(uid)).name if str(uid) in UID_dictionary else _PRIVATE.get(str(uid), "")


def _modality(ds: Dataset) -> str:
    """Modality of an object: a term of context group CID 33."""
    from pydicom.sr.codedict import codes

    modality = str(ds.get("Modality") or "")
    known = any(modality == code.value for code in codes.cid33.concepts.values())
    return modality if known else _UNDEFINED if modality else "not stated"


def _derivations(header: Dataset) -> set[tuple[str, str]]:
    """Code and scheme of each derivation that an object states."""
    codes = header.get("DerivationCodeSequence") or []
    return {(str(c.get("CodeValue")), str(c.get("CodingSchemeDesignator"))) for c in codes}


def cut_code(cut: int) -> tuple[str, str, str]:
    """Derivation code of counts of which those up to `cut` were set to 0 (`Scan.cut`)."""
    return f"CUT{cut}", "99RBS", f"Counts up to {cut} set to 0"


def _cut(header: Dataset) -> int:
    found = _derivations(header)
    return next((cut for cut in range(MOST_CUT, 0, -1) if cut_code(cut)[:2] in found), 0)


def _image_type(ds: Dataset) -> list[str]:
    value = ds.get("ImageType") or []
    return [str(part).strip().upper() for part in ([value] if isinstance(value, str) else value)]


def _drop_zeros(header: Dataset) -> None:
    """Drop the zeros that workstations write for an unknown size, weight or dose."""
    tracers = header.get("RadiopharmaceuticalInformationSequence") or []
    known_to_be = [(header, "PatientSize"), (header, "PatientWeight")]
    for part, keyword in known_to_be + [(tracer, "RadionuclideTotalDose") for tracer in tracers]:
        if keyword in part and positive_number(part.get(keyword)) is None:
            del part[keyword]


def _select_window(
    header: Dataset, counts: Array, energy_window: int | None, path: Path
) -> tuple[Array, tuple[int, ...]]:
    """Keep the frames of one energy window, and make `header` describe them alone.

    Returns:
        Their counts, and their numbers, counted from 1; no numbers where all frames are kept.
    """
    frames = counts.shape[0]
    vector = _vector(header, "EnergyWindowVector")
    windows = sorted(set(vector)) if len(vector) == frames else []
    number = len(windows) or whole_number(header, "NumberOfEnergyWindows", 1, path)
    if number == 1 and energy_window in (None, *windows, 1):
        return counts, ()
    if energy_window is None or energy_window not in windows:
        which = ", ".join(map(str, windows)) or "of unstated frames"
        remedy = "choose one with --energy-window N" if windows else EXPORT_RAW
        asked = "" if energy_window is None else f", not {energy_window}"
        raise ScanError(f"it holds {number} energy windows ({which}){asked}", file=path, remedy=remedy)
    kept = [i for i, window in enumerate(vector) if window == energy_window]
    detectors = _vector(header, "DetectorVector")
    header.NumberOfFrames, header.NumberOfEnergyWindows = len(kept), 1
    header.EnergyWindowVector = [1] * len(kept)
    if len(detectors) == frames:
        header.DetectorVector = [detectors[i] for i in kept]
    items = header.get("EnergyWindowInformationSequence") or []
    header.EnergyWindowInformationSequence = items[energy_window - 1 : energy_window]
    header.CountsAccumulated = int(counts[kept].sum())
    return counts[kept], tuple(i + 1 for i in kept)


def _refuse_negatives(counts: Array, path: Path) -> None:
    if (counts < 0).any():
        raise ScanError("some pixels are negative, which counts cannot be", file=path, remedy=EXPORT_RAW)


def _check_counts(header: Dataset, counts: Array, require_raw: bool, path: Path) -> None:
    for frame, total in enumerate(counts.sum(axis=(1, 2), dtype=np.int64), start=1):
        if total == 0:
            raise ScanError(f"frame {frame} holds no counts", file=path, remedy="acquire or export it again")
    stated = positive_number(header.get("CountsAccumulated"))
    if stated is not None and stated != counts.sum(dtype=np.int64):
        _LOG.warning(
            "%s: the pixels sum to %d, CountsAccumulated says %d", printable(path), counts.sum(), stated
        )
    # A view of its own each: one processed view must not hide behind a raw one of more counts.
    for frame, image in enumerate(counts, start=1):
        noise = examine(image, cut=_cut(header), recovered=from_picture(header))
        if noise.unknown:
            _LOG.warning(
                "%s: frame %d has too few counts to tell whether they are raw", printable(path), frame
            )
        elif require_raw and noise.fault:
            fault = f"{noise.fault} in frame {frame}, so it was smoothed or rescaled"
            raise ScanError(fault, file=path, remedy=EXPORT_RAW)
        for region in noise.excess:
            _LOG.warning(
                "%s: frame %d has a hot pixel or another steep source: %s", printable(path), frame, region
            )


def from_picture(header: Dataset | None) -> bool:
    """True for counts recovered from a picture, also after they were thinned."""
    return header is not None and (
        RECOVERED[:2] in _derivations(header)
        or _cut(header) > 0
        or str(header.get("LossyImageCompression") or "") == "01"
    )


def _spacing(header: Dataset, path: Path) -> tuple[float, float]:
    spacing = [positive_number(value) for value in np.atleast_1d(header.get("PixelSpacing") or [])]
    if len(spacing) != 2 or spacing[0] is None or spacing[1] is None:
        fault = "its pixel spacing is missing or zero"
        raise ScanError(fault, file=path, remedy="export it with the PixelSpacing attribute")
    return spacing[0], spacing[1]


def _velocity(header: Dataset, option: float | None, path: Path) -> float | None:
    stated = positive_number(header.get("ScanVelocity"), 6)  # mm/s to cm/min
    # The header holds mm/s with few digits: 6.666667 is 40 cm/min, not 40.000002.
    stated = None if stated is None else round(stated, 4)
    if option is not None and stated is not None and abs(option - stated) > 0.05 * stated:
        fault = f"its ScanVelocity says {stated:g} cm/min, but {option:g} cm/min was given"
        raise ScanError(fault, file=path, remedy="give none for this file, or correct its header")
    return option if stated is None else stated


def _duration(header: Dataset, path: Path) -> float | None:
    """Seconds; None where they are unknown or impossible, since little rests on them."""
    seconds = positive_number(header.get("ActualFrameDuration"), 1e-3)
    if seconds is None or seconds in DURATION:
        return seconds
    _LOG.warning(
        "%s: a duration of %g s (ActualFrameDuration) is taken for unknown", printable(path), seconds
    )
    return None


def positive_number(value: Any, factor: float = 1.0) -> float | None:
    """A number times `factor`; None if it is missing, or zero, which stands for unknown."""
    try:
        number = float(value) * factor
    except (TypeError, ValueError, OverflowError):
        return None
    return number if np.isfinite(number) and number > 0 else None


def energy_window(header: Dataset | None) -> tuple[float, float] | None:
    """Lower and upper limit of the first energy window, keV; None where none is stated."""
    try:
        limits = header.EnergyWindowInformationSequence[0].EnergyWindowRangeSequence[0]  # type: ignore[union-attr]
        low, high = float(limits.EnergyWindowLowerLimit), float(limits.EnergyWindowUpperLimit)
    except (AttributeError, IndexError, TypeError, ValueError):
        return None
    return (low, high) if 0 <= low < high < np.inf else None


def _vector(header: Dataset, keyword: str) -> list[int]:
    value = header.get(keyword)
    return [] if value is None else [int(v) for v in np.atleast_1d(value)]

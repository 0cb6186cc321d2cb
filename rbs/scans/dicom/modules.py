"""Parts of Nuclear Medicine objects: the modules and items that the writers put together."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import NuclearMedicineImageStorage

from rbs.scans.dicom.views import VIEW_CODES
from rbs.scans.scan import Array, Scan, View

LARGEST_RESTORED = 32767
"""Restored pixels stay below the sign bit, which some viewers read as signed."""

STALE = (
    "PixelData",
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "WindowCenter",
    "WindowWidth",
    "WindowCenterWidthExplanation",
    "VOILUTFunction",
    "VOILUTSequence",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "PresentationLUTShape",
    "IconImageSequence",
    "RealWorldValueMappingSequence",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "DerivationDescription",
    "DerivationCodeSequence",
    "SourceImageSequence",
    "ContributingEquipmentSequence",
    "ConversionType",
    "SecondaryCaptureDeviceID",
    "SecondaryCaptureDeviceManufacturer",
    "SecondaryCaptureDeviceManufacturerModelName",
    "SecondaryCaptureDeviceSoftwareVersions",
    "DateOfSecondaryCapture",
    "TimeOfSecondaryCapture",
    "DigitalSignaturesSequence",
    "MACParametersSequence",
    "PlanarConfiguration",
    "SeriesDate",
    "SeriesTime",
    "ImageComments",
)
"""Attributes of the source's pixels, window, compression or capture, not of the new object."""

TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "Manufacturer",
    "PatientOrientationCodeSequence",
    "PatientGantryRelationshipCodeSequence",
    "EnergyWindowInformationSequence",
    "RadiopharmaceuticalInformationSequence",
    "ScanVelocity",
    "ScanLength",
)
"""Attributes that an NM object must have but that may be empty where nobody knows the value."""


def complete(ds: Dataset, scan: Scan) -> None:
    """Add what an NM object must have: known facts from `scan`, unknown ones empty."""
    ds.SOPClassUID, ds.Modality = NuclearMedicineImageStorage, "NM"
    frames = len(scan.views)
    ds.NumberOfFrames = frames
    ds.FrameIncrementPointer = [Tag("EnergyWindowVector"), Tag("DetectorVector")]
    ds.NumberOfEnergyWindows, ds.EnergyWindowVector = 1, [1] * frames
    vector = ds.get("DetectorVector") or []
    if len(np.atleast_1d(vector)) != frames:
        ds.DetectorVector = list(range(1, frames + 1))
    ds.NumberOfDetectors = max(int(d) for d in np.atleast_1d(ds.DetectorVector))
    if not ds.get("DetectorInformationSequence"):
        ds.DetectorInformationSequence = [unknown_detector() for _ in range(ds.NumberOfDetectors)]
    for view, number in zip(scan.views, np.atleast_1d(ds.DetectorVector), strict=True):
        # The views were found out on reading; say them where the camera did not or the user knew
        # better.
        if 1 <= number <= len(ds.DetectorInformationSequence):
            item = ds.DetectorInformationSequence[number - 1]
            if not item.get("ViewCodeSequence") or scan.provenance.view_rule == "option":
                item.ViewCodeSequence = [code(*VIEW_CODES[view])]
    ds.PixelSpacing = [f"{mm:.10g}" for mm in scan.spacing_mm]
    if not ds.get("ActualFrameDuration") and scan.duration_s is not None:
        ds.ActualFrameDuration = round(scan.duration_s * 1000)
    if "CountsAccumulated" not in ds:
        ds.CountsAccumulated = int(scan.counts.sum())
    for keyword in TYPE_2:
        if keyword not in ds:
            setattr(ds, keyword, [] if keyword.endswith("Sequence") else None)


def refine(ds: Dataset, spacing_mm: tuple[float, float]) -> None:
    """State finer pixels of the same field: the centre of the first one moves to its corner."""
    before = [float(mm) for mm in ds.PixelSpacing]
    ds.PixelSpacing = [f"{mm:.10g}" for mm in spacing_mm]
    down, across = ((fine - coarse) / 2 for fine, coarse in zip(spacing_mm, before, strict=True))
    for item in ds.DetectorInformationSequence:
        position, directions = item.get("ImagePositionPatient"), item.get("ImageOrientationPatient")
        if position and directions and len(position) == 3 and len(directions) == 6:
            rows, columns = np.split(np.array(directions, float), 2)
            moved = np.array(position, float) + across * rows + down * columns
            item.ImagePositionPatient = [f"{mm:.10g}" for mm in moved]


def set_pixels(ds: Dataset, stored: Array) -> None:
    """Put 16-bit unsigned pixels (frames, rows, columns) and what describes them."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape[1:]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.add_new("SmallestImagePixelValue", "US", int(stored.min()))
    ds.add_new("LargestImagePixelValue", "US", int(stored.max()))
    ds.add_new("PixelData", "OW", stored.astype("<u2").tobytes())


def describe_tracer(ds: Dataset, activity_mbq: float | None, study_started: datetime) -> None:
    """Tc-99m medronate in a 15 % window at 140 keV, injected three hours before the scan."""
    energies = Dataset()
    energies.EnergyWindowLowerLimit, energies.EnergyWindowUpperLimit = "129.5", "150.5"
    window = Dataset()
    window.EnergyWindowName = "Tc-99m 15%"
    window.EnergyWindowRangeSequence = [energies]
    ds.EnergyWindowInformationSequence = [window]
    tracer = Dataset()
    tracer.Radiopharmaceutical = "Tc-99m MDP"
    tracer.RadionuclideCodeSequence = [code("72454006", "SCT", "^99m^Technetium")]
    tracer.RadiopharmaceuticalCodeSequence = [code("96390006", "SCT", "Technetium Tc^99m^ medronate")]
    if activity_mbq is not None:
        tracer.RadiopharmaceuticalStartTime = date_time(study_started - timedelta(hours=3))[1]
        tracer.RadionuclideTotalDose = f"{activity_mbq:.6g}"  # MBq in NM; Bq only in PET
    ds.RadiopharmaceuticalInformationSequence = [tracer]


def detector(view: View, shape: tuple[int, ...], spacing_mm: tuple[float, float]) -> Dataset:
    """A parallel-hole head above or below a supine patient; origin: middle of the last row."""
    item = unknown_detector()
    item.CollimatorGridName, item.CollimatorType, item.FieldOfViewShape = "LEHR", "PARA", "RECTANGLE"
    side = 1 if view == View.ANTERIOR else -1
    left, top = -side * (shape[1] - 1) / 2 * spacing_mm[1], (shape[0] - 1) * spacing_mm[0]
    item.StartAngle = "180" if view == View.ANTERIOR else "0"  # counted from the patient's back
    item.ImageOrientationPatient = [side, 0, 0, 0, 0, -1]
    item.ImagePositionPatient = [f"{left:.10g}", "0", f"{top:.10g}"]
    item.ViewCodeSequence = [code(*VIEW_CODES[view])]
    return item


def unknown_detector() -> Dataset:
    """A detector of which nothing is known."""
    item = Dataset()
    for keyword in ("CollimatorType", "FocalDistance", "ImageOrientationPatient", "ImagePositionPatient"):
        setattr(item, keyword, None)
    return item


def scan_velocity(cm_per_min: float) -> str:
    """Scan Velocity, mm/s, of a bed velocity in cm/min."""
    return f"{cm_per_min / 6:.10g}"


def scale_mapping(scale: float, explanation: str) -> Dataset:
    """The mapping of pixels to counts: counts = pixel / scale."""
    item = Dataset()
    item.LUTLabel = "COUNTS"
    item.LUTExplanation = explanation
    item.MeasurementUnitsCodeSequence = [code("{counts}", "UCUM", "Counts")]
    item.add_new("RealWorldValueFirstValueMapped", "US", 0)
    item.add_new("RealWorldValueLastValueMapped", "US", LARGEST_RESTORED)
    item.RealWorldValueIntercept, item.RealWorldValueSlope = 0.0, 1 / scale
    return item


def own_codes() -> Dataset:
    """Identifies the coding scheme of the derivation codes."""
    item = Dataset()
    item.CodingSchemeDesignator, item.CodingSchemeName = "99RBS", "rbs private codes"
    return item


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """A code sequence item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def date_time(when: datetime) -> tuple[str, str]:
    """DICOM date and time."""
    return when.strftime("%Y%m%d"), when.strftime("%H%M%S")


def drop(ds: Dataset, keyword: str) -> None:
    """Remove an attribute if it is there."""
    if keyword in ds:
        del ds[keyword]

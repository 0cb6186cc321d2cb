"""NM files written with pydicom alone, as gamma cameras write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

NM = "1.2.840.10008.5.1.4.1.1.20"
CODES = {"anterior": "399321004", "posterior": "399001007"}


def expectation(rows: int = 64, columns: int = 48, level: float = 20.0) -> np.ndarray:
    """A smooth warm body with a hot spot left of the middle, expected counts (rows, columns)."""
    y, x = np.mgrid[:rows, :columns]
    body = np.exp(-(((x - columns / 2) / (columns / 4)) ** 4) - ((y - rows / 2) / (rows / 2.2)) ** 6)
    spot = 5 * np.exp(-((x - columns / 3) ** 2 + (y - rows / 3) ** 2) / 18)
    return level * (0.02 + body + spot)


def poisson(views: int = 1, seed: int = 0, **shape: float) -> np.ndarray:
    """Raw counts (views, rows, columns) of `expectation`."""
    return np.random.default_rng(seed).poisson(np.stack([expectation(**shape)] * views))


def write_nm(
    path: Path,
    counts: np.ndarray,
    *,
    views: tuple[str, ...] = ("anterior",),
    velocity: float | None = 40.0,
    study: str | None = None,
    **changes: object,
) -> Path:
    """Write counts (frames, rows, columns) as NM. `changes` sets attributes; None deletes one."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = NM, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = Dataset()
    ds.file_meta = meta
    ds.ImageType = ["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"]
    ds.SOPClassUID, ds.SOPInstanceUID = NM, meta.MediaStorageSOPInstanceUID
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = "20240102"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = "101500"
    ds.AccessionNumber = ds.ReferringPhysicianName = ds.StudyID = ""
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "NM", "Test camera", "Two heads"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Secret^Name", "P7", "", "F"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study or generate_uid(), generate_uid()
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.CountsAccumulated, ds.ActualFrameDuration = int(counts.sum()), 300_000
    if velocity is not None:
        ds.ScanVelocity = f"{velocity / 6:.6f}"
    ds.WholeBodyTechnique, ds.ScanLength = "1PS", 2000
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.NumberOfFrames, ds.Rows, ds.Columns = counts.shape
    ds.PixelSpacing = [2.3, 2.3]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.FrameIncrementPointer = [0x00540010, 0x00540020]
    ds.NumberOfEnergyWindows, ds.EnergyWindowVector = 1, [1] * len(views)
    ds.EnergyWindowInformationSequence = [_window(126.0, 154.0)]
    ds.NumberOfDetectors, ds.DetectorVector = len(views), [*range(1, len(views) + 1)]
    ds.DetectorInformationSequence = [_detector(view) for view in views]
    ds.PixelData = counts.astype("<u2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def _window(low: float, high: float) -> Dataset:
    limits, window = Dataset(), Dataset()
    limits.EnergyWindowLowerLimit, limits.EnergyWindowUpperLimit = low, high
    window.EnergyWindowRangeSequence = Sequence([limits])
    return window


def _detector(view: str) -> Dataset:
    detector, code = Dataset(), Dataset()
    detector.CollimatorType = "PARA"
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = CODES.get(view, ""), "SCT", view
    detector.ViewCodeSequence = Sequence([code] if view in CODES else [])
    return detector


def changed_copy(source: Path, path: Path, **values: object) -> Path:
    """Write a copy of a scan of another instance UID, with elements changed, or deleted by None."""
    dataset = pydicom.dcmread(source)
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.SOPInstanceUID = values.get("SOPInstanceUID") or generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path)
    return path

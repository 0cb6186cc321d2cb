"""One instance in several transfer syntaxes."""

import numpy as np
import pydicom
import pytest
from nm_files import poisson, write_nm
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from rbs.scans.dicom.content import content_digest

VENDOR = (0x00090010, "LO", "A VENDOR")
SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
)


@pytest.fixture
def file(tmp_path):
    views = ("anterior", "posterior")
    path = write_nm(tmp_path / "a.dcm", poisson(2), views=views, SmallestImagePixelValue=0)
    ds = pydicom.dcmread(path)
    ds.SpecificCharacterSet, ds.PatientName = "ISO_IR 100", "M\xfcller^Anna"
    ds.add_new(*VENDOR)
    ds.add_new(0x00091001, "LO", "ANT")
    ds.add_new(0x00091002, "SL", 7)
    ds.save_as(path)
    return path


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_the_encoding_makes_no_difference(file, tmp_path, syntax):
    ds = pydicom.dcmread(file)
    if syntax.is_compressed and syntax.is_encapsulated:
        ds.compress(syntax, generate_instance_uid=False)
        ds.DerivationDescription = "Lossless compression"
    elif syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    ds.file_meta.TransferSyntaxUID = syntax
    big = syntax == ExplicitVRBigEndian
    pydicom.dcmwrite(
        tmp_path / "b.dcm", ds, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=not big
    )
    assert (tmp_path / "b.dcm").read_bytes() != file.read_bytes()
    assert content_digest(tmp_path / "b.dcm") == content_digest(file)
    changed = pydicom.dcmread(tmp_path / "b.dcm")
    changed.PatientID = "P8"
    changed.save_as(tmp_path / "c.dcm")
    assert content_digest(tmp_path / "c.dcm") != content_digest(file)


def other_pixel(ds):
    ds.PixelData = b"\1" + ds.PixelData[1:]


@pytest.mark.parametrize(
    "change",
    [
        other_pixel,
        lambda ds: setattr(ds, "PatientID", "P8"),
        lambda ds: setattr(ds, "PixelSpacing", [2.4, 2.4]),
        lambda ds: delattr(ds, "ScanVelocity"),
        lambda ds: setattr(ds[0x00091001], "value", "POST"),
        lambda ds: setattr(ds.DetectorInformationSequence[0], "StartAngle", 10),
    ],
)
def test_any_other_pixel_or_fact_does(file, tmp_path, change):
    ds = pydicom.dcmread(file)
    change(ds)
    ds.save_as(tmp_path / "b.dcm")
    assert content_digest(tmp_path / "b.dcm") != content_digest(file)

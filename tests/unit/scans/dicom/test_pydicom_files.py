"""Every file that comes with pydicom: read to what pydicom reads, or refused with file, fault and remedy.

None of them is a whole-body scan, so those with pixels are tried a second time with the header of
one: they must then be read as they are. (Another 79 files are a download of their own, and are not
tried.)
"""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import NuclearMedicineImageStorage

from rbs.errors import ScanError
from rbs.scans.dicom.reader import read_nm
from rbs.scans.scan import View

FOLDER = Path(pydicom.__file__).parent / "data"
FILES = sorted(
    path.relative_to(FOLDER).as_posix()
    for path in FOLDER.rglob("*")
    if path.is_file() and path.suffix not in (".py", ".pyc", ".json")
)
WITH_PIXELS = [
    name
    for name in FILES
    if name != "test_files/SC_rgb_jpeg.dcm"  # its header is damaged: pydicom reads it, but cannot write it
    and any(tag in (FOLDER / name).read_bytes() for tag in (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10"))
]
SMALL_MR = [f"test_files/MR_small{form}.dcm" for form in ("_RLE", "_bigendian", "_expb", "_implicit")]
SMALL_MR += ["test_files/MR_small_jp2klossless.dcm", "test_files/MR_small_jpeg_ls_lossless.dcm"]


def refused(path: Path, **options: object) -> str | None:
    """Why a file is refused; where it is read, its pixels must be those pydicom reads."""
    try:
        scan = read_nm(path, **options)
    except ScanError as error:
        said = error
    else:
        pixels = pydicom.dcmread(path, force=True).pixel_array
        np.testing.assert_array_equal(scan.counts, pixels.reshape(scan.counts.shape))
        return None
    assert said.file == path
    assert said.fault.isprintable()
    assert said.remedy
    return str(said)


def as_whole_body(name: str, path: Path) -> int:
    """A copy that claims to be a whole-body scan; the number of its frames."""
    ds = pydicom.dcmread(FOLDER / name, force=True)
    ds.SOPClassUID, ds.Modality, ds.PixelSpacing = NuclearMedicineImageStorage, "NM", [2.0, 2.0]
    ds.ImageType = ["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"]
    ds.file_meta.MediaStorageSOPClassUID = NuclearMedicineImageStorage
    ds.save_as(path)
    return 1 if name.endswith("badVR.dcm") else int(ds.get("NumberOfFrames") or 1)


@pytest.mark.parametrize("name", FILES)
def test_as_it_is(name: str) -> None:
    assert refused(FOLDER / name)  # no nuclear medicine among them


def test_a_dicomdir_is_told_from_a_scan() -> None:
    names = [name for name in FILES if "DICOMDIR" in name]
    assert len(names) == 8
    for name in names:
        said = refused(FOLDER / name) or ""
        assert "it is a DICOMDIR" in said
        assert "name the folder it stands in" in said


@pytest.mark.filterwarnings("ignore:.*VR:UserWarning")
@pytest.mark.parametrize("name", WITH_PIXELS)
def test_as_a_whole_body_scan(name: str, tmp_path: Path) -> None:
    frames = as_whole_body(name, tmp_path / "scan.dcm")
    views = (View.ANTERIOR, View.POSTERIOR)[:frames]
    said = refused(tmp_path / "scan.dcm", views=views, require_raw=False) or ""
    assert "no Nuclear Medicine" not in said


@pytest.mark.parametrize("name", SMALL_MR)
def test_one_image_in_every_transfer_syntax_is_one_image(name: str, tmp_path: Path) -> None:
    as_whole_body(name, tmp_path / "scan.dcm")
    scan = read_nm(tmp_path / "scan.dcm", views=(View.ANTERIOR,), require_raw=False)
    np.testing.assert_array_equal(scan.counts[0], pydicom.examples.mr.pixel_array)

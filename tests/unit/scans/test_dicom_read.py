"""The reader: what it takes from a header, what it refuses, and that damage never yields other counts."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset, FileDataset
from pydicom.uid import CTImageStorage, JPEGBaseline8Bit, RLELossless, SecondaryCaptureImageStorage
from scipy.ndimage import gaussian_filter

from rbs.errors import ScanError
from rbs.scans.dicom import read_nm
from rbs.scans.scan import Scan, View

Changed = Callable[[Callable[[FileDataset], object]], Path]
BOTH = (View.ANTERIOR, View.POSTERIOR)


def assign(**attributes: object) -> Callable[[FileDataset], object]:
    return lambda ds: [setattr(ds, name, value) for name, value in attributes.items()]


def drop(*names: str) -> Callable[[FileDataset], object]:
    return lambda ds: [delattr(ds, name) for name in names]


def put_pixels(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[FileDataset], object]:
    def how(ds: FileDataset) -> None:
        pixels = np.asarray(change(ds.pixel_array))
        ds.PixelRepresentation = int(pixels.dtype.kind == "i")
        ds.PixelData = pixels.astype("<i2" if pixels.dtype.kind == "i" else "<u2").tobytes()

    return how


def without_views(ds: FileDataset) -> None:
    for item in ds.DetectorInformationSequence:
        item.ViewCodeSequence = []
        item.StartAngle = None


def one_view(ds: FileDataset, frame: int = 0) -> None:
    """Keep one frame, unnamed."""
    ds.PixelData = ds.pixel_array[frame].tobytes()
    ds.NumberOfFrames, ds.DetectorVector, ds.EnergyWindowVector = 1, [1], [1]
    ds.DetectorInformationSequence = [ds.DetectorInformationSequence[frame]]
    ds.SeriesDescription = ""
    without_views(ds)


def test_a_scan_is_read_as_it_was_acquired(nm_file: Path, acquired: Scan) -> None:
    scan = read_nm(nm_file)
    np.testing.assert_array_equal(scan.counts, acquired.counts)
    np.testing.assert_array_equal(scan.counts, pydicom.dcmread(nm_file).pixel_array)
    assert (scan.views, scan.spacing_mm, scan.velocity, scan.duration_s) == (BOTH, (2.4, 2.2), 40.0, 300.0)
    assert scan.counts.dtype == np.int32
    assert scan.patient_id == "P0001"
    assert scan.provenance.view_rule == "ViewCodeSequence"
    assert scan.provenance.header is not None
    assert "PixelData" not in scan.provenance.header


def test_the_real_scan(real_scan: Path) -> None:
    with pytest.raises(ScanError, match="--view"):
        read_nm(real_scan)
    scan = read_nm(real_scan, views=(View.ANTERIOR,))
    assert scan.counts.sum() == 3_596_452  # CountsAccumulated
    assert scan.velocity == pytest.approx(1.671598 * 6, abs=1e-4)
    assert scan.spacing_mm == (2.26, 2.26)
    assert scan.provenance.view_rule == "option"


REFUSALS = {
    "computed tomography": (assign(SOPClassUID=CTImageStorage, Modality="CT"), "no Nuclear Medicine"),
    "no class at all": (drop("SOPClassUID", "Modality"), "no Nuclear Medicine"),
    "tomography": (assign(ImageType=["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"]), "TOMO"),
    "transmission": (assign(ImageType=["ORIGINAL", "PRIMARY", "STATIC", "TRANSMISSION"]), "transmission"),
    "derived": (assign(ImageType=["DERIVED", "PRIMARY", "WHOLE BODY", "EMISSION"]), "derived"),
    "lossy": (assign(LossyImageCompression="01"), "lossily"),
    "colour": (assign(SamplesPerPixel=3), "colour"),
    "inverted": (assign(PhotometricInterpretation="MONOCHROME1"), "MONOCHROME1"),
    "palette": (assign(PhotometricInterpretation="PALETTE COLOR"), "PALETTE"),
    "no pixels": (drop("PixelData"), "no pixels"),
    "short pixels": (lambda ds: setattr(ds, "PixelData", ds.PixelData[:-2]), "truncated"),
    "a frame too few stated": (assign(NumberOfFrames=1), "instead of"),
    "no rows": (drop("Rows"), "rows"),
    "no spacing": (drop("PixelSpacing"), "spacing"),
    "zero spacing": (assign(PixelSpacing=["0", "0"]), "spacing"),
    "one spacing": (assign(PixelSpacing="2.4"), "spacing"),
    "negative": (put_pixels(lambda p: p.astype(np.int16) - 1), "negative"),
    "an empty frame": (
        put_pixels(lambda p: p * np.array([1, 0], np.uint16)[:, None, None]),
        "frame 2 holds no",
    ),
    "doubled": (put_pixels(lambda p: 2 * p), "rescaled"),
    "smoothed": (put_pixels(lambda p: gaussian_filter(p, (0, 1, 1))), "rescaled"),
    "two energy windows": (assign(EnergyWindowVector=[1, 2], NumberOfEnergyWindows=2), "2 energy windows"),
    "views unnamed": (without_views, "--view anterior --view posterior"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_file_fault_and_remedy(name: str, changed: Changed) -> None:
    how, fault = REFUSALS[name]
    path = changed(how)
    with pytest.raises(ScanError, match=fault) as caught:
        read_nm(path)
    assert caught.value.file == path
    assert caught.value.remedy


def test_processed_counts_can_be_asked_for(changed: Changed, acquired: Scan) -> None:
    path = changed(put_pixels(lambda p: 2 * p))
    np.testing.assert_array_equal(read_nm(path, require_raw=False).counts, 2 * acquired.counts)


def test_files_that_are_no_dicom(tmp_path: Path) -> None:
    empty, text = tmp_path / "empty.dcm", tmp_path / "text.dcm"
    empty.write_bytes(b"")
    text.write_text("patient,split\n" * 100)
    for path, fault in (
        (empty, "empty"),
        (text, "not a DICOM"),
        (tmp_path / "none.dcm", "No such"),
        (tmp_path, "read"),
    ):
        with pytest.raises(ScanError, match=fault) as caught:
            read_nm(path)
        assert caught.value.file == path


def test_a_lossy_transfer_syntax_is_refused(nm_file: Path, tmp_path: Path) -> None:
    data = nm_file.read_bytes()
    old = pydicom.dcmread(nm_file).file_meta.TransferSyntaxUID
    ds = pydicom.dcmread(nm_file)
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xd9"])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(tmp_path / "lossy.dcm", implicit_vr=False, little_endian=True)
    assert old.encode() in data
    with pytest.raises(ScanError, match="lossily"):
        read_nm(tmp_path / "lossy.dcm")


def test_lossless_compression_and_signed_pixels_give_the_same_counts(
    nm_file: Path, tmp_path: Path, changed: Changed, acquired: Scan
) -> None:
    ds = pydicom.dcmread(nm_file)
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(tmp_path / "rle.dcm")
    np.testing.assert_array_equal(read_nm(tmp_path / "rle.dcm").counts, acquired.counts)
    signed = read_nm(changed(put_pixels(lambda p: p.astype(np.int16))))
    np.testing.assert_array_equal(signed.counts, acquired.counts)


def test_secondary_capture_of_modality_nm_is_read_and_recorded(
    changed: Changed, acquired: Scan, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "rbs"):
        scan = read_nm(changed(assign(SOPClassUID=SecondaryCaptureImageStorage)))
    np.testing.assert_array_equal(scan.counts, acquired.counts)
    assert "Secondary Capture" in caplog.text


def test_what_does_not_change_counts_is_only_logged(
    changed: Changed, acquired: Scan, caplog: pytest.LogCaptureFixture
) -> None:
    path = changed(assign(CountsAccumulated=7, RescaleSlope="2", RescaleIntercept="0"))
    with caplog.at_level(logging.WARNING, "rbs"):
        np.testing.assert_array_equal(read_nm(path).counts, acquired.counts)
    assert "CountsAccumulated" in caplog.text
    assert "RescaleSlope" in caplog.text


def test_velocity_and_duration(changed: Changed) -> None:
    path = changed(assign(ScanVelocity="0", ActualFrameDuration="0"))
    scan = read_nm(path)
    assert (scan.velocity, scan.duration_s) == (None, None)
    assert read_nm(path, velocity=30.0).velocity == 30.0
    assert read_nm(changed(assign(ScanVelocity="3.3333"))).velocity == pytest.approx(20, abs=1e-3)


def test_one_energy_window_of_two(changed: Changed, acquired: Scan) -> None:
    def two_windows(ds: FileDataset) -> None:
        ds.PixelData = np.concatenate([ds.pixel_array, ds.pixel_array[::-1]]).tobytes()
        ds.EnergyWindowVector, ds.NumberOfEnergyWindows = [1, 1, 2, 2], 2
        ds.DetectorVector, ds.NumberOfFrames = [1, 2, 1, 2], 4
        window = Dataset()
        window.EnergyWindowName = "scatter"
        ds.EnergyWindowInformationSequence = [*ds.EnergyWindowInformationSequence, window]

    path = changed(two_windows)
    scan = read_nm(path, energy_window=2)
    np.testing.assert_array_equal(scan.counts, acquired.counts[::-1])
    header = scan.provenance.header
    assert header is not None
    assert (header.NumberOfFrames, header.NumberOfEnergyWindows) == (2, 1)
    assert header.EnergyWindowInformationSequence[0].EnergyWindowName == "scatter"
    for window in (None, 3):
        with pytest.raises(ScanError, match="energy windows"):
            read_nm(path, energy_window=window)


def name_by_meaning(ds: FileDataset) -> None:
    without_views(ds)
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "17", "99X", "POSTERIOR"
    ds.DetectorInformationSequence[0].ViewCodeSequence = [code]


def name_by_private_text(ds: FileDataset) -> None:
    without_views(ds)
    ds.private_block(0x0011, "CAMERA", create=True).add_new(0x10, "LO", ["Post_WB", "Ant_WB"])


def name_by_detector_text(ds: FileDataset) -> None:
    without_views(ds)
    item = ds.DetectorInformationSequence[1]
    item.private_block(0x0011, "CAMERA", create=True).add_new(0x10, "LO", "WB ANT")


def name_by_angle(ds: FileDataset) -> None:
    without_views(ds)
    ds.DetectorInformationSequence[0].StartAngle = "181.5"


def name_by_old_code(ds: FileDataset) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "G-5216", "SRT", "x"
    without_views(ds)
    ds.DetectorInformationSequence[0].ViewCodeSequence = [code]


@pytest.mark.parametrize(
    ("how", "rule"),
    [
        (name_by_old_code, "ViewCodeSequence"),
        (name_by_meaning, "ViewCodeSequence meaning"),
        (name_by_private_text, "private name (0011,1010)"),
        (name_by_detector_text, "detector text"),
        (name_by_angle, "StartAngle"),
    ],
)
def test_views_of_two_frames(how: Callable[[FileDataset], object], rule: str, changed: Changed) -> None:
    scan = read_nm(changed(how))
    assert scan.views == BOTH[::-1]
    assert scan.provenance.view_rule == rule


@pytest.mark.parametrize(
    ("attributes", "view", "rule"),
    [
        ({"ImageID": "WB_POST 1"}, View.POSTERIOR, "ImageID"),
        ({"ImageID": "ANT/POST", "SeriesDescription": "Anterior"}, View.ANTERIOR, "SeriesDescription"),
        ({"SeriesDescription": "Bone 3h post injection ANT"}, View.ANTERIOR, "SeriesDescription"),
        ({"SeriesDescription": "WB post void"}, None, ""),
        ({"SeriesDescription": "plant, antero, posture"}, None, ""),
        ({"ImageID": "ANT POST"}, None, ""),
    ],
)
def test_the_view_of_one_frame(
    attributes: dict[str, str], view: View | None, rule: str, changed: Changed
) -> None:
    def how(ds: FileDataset) -> None:
        one_view(ds)
        assign(**attributes)(ds)

    path = changed(how)
    if view is None:
        with pytest.raises(ScanError, match="--view anterior or"):
            read_nm(path)
    else:
        scan = read_nm(path)
        assert (scan.views, scan.provenance.view_rule) == ((view,), rule)


def test_both_detectors_alike_name_nothing(changed: Changed) -> None:
    def alike(ds: FileDataset) -> None:
        without_views(ds)
        for item in ds.DetectorInformationSequence:
            item.StartAngle = "0"

    with pytest.raises(ScanError, match="nothing in the header"):
        read_nm(changed(alike))


def test_the_option_wins_and_says_so(nm_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "rbs"):
        scan = read_nm(nm_file, views=BOTH[::-1])
    assert (scan.views, scan.provenance.view_rule) == (BOTH[::-1], "option")
    assert "ViewCodeSequence" in caplog.text
    for views in ((View.ANTERIOR,), (View.ANTERIOR, View.ANTERIOR)):
        with pytest.raises(ScanError, match="2 frames"):
            read_nm(nm_file, views=views)


def test_a_truncated_file_is_refused_at_every_length(nm_file: Path, tmp_path: Path) -> None:
    data = nm_file.read_bytes()
    path = tmp_path / "cut.dcm"
    header = len(data) - 2 * 2 * 96 * 64
    for length in [*range(1, header, 37), *range(header, len(data), 997), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(ScanError) as caught:
            read_nm(path)
        assert caught.value.file == path


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_flipped_bytes_never_raise_anything_but_a_scan_error(nm_file: Path, tmp_path: Path) -> None:
    data = nm_file.read_bytes()
    rng = np.random.default_rng(7)
    path = tmp_path / "flipped.dcm"
    header = len(data) - 2 * 2 * 96 * 64
    read = 0
    for _ in range(400):
        damaged = bytearray(data)
        for position in rng.integers(128, header, rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        with suppress(ScanError):
            assert read_nm(path).counts.min() >= 0
            read += 1
    assert 0 < read < 400

"""The reader: what it takes from a header, what it refuses, and that damage never yields other counts."""

import io
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset, FileDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from scipy.ndimage import gaussian_filter

from rbs.errors import ScanError
from rbs.scans.counts import dispersion_index
from rbs.scans.dicom import RAW_DISPERSION, read_nm
from rbs.scans.dicom_pixels import LOSSLESS
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
    "three frames": (
        lambda ds: assign(NumberOfFrames=3, PixelData=ds.PixelData + ds.PixelData[: len(ds.PixelData) // 2])(
            ds
        ),
        "3 frames",
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


@pytest.mark.parametrize(
    "syntax", [JPEGBaseline8Bit, JPEGLosslessSV1, HTJ2KLossless], ids=lambda uid: uid.name
)
def test_what_is_lossy_or_cannot_be_decoded_is_refused(syntax: UID, nm_file: Path, tmp_path: Path) -> None:
    ds = pydicom.dcmread(nm_file)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xd9"])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(tmp_path / "packed.dcm", implicit_vr=False, little_endian=True)
    with pytest.raises(ScanError, match="lossy or cannot be decoded") as caught:
        read_nm(tmp_path / "packed.dcm")
    assert syntax.name in caught.value.fault
    assert caught.value.remedy == "export it uncompressed (Explicit VR Little Endian)"


def stored_as(syntax: UID, ds: FileDataset) -> None:
    """Encode the pixels and the file as a transfer syntax says."""
    if syntax in (RLELossless, JPEGLSLossless):
        ds.compress(syntax, generate_instance_uid=False)
    elif syntax == JPEG2000Lossless:
        packed = [io.BytesIO() for _ in ds.pixel_array]
        for frame, file in zip(ds.pixel_array, packed, strict=True):
            Image.fromarray(frame).save(file, "JPEG2000", no_jp2=True, irreversible=False)
        ds.PixelData = pydicom.encaps.encapsulate([file.getvalue() for file in packed])
    elif syntax == ExplicitVRBigEndian:
        ds.PixelData = ds.pixel_array.astype(">u2").tobytes()
    ds.file_meta.TransferSyntaxUID = syntax


@pytest.mark.parametrize("syntax", sorted(LOSSLESS), ids=lambda uid: uid.name)
def test_every_accepted_transfer_syntax_keeps_every_count(
    syntax: UID, nm_file: Path, tmp_path: Path, acquired: Scan
) -> None:
    ds, path = pydicom.dcmread(nm_file), tmp_path / "stored.dcm"
    stored_as(syntax, ds)
    pydicom.dcmwrite(
        path,
        ds,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        force_encoding=True,
    )
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_nm(path).counts, acquired.counts)


def test_signed_pixels_give_the_same_counts(changed: Changed, acquired: Scan) -> None:
    signed = read_nm(changed(put_pixels(lambda p: p.astype(np.int16))))
    np.testing.assert_array_equal(signed.counts, acquired.counts)


@pytest.mark.parametrize("implicit", [True, False])
def test_a_file_without_preamble_is_read(
    implicit: bool, nm_file: Path, tmp_path: Path, acquired: Scan
) -> None:
    ds, path = Dataset(), tmp_path / "old"
    ds.update(pydicom.dcmread(nm_file))
    ds.save_as(path, implicit_vr=implicit, little_endian=True)
    assert path.read_bytes()[:2] == b"\x08\x00"
    scan = read_nm(path)
    np.testing.assert_array_equal(scan.counts, acquired.counts)
    assert scan.views == BOTH


def test_a_processed_view_does_not_hide_behind_a_raw_one(changed: Changed) -> None:
    def smooth_the_fainter_view(ds: FileDataset) -> None:
        front, back = gaussian_filter(ds.pixel_array.astype(float), (0, 3, 3))
        front = np.random.default_rng(0).poisson(20 * front)
        ds.PixelData = np.stack([front, np.rint(back / 2)]).astype("<u2").tobytes()

    path = changed(smooth_the_fainter_view)
    counts = read_nm(path, require_raw=False).counts
    for raw in (counts, counts[0]):  # together they pass
        assert RAW_DISPERSION[0] <= dispersion_index(raw) <= RAW_DISPERSION[1]
    with pytest.raises(ScanError, match="noise variance of frame 2"):
        read_nm(path)


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


def test_a_stated_velocity_is_not_overridden(nm_file: Path) -> None:
    assert read_nm(nm_file, velocity=40.5).velocity == 40.0  # the same but for rounding
    with pytest.raises(ScanError, match="its ScanVelocity says 40 cm/min, but 20 cm/min was given") as caught:
        read_nm(nm_file, velocity=20.0)
    assert (caught.value.file, bool(caught.value.remedy)) == (nm_file, True)


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
    """PS3.3, table C.8-11: "Zero degrees is referenced to the origin at the patient's back"."""
    without_views(ds)
    ds.DetectorInformationSequence[0].StartAngle = "1.5"
    ds.DetectorInformationSequence[1].StartAngle = "180"


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


def test_a_view_told_by_its_start_angle_alone_is_doubted(
    changed: Changed, caplog: pytest.LogCaptureFixture
) -> None:
    path = changed(name_by_angle)
    assert read_nm(path).views == BOTH[::-1]
    assert "by StartAngle alone" in caplog.text
    caplog.clear()
    scan = read_nm(path, views=BOTH)  # a camera that counts from the front
    assert (scan.views, scan.provenance.view_rule) == (BOTH, "option")
    assert "though StartAngle says posterior, anterior" in caplog.text


def test_the_option_names_what_the_header_leaves_unsaid(nm_file: Path, changed: Changed) -> None:
    silent = changed(without_views)
    assert read_nm(silent, views=BOTH[::-1]).views == BOTH[::-1]
    for views in ((View.ANTERIOR,), (View.ANTERIOR, View.ANTERIOR)):
        with pytest.raises(ScanError, match="2 frames"):
            read_nm(silent, views=views)
    for views in (BOTH, BOTH[:1]):  # one is meant for files of one frame
        assert read_nm(nm_file, views=views).provenance.view_rule == "ViewCodeSequence"
    with pytest.raises(ScanError, match="its ViewCodeSequence says anterior, posterior, but") as caught:
        read_nm(nm_file, views=BOTH[::-1])
    assert (caught.value.file, bool(caught.value.remedy)) == (nm_file, True)


@pytest.mark.parametrize(
    ("value", "view"),
    [
        (b"WB_POST ", View.POSTERIOR),
        (b"WB_POST".ljust(66), None),  # longer than any name
        (b"\x01\x02 POST \xff\x90", None),
    ],
)
def test_private_elements_of_unknown_type_name_a_view_only_if_they_are_names(
    value: bytes, view: View | None, nm_file: Path, tmp_path: Path
) -> None:
    ds = pydicom.dcmread(nm_file)
    one_view(ds)
    ds.private_block(0x0011, "CAMERA", create=True).add_new(0x10, "UN", value)
    path = tmp_path / "implicit.dcm"
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.save_as(path, implicit_vr=True, little_endian=True)
    if view is None:
        with pytest.raises(ScanError, match="nothing in the header"):
            read_nm(path)
    else:
        assert read_nm(path).views == (view,)


def test_a_truncated_file_is_refused_at_every_length(nm_file: Path, tmp_path: Path) -> None:
    data = nm_file.read_bytes()
    path = tmp_path / "cut.dcm"
    header = len(data) - 2 * 2 * 96 * 64
    for length in [*range(1, header, 37), *range(header, len(data), 997), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(ScanError) as caught:
            read_nm(path)
        assert caught.value.file == path


@pytest.mark.filterwarnings("error::UserWarning")  # pydicom's quote what may be a name
def test_flipped_bytes_never_raise_anything_but_a_scan_error(nm_file: Path, tmp_path: Path) -> None:
    data = nm_file.read_bytes()
    rng = np.random.default_rng(7)
    path = tmp_path / "flipped.dcm"
    header = len(data) - 2 * 2 * 96 * 64
    read, refusals = 0, []
    for _ in range(400):
        damaged = bytearray(data)
        for position in rng.integers(128, header, rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert read_nm(path).counts.min() >= 0
            read += 1
        except ScanError as error:
            refusals.append(error.fault)
    assert read > 0
    assert refusals
    # What runs on past its end would quote the patient's name.
    assert all(fault.isprintable() and len(fault) < 250 and "P0001" not in fault for fault in refusals)

"""The reader: what it takes from a header, what it refuses, and that damage never yields other counts."""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from nm_files import poisson, write_nm
from pydicom import Dataset, FileDataset
from pydicom.datadict import tag_for_keyword
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian, SecondaryCaptureImageStorage
from scipy.ndimage import gaussian_filter

from rbs.clinic.checks import check
from rbs.errors import ScanError
from rbs.scans.counts import dispersion_index
from rbs.scans.dicom.reader import first_line, positive_number, read_nm
from rbs.scans.dicom.writer import Derivation, write_restored_nm
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


def test_processed_counts_can_be_asked_for(changed: Changed, acquired: Scan) -> None:
    path = changed(put_pixels(lambda p: 2 * p))
    np.testing.assert_array_equal(read_nm(path, require_raw=False).counts, 2 * acquired.counts)


def derived(slope: float | None = 0.5, intercept: float = 0.0) -> Callable[[FileDataset], object]:
    def how(ds: FileDataset) -> None:
        ds.ImageType = ["DERIVED", "PRIMARY", "WHOLE BODY", "EMISSION"]
        item = Dataset()
        item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, intercept
        ds.RealWorldValueMappingSequence = [] if slope is None else [item]

    return how


def test_derived_images_are_read_at_the_scale_they_state(changed: Changed, acquired: Scan) -> None:
    path = changed(derived())
    with pytest.raises(ScanError, match="derived image, not an acquired one"):
        read_nm(path)
    np.testing.assert_array_equal(read_nm(path, processed=True).counts, acquired.counts / 2)


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ([derived(slope=None)], "what a step of its pixels stands for is not stated"),
        ([derived(slope=0.0)], "is not stated"),
        ([derived(intercept=-3.0)], "a pixel of 0 stands for another value than 0"),
        ([derived(), assign(RescaleSlope=1, RescaleIntercept=-1024)], "a pixel of 0 stands for another"),
        ([derived(), put_pixels(lambda p: p.astype("<i2") - 1)], "some pixels are negative"),
    ],
)
def test_derived_images_without_a_scale_of_counts_are_refused(changed: Changed, how, fault: str) -> None:
    path = changed(lambda ds: [change(ds) for change in how])
    with pytest.raises(ScanError, match=fault) as refusal:
        read_nm(path, processed=True)
    assert refusal.value.remedy


def test_files_that_are_no_dicom(tmp_path: Path) -> None:
    empty, text = tmp_path / "empty.dcm", tmp_path / "text.dcm"
    empty.write_bytes(b"")
    text.write_text("patient,split\n" * 100)
    for path, fault in (
        (empty, "empty"),
        (text, "not a DICOM"),
        (tmp_path / "none.dcm", "No such"),
        (tmp_path, "a folder"),
    ):
        with pytest.raises(ScanError, match=fault) as caught:
            read_nm(path)
        assert caught.value.file == path


def test_a_processed_view_does_not_hide_behind_a_raw_one(changed: Changed) -> None:
    def smooth_the_fainter_view(ds: FileDataset) -> None:
        front, back = gaussian_filter(ds.pixel_array.astype(float), (0, 3, 3))
        front = np.random.default_rng(0).poisson(20 * front)
        ds.PixelData = np.stack([front, np.rint(back / 2)]).astype("<u2").tobytes()

    path = changed(smooth_the_fainter_view)
    counts = read_nm(path, require_raw=False).counts
    for raw in (counts, counts[0]):  # together they pass
        assert 0.85 < dispersion_index(raw) < 1.1
    with pytest.raises(ScanError, match=r"noise variance is .* in frame 2"):
        read_nm(path)


def test_smoothed_and_rescaled_counts_with_the_noise_of_raw_ones_are_refused(tmp_path: Path) -> None:
    counts = poisson(2, rows=256, columns=128)
    for sigma, scale in ((0.45, 2.54), (0.6, 13.23), (0.35, 1.0)):
        smooth = np.rint(gaussian_filter(counts.astype(float), (0, sigma, sigma)) * scale).astype(np.int64)
        path = write_nm(tmp_path / f"{sigma}.dcm", smooth, views=("anterior", "posterior"))
        with pytest.raises(ScanError, match="smoothed or rescaled"):
            read_nm(path)
        assert read_nm(path, require_raw=False).counts.sum() == smooth.sum()


def test_a_hot_pixel_is_located_and_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counts = poisson(2, rows=256, columns=128)
    counts[1, 40, 70] = 20_000
    scan = read_nm(write_nm(tmp_path / "hot.dcm", counts, views=("anterior", "posterior")))
    np.testing.assert_array_equal(scan.counts, counts)
    assert "frame 2 has a hot pixel or another steep source: rows 39-41, columns 69-71" in caplog.text


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


NAME = "Secret^Name\x1b[2J"


def planted(keyword: str, vr: str) -> Callable[[FileDataset], None]:
    """Put a name with an escape code into an attribute, whatever its type."""

    def plant(ds: FileDataset) -> None:
        if keyword in ds:
            del ds[keyword]
        if keyword == "Modality":
            ds.SOPClassUID = SecondaryCaptureImageStorage
        value = ["ORIGINAL", "PRIMARY", NAME] if keyword == "ImageType" else NAME
        ds.add_new(tag_for_keyword(keyword), vr, value)

    return plant


@pytest.mark.parametrize(
    ("keyword", "vr"),
    [
        *(("RescaleSlope", "LO"), ("RescaleIntercept", "UT"), ("Modality", "CS"), ("Modality", "LO")),
        *(("ImageType", "CS"), ("PhotometricInterpretation", "CS"), ("SOPClassUID", "LO")),
        *(("Rows", "LO"), ("ScanVelocity", "LO"), ("PixelSpacing", "LO"), ("ActualFrameDuration", "SH")),
        *(("CountsAccumulated", "LO"), ("NumberOfEnergyWindows", "LO"), ("LossyImageCompression", "LO")),
        *(("EnergyWindowVector", "LO"), ("DetectorVector", "LO"), ("NumberOfFrames", "LO")),
    ],
)
def test_of_coded_values_only_terms_of_the_standard_are_shown(
    changed: Changed, keyword: str, vr: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = changed(planted(keyword, vr))
    caplog.clear()
    with caplog.at_level(logging.INFO, "rbs"):
        try:
            said = str(check(read_nm(path, views=BOTH)))
        except ScanError as error:
            said = str(error)
    for text in (said, caplog.text):
        assert "Secret" not in text
        assert "\x1b" not in text


def test_terms_of_the_standard_are_shown(changed: Changed) -> None:
    with pytest.raises(ScanError, match=r"CT Image Storage \(modality CT\)"):
        read_nm(changed(assign(SOPClassUID=CTImageStorage, Modality="CT")))
    with pytest.raises(ScanError, match="its image type is GATED TOMO"):
        read_nm(changed(assign(ImageType=["ORIGINAL", "PRIMARY", "GATED TOMO"])))
    with pytest.raises(ScanError, match="its image type is none that DICOM defines"):
        read_nm(changed(assign(ImageType=["ORIGINAL", "PRIMARY", "SMITH"])))


@pytest.mark.parametrize("name", ["\x1b[31mred.dcm", "caf\udce9.dcm", "a\u202egnp.dcm", "two\nlines.dcm"])
def test_file_names_cannot_steer_the_terminal(
    nm_file: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    ds = pydicom.dcmread(nm_file)
    ds.CountsAccumulated = 7
    with path.open("wb") as file:
        ds.save_as(file)
    said = [str(check(read_nm(path)))]
    path.write_bytes(b"")
    with pytest.raises(ScanError) as caught:
        read_nm(path)
    for text in (*said[0].splitlines(), str(caught.value), *caplog.messages):
        assert text.isprintable(), text
    assert caplog.messages


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("PatientID", "OB", b"4711"),
        ("PatientName", "FD", 1.0),
        ("StudyInstanceUID", "US", 7),
        ("PatientBirthDate", "SV", 7),
    ],
)
def test_a_file_that_would_lose_its_patient_is_refused(
    changed: Changed, keyword: str, vr: str, value: object
) -> None:
    path = changed(lambda ds: ds.add_new(tag_for_keyword(keyword), vr, value))
    with pytest.raises(ScanError, match=f"its {keyword} is damaged, or no text"):
        read_nm(path)


def test_a_patient_id_of_unknown_type_is_refused(changed: Changed) -> None:
    path = changed(lambda ds: ds.add_new(tag_for_keyword("PatientID"), "LO", "P0001"))
    content = path.read_bytes()
    assert content.count(b"\x10\x00\x20\x00LO") == 1
    path.write_bytes(content.replace(b"\x10\x00\x20\x00LO", b"\x10\x00\x20\x00ZL"))
    with pytest.raises(ScanError, match="its PatientID is damaged"):
        read_nm(path)


@pytest.mark.parametrize("depth", [30, 300, 900, 5000])
def test_deep_nesting_never_ends_in_a_traceback(nm_file: Path, tmp_path: Path, depth: int) -> None:
    item, end = b"\xfe\xff\x00\xe0" + b"\xff" * 4, b"\xfe\xff\x0d\xe0" + bytes(4)
    sequence, stop = b"\x08\x00\x40\x11SQ\0\0" + b"\xff" * 4, b"\xfe\xff\xdd\xe0" + bytes(4)
    nested = (sequence + item) * depth + (end + stop) * depth  # ReferencedImageSequence
    content = nm_file.read_bytes()
    place = content.index(b"\x10\x00\x10\x00PN")
    (tmp_path / "a.dcm").write_bytes(content[:place] + nested + content[place:])
    made_by = Derivation("f1", "0", "ab" * 32)
    with suppress(ScanError):
        scan = read_nm(tmp_path / "a.dcm")
        check(scan)
        write_restored_nm(tmp_path / "r.dcm", replace(scan, velocity=20.0), scan, derivation=made_by)
    if depth == 30:  # no camera nests deeper than five
        assert (tmp_path / "r.dcm").exists()


def test_a_number_too_large_for_a_float_is_unknown() -> None:
    assert positive_number(10**400) is None


@pytest.mark.parametrize("error", [ValueError("bad 'Secret\nName"), ValueError('x "it\'s Secret" y Secret')])
def test_what_pydicom_quotes_is_not_repeated(error: Exception) -> None:
    assert "Secret" not in first_line(error)
    assert first_line(ValueError("'Secret'")) == "ValueError"


def test_velocity_and_duration(changed: Changed) -> None:
    path = changed(assign(ScanVelocity="0", ActualFrameDuration="0"))
    scan = read_nm(path)
    assert (scan.velocity, scan.duration_s) == (None, None)
    assert read_nm(path, velocity=30.0).velocity == 30.0
    assert read_nm(changed(assign(ScanVelocity="3.3333"))).velocity == pytest.approx(20, abs=1e-3)


@pytest.mark.parametrize(
    ("attributes", "fault"),
    [
        ({"PixelSpacing": ["1e-4", "1e-4"]}, "its pixel spacing is 0.0001 mm, outside the 0.5 to 20 mm of"),
        ({"PixelSpacing": ["2.4", "1e-300"]}, "its pixel spacing is 1e-300 mm"),
        ({"PixelSpacing": ["9000", "9000"]}, "its pixel spacing is 9000 mm"),
        ({"ScanVelocity": "1e300"}, r"its scan velocity is 6e\+300 cm/min, outside the 1 to 1000 cm/min of"),
        ({"ScanVelocity": "0.01"}, "its scan velocity is 0.06 cm/min"),
    ],
)
def test_numbers_that_no_camera_gives_are_refused(
    changed: Changed, attributes: dict[str, object], fault: str
) -> None:
    path = changed(assign(**attributes))
    with pytest.raises(ScanError, match=fault) as caught:
        read_nm(path)
    assert (caught.value.file, caught.value.remedy) == (path, "correct its header")


def test_a_velocity_that_is_given_lies_in_the_same_range(changed: Changed) -> None:
    with pytest.raises(ScanError, match="its scan velocity is 5000 cm/min"):
        read_nm(changed(assign(ScanVelocity="")), velocity=5000.0)


@pytest.mark.parametrize("milliseconds", ["5", "2147483647"])
def test_an_impossible_duration_is_unknown(
    changed: Changed, milliseconds: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_nm(changed(assign(ActualFrameDuration=milliseconds))).duration_s is None
    assert "ActualFrameDuration" in caplog.text


def test_a_stated_velocity_is_not_overridden(nm_file: Path) -> None:
    assert read_nm(nm_file, velocity=40.5).velocity == 40.0  # the same but for rounding
    with pytest.raises(ScanError, match="its ScanVelocity says 40 cm/min, but 20 cm/min was given") as caught:
        read_nm(nm_file, velocity=20.0)
    assert (caught.value.file, bool(caught.value.remedy)) == (nm_file, True)


def name_by_angle(ds: FileDataset) -> None:
    """PS3.3, table C.8-11: "Zero degrees is referenced to the origin at the patient's back"."""
    without_views(ds)
    ds.DetectorInformationSequence[0].StartAngle = "1.5"
    ds.DetectorInformationSequence[1].StartAngle = "180"


@pytest.mark.parametrize(
    "text", ["WB post void", "3 h post injection", "plant, antero, posture", "ANT POST", "postop"]
)
def test_texts_that_name_no_view(text: str, changed: Changed) -> None:
    def how(ds: FileDataset) -> None:
        one_view(ds)
        ds.SeriesDescription = text

    with pytest.raises(ScanError, match="--view anterior or"):
        read_nm(changed(how))


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

"""Segmentation objects, judged by dciodvfy and highdicom, and those that highdicom writes."""

import copy
import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from judges import judge
from nm_files import poisson, write_nm
from pydicom.sr.codedict import Code, codes
from pydicom.uid import generate_uid

from rbs.data.labels import read_labels
from rbs.errors import OutputError, ScanError
from rbs.scans.dicom.reader import read_nm
from rbs.scans.dicom.segmentation import cielab, write_segmentation
from rbs.scans.dicom.writer import Derivation
from rbs.scans.regions import DESCRIBED, PALETTE
from rbs.scans.scan import REGIONS, Scan, View

MADE_BY = Derivation("DynUNet a.safetensors", "0.2.0", "ab" * 32)
SHAPE = (61, 45)
"""Neither the pixels of a frame nor those of two fill whole bytes."""

VIEWS = ("anterior", "posterior")


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    """A scan of two views, read."""
    return read_nm(two_views(tmp_path / "scan.dcm"))


def two_views(path: Path, **changes: object) -> Path:
    counts = poisson(2, rows=SHAPE[0], columns=SHAPE[1], level=40)
    return write_nm(path, counts, views=VIEWS, **changes)


def labels_of(scan: Scan, seed: int = 0) -> np.ndarray:
    """Labels of all regions, but of thorax in the first frame and of arms in none."""
    labels = np.random.default_rng(seed).integers(0, len(REGIONS) + 1, scan.counts.shape, dtype=np.uint8)
    labels[0][labels[0] == 3] = 0
    labels[labels == 5] = 0
    return labels


def complaints(path: Path) -> list[str]:
    """What dciodvfy says of a file, without its title line and the private code scheme it cannot know."""
    said = subprocess.run([judge("dciodvfy"), str(path)], capture_output=True, text=True, check=False).stderr
    return [line for line in said.splitlines() if line != "Segmentation" and "<99RBS>" not in line]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"FrameOfReferenceUID": generate_uid()},
        {"PatientName": "Müller^Ä", "SpecificCharacterSet": "ISO_IR 100", "PatientIdentityRemoved": "YES"},
    ],
)
def test_segmentations_conform_and_highdicom_reads_every_pixel(changes: dict, tmp_path: Path) -> None:
    changes = {"StudyID": "1"} | changes
    if "PatientIdentityRemoved" in changes:
        changes["DeidentificationMethod"] = "by hand"
    scan = read_nm(two_views(tmp_path / "scan.dcm", **changes))
    labels, path = labels_of(scan), tmp_path / "seg.dcm"
    write_segmentation(path, labels, scan, derivation=MADE_BY)
    assert complaints(path) == []

    seg = highdicom.seg.segread(path)
    assert seg.SegmentationType == "BINARY"
    names = [item.SegmentLabel for item in seg.SegmentSequence]
    assert names == [name for name in REGIONS if name != "arms"]
    found = seg.get_pixels_by_source_frame(
        scan.provenance.sop_instance_uid,
        [1, 2],
        combine_segments=True,
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    values = np.array([0, *(REGIONS.index(name) + 1 for name in names)])
    np.testing.assert_array_equal(values[found], labels)
    # Without positions there is none, whatever the camera states (PS3.3 A.51.5.1).
    assert "FrameOfReferenceUID" not in seg
    changes.pop("FrameOfReferenceUID", None)
    for keyword, value in changes.items():
        assert str(seg[keyword].value) == value
    assert seg.StudyInstanceUID == scan.provenance.header.StudyInstanceUID
    assert seg.SeriesInstanceUID != scan.provenance.header.SeriesInstanceUID
    assert "RESEARCH" in seg.SeriesDescription
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (MADE_BY.model, "rbs 0.2.0")
    assert MADE_BY.weight_hash in algorithm.AlgorithmParameters


def test_labels_come_back_from_our_own_objects(scan: Scan, tmp_path: Path) -> None:
    labels, path = labels_of(scan), tmp_path / "seg.dcm"
    write_segmentation(path, labels, scan, derivation=MADE_BY)
    np.testing.assert_array_equal(read_labels(path, scan), labels)


def test_frames_of_one_energy_window_are_referred_to_by_their_numbers(tmp_path: Path) -> None:
    counts = poisson(4, rows=SHAPE[0], columns=SHAPE[1], level=40)
    several = {"EnergyWindowVector": [1, 1, 2, 2], "DetectorVector": [1, 2, 1, 2], "NumberOfEnergyWindows": 2}
    file = write_nm(tmp_path / "scan.dcm", counts, views=VIEWS, **several)
    scan, other = (read_nm(file, energy_window=window) for window in (2, 1))
    labels, path = labels_of(scan), tmp_path / "seg.dcm"
    write_segmentation(path, labels, scan, derivation=MADE_BY)
    frames = {
        item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for item in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    }
    assert frames == {3, 4}
    np.testing.assert_array_equal(read_labels(path, scan), labels)
    with pytest.raises(ScanError, match=r"none of its frames lies on the frames read of .*scan\.dcm"):
        read_labels(path, other)


def test_a_secondary_capture_of_one_view_conforms(tmp_path: Path) -> None:
    changes = {
        "SOPClassUID": pydicom.uid.SecondaryCaptureImageStorage,
        "NumberOfFrames": None,
        "StudyID": "1",
    }
    file = write_nm(tmp_path / "scan.dcm", poisson(rows=SHAPE[0], columns=SHAPE[1], level=40), **changes)
    scan = read_nm(file)
    labels, path = labels_of(scan), tmp_path / "seg.dcm"
    write_segmentation(path, labels, scan, derivation=MADE_BY)
    assert complaints(path) == []
    np.testing.assert_array_equal(read_labels(path, scan), labels)


def test_codes_are_those_of_snomed() -> None:
    for region in DESCRIBED.values():
        if region.code[1] == "SCT":
            known = Code(*region.code[:2], region.code[2])
            assert known in [
                getattr(codes.SCT, name) for name in codes.SCT.dir(region.code[2].replace(" ", ""))
            ]
    assert [*DESCRIBED] == [*REGIONS]


def test_colours_as_cielab() -> None:
    white, black = cielab((255, 255, 255)), cielab((0, 0, 0))
    assert white == pytest.approx([65535, 32896, 32896], abs=15)
    assert black == pytest.approx([0, 32896, 32896], abs=15)
    red = np.array(cielab((255, 0, 0))) / 65535 * (100, 255, 255) - (0, 128, 128)
    np.testing.assert_allclose(red, (54.29, 80.81, 69.89), atol=0.05)  # B. Lindbloom, sRGB, D50
    assert len(set(PALETTE)) == len(REGIONS) + 1


def test_what_cannot_be_written(scan: Scan, tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    with pytest.raises(ScanError, match="there is no region to write"):
        write_segmentation(path, np.zeros(scan.counts.shape, np.uint8), scan, derivation=MADE_BY)
    with pytest.raises(ScanError, match="are not of its frames"):
        write_segmentation(path, labels_of(scan)[:1], scan, derivation=MADE_BY)
    del scan.provenance.header.SOPInstanceUID
    with pytest.raises(ScanError, match="it has no SOPInstanceUID, by which its regions would refer to it"):
        write_segmentation(path, labels_of(scan), scan, derivation=MADE_BY)
    assert not path.exists()


def test_writing_leaves_the_header_of_the_scan_alone(scan: Scan, tmp_path: Path) -> None:
    header = scan.provenance.header
    header.SeriesDescription, header.BodyPartExamined = "WB", "WHOLE BODY"
    before = copy.deepcopy(header)
    for name in "ab":
        write_segmentation(tmp_path / name, labels_of(scan), scan, derivation=MADE_BY)
    assert header == before
    first, second = (pydicom.dcmread(tmp_path / name).SeriesDescription for name in "ab")
    assert first == second


def test_existing_files_stay(scan: Scan, tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        write_segmentation(path, labels_of(scan), scan, derivation=MADE_BY)
    assert path.read_text() == "mine"


# Objects of others


def one_view(path: Path, **changes: object) -> Scan:
    counts = poisson(rows=SHAPE[0], columns=SHAPE[1], level=40)
    write_nm(path, counts, **changes)
    return read_nm(path, views=(View.ANTERIOR,))


def by_highdicom(
    path: Path, scan: Scan, kind: str, segments: list[tuple[str, Code]], pixels: np.ndarray
) -> Path:
    """A segmentation as highdicom writes it, which takes what says that it is a single frame."""
    source = pydicom.dcmread(scan.provenance.path)
    source.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=n,
            segment_label=label,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=code,
            algorithm_type="MANUAL",
        )
        for n, (label, code) in enumerate(segments, start=1)
    ]
    highdicom.seg.Segmentation(
        source_images=[source],
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="others",
        manufacturer_model_name="viewer",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)
    return path


DRAWN = [("Segment_1", codes.SCT.Skull), ("left femur", codes.SCT.Tissue), ("Segment_3", codes.SCT.Rib)]
"""Known by its code, by its name, and by the meaning of its code."""


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segments_drawn_in_a_viewer(kind: str, tmp_path: Path) -> None:
    scan = one_view(tmp_path / "scan.dcm")
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[3:9, 4:20], drawn[40:50, 10:15], drawn[20:25, 7:40] = 1, 2, 3
    path = by_highdicom(tmp_path / "seg.dcm", scan, kind, DRAWN, drawn)
    values = np.array([0, *(REGIONS.index(name) + 1 for name in ("skull", "legs", "thorax"))])
    np.testing.assert_array_equal(read_labels(path, scan), values[drawn][None])


def test_where_segments_overlap_the_later_region_wins(tmp_path: Path) -> None:
    scan = one_view(tmp_path / "scan.dcm")
    masks = np.zeros((1, *SHAPE, 2), np.uint8)
    masks[0, 10:30, 10:30, 0] = masks[0, 20:40, 10:30, 1] = 1
    segments = [("hot spot", codes.SCT.Lesion), ("spine", codes.SCT.Spine)]
    labels = read_labels(by_highdicom(tmp_path / "seg.dcm", scan, "BINARY", segments, masks), scan)
    assert set(labels[0, 10:30, 10:30].ravel()) == {REGIONS.index("hot spots") + 1}
    assert set(labels[0, 30:40, 10:30].ravel()) == {REGIONS.index("spine") + 1}


def test_unknown_segments_are_named(tmp_path: Path) -> None:
    scan = one_view(tmp_path / "scan.dcm")
    segments = [("Segment_1", codes.SCT.Tissue)]
    path = by_highdicom(tmp_path / "seg.dcm", scan, "BINARY", segments, np.ones(SHAPE, np.uint8))
    with pytest.raises(ScanError, match="its segment 'Segment_1' is no known region"):
        read_labels(path, scan)


def changed(path: Path, change) -> Path:
    """The file with a change, under another name."""
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path.with_name("changed.dcm"))
    return path.with_name("changed.dcm")


def without_references(ds: pydicom.Dataset) -> None:
    del ds.ReferencedSeriesSequence
    for groups in ds.PerFrameFunctionalGroupsSequence:
        del groups.DerivationImageSequence


def without_frame_numbers(ds: pydicom.Dataset) -> None:
    for groups in ds.PerFrameFunctionalGroupsSequence:
        del groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber


def fewer_rows(ds: pydicom.Dataset) -> None:
    ds.Rows, ds.Columns = ds.Columns, ds.Rows


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without_references, "it refers to no scan"),
        (without_frame_numbers, "it does not say which of the 2 frames of the scan its frames lie on"),
        (fewer_rows, r"its frames have \(45, 61\) pixels, those of .* \(61, 45\)"),
        (lambda ds: ds.SegmentSequence.pop(0), "its segment 1 is not described"),
        (lambda ds: ds.PerFrameFunctionalGroupsSequence.pop(), "it holds 15 frames and describes 14"),
        (lambda ds: delattr(ds, "PixelData"), "it cannot be decoded"),
        (lambda ds: setattr(ds, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"), "it is no segmentation"),
    ],
)
def test_objects_that_are_no_labels(change, sentence: str, scan: Scan, tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    write_segmentation(path, labels_of(scan), scan, derivation=MADE_BY)
    with pytest.raises(ScanError, match=sentence) as refusal:
        read_labels(changed(path, change), scan)
    assert refusal.value.remedy
    assert "Secret" not in str(refusal.value)


def test_a_segmentation_of_another_scan(scan: Scan, tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    write_segmentation(path, labels_of(scan), scan, derivation=MADE_BY)
    other = read_nm(two_views(tmp_path / "other.dcm"))
    with pytest.raises(ScanError, match=r"it refers to another scan than .*other\.dcm"):
        read_labels(path, other)


def test_a_scan_is_no_segmentation(scan: Scan) -> None:
    with pytest.raises(ScanError, match="it is no segmentation"):
        read_labels(scan.provenance.path, scan)

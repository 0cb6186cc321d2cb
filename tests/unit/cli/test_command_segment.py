"""`rbs segment`, with a segmenter that knows the phantoms by heart."""

import csv
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import highdicom
import numpy as np
import pydicom
import pytest
from nm_files import poisson, write_nm
from PIL import Image

import rbs as api
from rbs.data.labels import labels_file, read_labels, write_labels
from rbs.data.loading import load_case
from rbs.data.manifest import Manifest
from rbs.scans.dicom.reader import read_nm
from rbs.scans.regions import PALETTE
from rbs.scans.scan import REGIONS

SHAPE = (320, 160)


@dataclass
class Oracle:
    """Certain of the labels of scans that it has seen; of others the whole view is skull."""

    known: dict[bytes, np.ndarray] = field(default_factory=dict)
    name: str = "oracle"
    sha256: str = "ab" * 32
    provenance: dict = field(default_factory=lambda: {"spacing_mm": [9, 10], "exposure": [0.1, 0.99]})
    asked: list = field(default_factory=list)

    def probabilities(self, counts, exposure, spacing_mm):
        self.asked.append((counts.shape, exposure, spacing_mm))
        labels = self.known.get(counts.tobytes())
        if labels is None:
            labels = self.known.get(counts[:1].tobytes(), np.ones((1, *counts.shape[1:]), int))
        labels = np.broadcast_to(labels, counts.shape)
        return np.moveaxis(np.eye(len(REGIONS) + 1, dtype=np.float32)[labels], -1, 1)


@pytest.fixture(scope="module")
def cohort(make_cohort, tmp_path_factory):
    """Manifest of four children, two of them in the test split. Read only."""
    folder = tmp_path_factory.mktemp("cohort")
    return make_cohort(folder, splits=("train", "val", "test", "test"), shape=SHAPE)


@pytest.fixture(scope="module")
def known(cohort):
    """Labels of the rapid scans of the cohort, and of their views, by their bytes."""
    known = {}
    for case in Manifest.read(cohort).cases:
        loaded = load_case(case)
        for views in (slice(None), slice(0, 1), slice(1, 2)):
            known[loaded.rapid[views].tobytes()] = loaded.labels[views]
    return known


@pytest.fixture
def oracle(known, monkeypatch):
    """The segmenter of the command, which knows the rapid scans of the cohort."""
    oracle = Oracle(dict(known))
    monkeypatch.setattr("rbs.inference.segmentation.load_segmenter_for", lambda *_: oracle)
    return oracle


@pytest.fixture
def child(cohort):
    """The rapid scan of a child and its labels, as its frames are stored."""
    case = Manifest.read(cohort).cases[2]
    with np.load(case.truth) as truth:
        return SimpleNamespace(file=case.rapid[0], labels=truth["labels"])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_manifest_is_segmented_and_scored(oracle, cohort, tmp_path, rbs):
    out = tmp_path / "out"
    status, said, error = rbs("segment", cohort, out, "--score")
    assert status == 0, error
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "P0003/rapid_seg.dcm",
        "P0004/rapid_seg.dcm",
        "dice.csv",
    ]
    rows = rows_of(out / "dice.csv")
    assert {row["patient"] for row in rows} == {"P0003", "P0004"}
    assert {row["view"] for row in rows} == {"anterior", "posterior"}
    assert {row["region"] for row in rows} == set(REGIONS)
    assert {(row["dice"], row["hd95_mm"]) for row in rows} == {("1.0000", "0.0000")}
    assert "1.000 (1.000 to 1.000)" in said
    assert oracle.asked == [((2, *SHAPE), 0.5, (9.6, 9.6))] * 2


def test_the_object_holds_the_labels_of_the_stored_frames(oracle, child, tmp_path, rbs):
    """Posterior frames are not mirrored."""
    status, _, error = rbs("segment", child.file, tmp_path / "seg.dcm")
    assert status == 0, error
    scan = read_nm(child.file)
    np.testing.assert_array_equal(read_labels(tmp_path / "seg.dcm", scan), child.labels)
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert [item.SegmentLabel for item in seg.SegmentSequence] == list(REGIONS)
    assert seg.SegmentSequence[0].SegmentAlgorithmName == "oracle"
    assert seg.DeviceSerialNumber == oracle.sha256


def test_labels_as_a_picture(oracle, child, tmp_path, rbs):
    status, _, error = rbs("segment", child.file, tmp_path, "--format", "png")
    assert status == 0, error
    picture = Image.open(tmp_path / "rapid_seg.png")
    np.testing.assert_array_equal(np.asarray(picture), np.concatenate(list(child.labels), axis=1))
    colours = np.asarray(picture.convert("RGB"))[np.asarray(picture) == 9]
    assert {tuple(map(int, colour)) for colour in colours} == {PALETTE[9]}
    assert "Research use only" in picture.info["Comment"]


def test_labels_as_nifti(oracle, child, tmp_path, rbs):
    nibabel = pytest.importorskip("nibabel")
    status, _, error = rbs("segment", child.file, tmp_path, "--format", "nifti")
    assert status == 0, error
    image = nibabel.load(tmp_path / "rapid_seg.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, child.labels)
    np.testing.assert_allclose(image.header.get_zooms()[:2], 9.6)


def test_a_folder_goes_on_and_leaves_out_what_is_no_scan(oracle, child, tmp_path, rbs):
    folder, out = tmp_path / "in", tmp_path / "in" / "out"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(child.file.read_bytes())
    (folder / "b.dcm").write_bytes(child.file.read_bytes()[:3000])
    assert rbs("segment", folder, out)[0] == 1
    assert [path.name for path in out.iterdir()] == ["a_seg.dcm"]
    status, said, error = rbs("segment", folder, out, "--skip-existing", "--json")
    assert status == 1
    document = json.loads(said)
    assert (document["segmented"], document["refused"], document["skipped"]) == (0, 1, 1)
    assert "b.dcm" in error
    (folder / "b.dcm").unlink()
    status, _, error = rbs("segment", folder, out)
    assert status == 1
    assert "the output exists already" in error


def two_files(child, folder: Path) -> None:
    """Its two views, a file each."""
    scan = read_nm(child.file)
    study = pydicom.uid.generate_uid()
    for n, view in enumerate(("anterior", "posterior")):
        counts = scan.counts[n : n + 1]
        write_nm(folder / f"{view}.dcm", counts, views=(view,), study=study, PixelSpacing=[9.6, 9.6])


@pytest.mark.parametrize("option", ["--skip-existing", None])
def test_a_view_is_segmented_with_its_partner_also_where_that_was_segmented_before(
    option, oracle, child, tmp_path, rbs
):
    two_files(child, tmp_path / "in")
    kept = tmp_path / "out" / "anterior_seg.dcm"
    kept.parent.mkdir()
    kept.write_text("mine")
    status, said, error = rbs("segment", tmp_path / "in", tmp_path / "out", *([option] if option else []))
    assert "posterior.dcm (posterior from ViewCodeSequence, with anterior.dcm)" in said
    assert [shape for shape, *_ in oracle.asked] == [(2, *SHAPE)]
    if option:
        assert (status, error) == (0, "skipped: 1 of 2 files, whose output exists\n")
    else:
        assert status == 1
        assert "anterior_seg.dcm: the output exists already" in error
    assert kept.read_text() == "mine"


def test_two_files_of_a_view_each_are_segmented_together(oracle, child, tmp_path, rbs):
    two_files(child, tmp_path / "in")
    status, said, error = rbs("segment", tmp_path / "in", tmp_path / "out")
    assert status == 0, error
    assert "with posterior.dcm" in said
    assert [shape for shape, *_ in oracle.asked] == [(2, *SHAPE)]
    for n, view in enumerate(("anterior", "posterior")):
        part = read_nm(tmp_path / "in" / f"{view}.dcm")
        found = read_labels(tmp_path / "out" / f"{view}_seg.dcm", part)
        np.testing.assert_array_equal(found, child.labels[n : n + 1])


def test_labels_beside_a_scan_are_scored(oracle, child, tmp_path, rbs):
    file = tmp_path / "in" / "child.dcm"
    file.parent.mkdir()
    file.write_bytes(child.file.read_bytes())
    status, _, error = rbs("segment", tmp_path / "in", tmp_path / "a", "--score")
    assert status == 1
    assert "no labels are known, so nothing was scored; name a manifest" in error
    mirrored = np.stack([child.labels[0][:, ::-1], child.labels[1]])
    write_labels(file, mirrored)
    status, said, error = rbs("segment", tmp_path / "in", tmp_path / "b", "--score", "--json")
    assert status == 0, error
    rows = {(row["view"], row["region"]): float(row["dice"]) for row in rows_of(tmp_path / "b" / "dice.csv")}
    assert rows["posterior", "arms"] == 1
    assert rows["anterior", "hot spots"] == 0
    assert rows_of(tmp_path / "b" / "dice.csv")[0]["patient"] == "child.dcm"
    assert json.loads(said)["scores"][-1]["region"] == "mean"
    write_labels(file, child.labels[:, :-1])
    status, _, error = rbs("segment", tmp_path / "in", tmp_path / "c", "--score")
    assert status == 1
    assert f"{labels_file(file)}: its labels have shape (2, 319, 160), those of" in error
    assert not (tmp_path / "c" / "child_seg.dcm").exists(), "it is refused"


def test_tables_and_a_page(oracle, cohort, tmp_path, rbs):
    status, _, error = rbs("segment", cohort, tmp_path, "--table", "--page", "--format", "png")
    assert status == 0, error
    rows = rows_of(tmp_path / "regions.csv")
    skull = next(row for row in rows if row["region"] == "skull" and row["view"] == "anterior")
    case = Manifest.read(cohort).cases[2]
    loaded = load_case(case)
    assert skull["patient"] == "P0003"
    assert float(skull["counts"]) == loaded.rapid[0][loaded.labels[0] == 1].sum()
    page = (tmp_path / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 4  # two children, two views
    assert "P0003" in page
    assert "Research use only" in page
    for region in REGIONS:
        assert region in page


def test_options_that_do_not_go_together(oracle, cohort, child, tmp_path, rbs):
    status, _, error = rbs("segment", cohort, tmp_path / "out", "--score", "--skip-existing")
    assert status == 1
    assert "--skip-existing would leave scans out of what --score writes" in error
    status, _, error = rbs("segment", child.file, tmp_path / "seg.dcm", "--split", "test")
    assert status == 1
    assert f"{child.file}: --split is one of a manifest, and IN is none; leave it out." in error


def test_another_split(oracle, cohort, tmp_path, rbs):
    assert rbs("segment", cohort, tmp_path / "out", "--split", "train", "--format", "png")[0] == 0
    assert [path.parent.name for path in (tmp_path / "out").rglob("*.png")] == ["P0001"]


def test_a_folder_may_be_named_like_a_manifest(oracle, child, tmp_path, rbs):
    folder = tmp_path / "scans.csv"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(child.file.read_bytes())
    status, _, error = rbs("segment", folder, tmp_path / "out")
    assert status == 0, error


@pytest.mark.parametrize(
    ("form", "name", "remedy"), [("png", "a.dcm", ".png"), ("seg", "a.png", ".dcm or .ima")]
)
def test_a_name_of_another_format(form, name, remedy, oracle, child, tmp_path, rbs):
    status, _, error = rbs("segment", child.file, tmp_path / name, "--format", form)
    assert status == 1
    assert f"{name}: its name is not one of --format {form}; let it end in {remedy}." in error
    assert not oracle.asked


@pytest.mark.parametrize(
    ("option", "table"), [("--score", "dice.csv"), ("--table", "regions.csv"), ("--page", "index.html")]
)
def test_tables_are_not_replaced(option, table, oracle, cohort, tmp_path, rbs):
    (tmp_path / table).write_text("mine")
    status, _, error = rbs("segment", cohort, tmp_path, option)
    assert status == 1
    assert f"{table}: the table exists already; remove it, or name another OUT." in error
    assert (tmp_path / table).read_text() == "mine"
    assert not oracle.asked


def test_tables_hold_the_scans_whose_label_maps_were_written(oracle, child, tmp_path, rbs):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(child.file.read_bytes())
    body(tmp_path / "in" / "b.dcm", SeriesInstanceUID=None)
    status, _, error = rbs("segment", tmp_path / "in", tmp_path / "out", "--table")
    assert status == 1
    assert "b.dcm: it has no SeriesInstanceUID, by which its regions would refer to it" in error
    assert {row["patient"] for row in rows_of(tmp_path / "out" / "regions.csv")} == {"a.dcm"}


def test_a_table_that_fails_is_told_beside_refused_files(oracle, child, tmp_path, rbs):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(child.file.read_bytes())
    (tmp_path / "in" / "b.dcm").write_bytes(child.file.read_bytes()[:3000])
    status, _, error = rbs("segment", tmp_path / "in", tmp_path / "out", "--score")
    assert status == 1
    assert "b.dcm: " in error
    assert "no labels are known, so nothing was scored" in error


def test_tables_need_a_folder(oracle, child, tmp_path, rbs):
    status, _, error = rbs("segment", child.file, tmp_path / "seg.dcm", "--page")
    assert status == 1
    assert "--page writes beside the label maps; name a folder as OUT" in error
    assert not (tmp_path / "seg.dcm").exists()


@pytest.mark.parametrize(("option", "package"), [("--page", "jinja2"), ("--score", "pandas")])
def test_a_missing_extra_is_told_before_the_work(option, package, oracle, cohort, tmp_path, rbs, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "rbs.evaluation.statistics.summary", raising=False)
    status, _, error = rbs("segment", cohort, tmp_path / "out", option)
    assert status == 1
    assert f"this needs {package}, which the extra 'evaluate' installs" in error
    assert not oracle.asked


# Bad input


def body(path: Path, rows: slice = slice(None), **changes: object) -> Path:
    """A one-view scan with a body that fills its rows, or some of them."""
    return write_nm(path, poisson(rows=256, columns=128, level=12)[:, rows], **changes)


def test_a_scan_beyond_the_training_is_warned_of(oracle, tmp_path, rbs):
    body(tmp_path / "in" / "scan.dcm", velocity=10.0)
    status, said, error = rbs("segment", tmp_path / "in", tmp_path / "out")
    assert status == 0, error
    assert "pixels of 2.30 mm is outside what the weights were trained on (9.00 to 10.00)" in said
    assert "2.00 of the standard counts is outside what the weights were trained on (0.10 to 0.99)" in said


def test_regions_that_were_not_scanned_are_named(oracle, child, tmp_path, rbs):
    """The lower legs lie below the last row."""
    scan, cut = read_nm(child.file), 250
    counts = scan.counts[:, :cut]
    file = write_nm(tmp_path / "half.dcm", counts, views=("anterior", "posterior"), PixelSpacing=[9.6, 9.6])
    aligned = read_nm(file).aligned()
    labels = np.stack([child.labels[0], child.labels[1][:, ::-1]])[:, :cut]
    oracle.known[aligned.tobytes()] = np.where(labels == 1, 0, labels)
    status, said, error = rbs("segment", file, tmp_path / "seg.dcm")
    assert status == 0, error
    assert "not scanned, or not found: skull" in said
    assert "cut off at the last scanned row, and not scanned beyond: legs" in said
    assert "first scanned row" not in said


def test_a_whole_body_is_not_cut_off(oracle, child, tmp_path, rbs):
    status, said, error = rbs("segment", child.file, tmp_path / "seg.dcm")
    assert status == 0, error
    assert "scanned" not in said


def test_what_is_refused(oracle, child, tmp_path, rbs):
    empty = write_nm(tmp_path / "empty.dcm", np.random.default_rng(0).poisson(0.2, (1, 256, 128)))
    assert "too few counts" in rbs("segment", empty, tmp_path / "a.dcm")[2]
    unknown = body(tmp_path / "unknown.dcm", velocity=None)
    assert (
        "the scan velocity is unknown; state it with --velocity"
        in rbs("segment", unknown, tmp_path / "a.dcm")[2]
    )
    scan = read_nm(child.file)
    oracle.known[scan.aligned().tobytes()] = np.zeros((2, *SHAPE), int)
    told = rbs("segment", child.file, tmp_path / "a.dcm")[2]
    assert "it shows no region of the skeleton; look at it: is it a bone scan, and not empty?" in told
    picture = tmp_path / "p.png"
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(picture)
    assert "it is a picture, and regions are those of scans" in rbs("segment", picture, tmp_path / "a.dcm")[2]
    assert not (tmp_path / "a.dcm").exists()


def test_a_segmentation_is_no_scan(oracle, child, tmp_path, rbs):
    rbs("segment", child.file, tmp_path / "seg.dcm")
    status, _, error = rbs("segment", tmp_path / "seg.dcm", tmp_path / "b.dcm")
    assert status == 1
    assert "it is Segmentation Storage (modality SEG), no Nuclear Medicine image" in error


def test_an_empty_split(oracle, make_cohort, tmp_path, rbs):
    manifest = make_cohort(tmp_path / "cohort", splits=("train",))
    status, _, error = rbs("segment", manifest, tmp_path / "out")
    assert status == 1
    assert "it has no patient in its split test; name another --split" in error


# Labels that come back


def test_a_manifest_takes_segmentations_as_labels(oracle, cohort, child, tmp_path, rbs):
    case = Manifest.read(cohort).cases[2]
    standard = read_nm(case.standard[0])
    oracle.known[standard.aligned().tobytes()] = load_case(case).labels
    status, _, error = rbs("segment", case.standard[0], tmp_path / "drawn.dcm")
    assert status == 0, error
    table = tmp_path / "manifest.csv"
    table.write_text(f"patient,split,standard,labels\nP1,test,{case.standard[0]},drawn.dcm\n")
    loaded = load_case(Manifest.read(table).cases[0])
    np.testing.assert_array_equal(loaded.labels, load_case(case).labels)
    status, _, error = rbs("segment", table, tmp_path / "out", "--score")
    assert status == 0, error
    assert {row["dice"] for row in rows_of(tmp_path / "out" / "dice.csv")} == {"1.0000"}


def test_scans_outside_the_folder_of_their_manifest(oracle, cohort, tmp_path, rbs):
    """What is written lies in OUT, and files of one name do not meet."""
    table = tmp_path / "lists" / "manifest.csv"
    table.parent.mkdir()
    (tmp_path / "scans").symlink_to(cohort.parent)
    rows = [f"P{n},test,../scans/P000{n}/standard.dcm,../scans/P000{n}/rapid.dcm" for n in (3, 4)]
    table.write_text("\n".join(["patient,split,standard,rapid", *rows, ""]))
    status, _, error = rbs("segment", table, tmp_path / "a" / "out", "--format", "png")
    assert status == 0, error
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*_seg.png"))
    assert written == ["a/out/P0003/rapid_seg.png", "a/out/P0004/rapid_seg.png"]


def test_from_python(oracle, child):
    np.testing.assert_array_equal(api.segment(child.file), child.labels)
    probabilities = api.segment(child.file, probabilities=True)
    assert probabilities.shape == (2, 1 + len(REGIONS), *SHAPE)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), child.labels)

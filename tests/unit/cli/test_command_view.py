"""`rbs view`: a page of scans, a blinded study, and the sums of its scores."""

import base64
import csv
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from labelled_body import LABEL, SHAPE, SPACING, body, certain
from nm_files import poisson, write_nm

from rbs.clinic.restore_scans import restore_scan
from rbs.inference.load import load_for_scans
from rbs.inference.strengths import Strength
from rbs.report.reader_study import SCORES
from rbs.report.viewer import STEP
from rbs.scans.censoring import cut_counts
from rbs.scans.dicom.modules import code
from rbs.scans.dicom.reader import cut_code, read_nm

BOTH = ("anterior", "posterior")
MANY = {"rows": 128, "columns": 64}


def scan(
    path: Path, velocity: float | None = 40.0, views: tuple[str, ...] = BOTH, seed: int = 0, **changes
) -> Path:
    counts = poisson(len(views), seed=seed, level=20.0, **MANY)
    return write_nm(path, counts, views=views, velocity=velocity, **changes)


def content(page: Path) -> dict:
    text = page.read_text()
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1])


def counts_of(image: dict, shape: tuple[int, ...]) -> np.ndarray:
    views = [np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u2") for text in image["values"]]
    return np.stack(views).reshape(shape) * image["step"]


@pytest.fixture
def view(rbs, weights, tmp_path):
    """Run `rbs view` without a segmenter, with small weights."""

    def run(*arguments):
        given = ("--checkpoint", weights, "--segmenter", "off", "-o", tmp_path / "page.html")
        return rbs("view", *arguments, *given)

    return run


def test_a_page_holds_rapid_restored_and_standard_counts(view, weights, tmp_path):
    rapid = scan(tmp_path / "Secret-rapid.dcm")
    standard = scan(tmp_path / "standard.dcm", 20.0, tuple(reversed(BOTH)), seed=1)
    status, text, errors = view(rapid, "--standard", standard)
    assert (status, errors) == (0, "")
    assert f"scan 1: {rapid}" in text
    (shown,) = content(tmp_path / "page.html")["scans"]
    names = ["rapid scan", *(f"restored ({strength})" for strength in Strength), "standard scan"]
    assert [image["name"] for image in shown["images"]] == names
    source, loaded = read_nm(rapid), load_for_scans(weights)
    expected = [source.counts * 2.0]
    expected += [restore_scan(source, loaded, strength=strength).counts for strength in Strength]
    expected += [read_nm(standard).counts[::-1]]
    for image, counts in zip(shown["images"], expected, strict=True):
        np.testing.assert_allclose(counts_of(image, counts.shape), counts, atol=STEP / 2 + 1e-4)
    assert loaded.sha256[:12] in shown["images"][1]["about"]
    assert "strength gentle" in shown["images"][1]["about"]
    assert shown["images"][0]["about"] == "rapid scan, 40 cm/min, counts x 2"
    assert shown["exposure"] == 0.5
    assert [view["sides"] for view in shown["views"]] == [["R", "L"], ["L", "R"]]


def test_nothing_in_the_page_names_a_patient_unless_asked(view, tmp_path):
    rapid = scan(tmp_path / "Miller.dcm", PatientID="ID-4711", AccessionNumber="A99-17")
    assert view(rapid)[0] == 0
    page = (tmp_path / "page.html").read_text()
    for word in (
        "Miller",
        "Secret",
        "4711",
        "A99-17",
        "20240102",
        str(pydicom.dcmread(rapid).StudyInstanceUID),
    ):
        assert word not in page
    assert view(rapid, "--overwrite", "--names")[0] == 0
    page = (tmp_path / "page.html").read_text()
    assert content(tmp_path / "page.html")["scans"][0]["name"] == "Miller"
    assert "ID-4711" not in page


def test_warnings_of_the_page_name_no_files_unless_asked(view, tmp_path):
    folder = tmp_path / "scans"
    copied = scan(folder / "Miller.dcm").read_bytes()
    (folder / "Smith.dcm").write_bytes(copied)
    assert view(folder)[0] == 0
    page = tmp_path / "page.html"
    assert not re.search("Miller|Smith", page.read_text())
    warnings = [shown["warnings"] for shown in content(page)["scans"]]
    assert warnings == [["its SOP Instance UID is also that of another file: keep one of them"]] * 2
    assert view(folder, "--overwrite", "--names")[0] == 0
    assert "also that of Smith.dcm" in content(page)["scans"][0]["warnings"][0]


def test_counts_filled_in_where_they_were_cut_are_said_to_be(view, tmp_path):
    counts = cut_counts(poisson(2, level=20.0, **MANY), 2)
    codes = [code(*cut_code(2))]
    rapid = write_nm(tmp_path / "rapid.dcm", counts, views=BOTH, DerivationCodeSequence=codes)
    status, _, errors = view(rapid)
    assert status == 0, errors
    (shown,) = content(tmp_path / "page.html")["scans"]
    told = "rapid scan, 40 cm/min, counts x 2, counts up to 2 cut from the file and filled in by the restorer"
    assert shown["images"][0]["about"] == told


def test_views_of_two_files_are_one_scan_and_a_refused_one_does_not_stop_the_others(view, tmp_path):
    folder = tmp_path / "scans"
    for name in BOTH:
        scan(folder / f"{name}.dcm", views=(name,), study="1.2.3")
    scan(folder / "slow.dcm", 20.0)
    status, text, errors = view(folder)
    assert status == 1
    assert "slow.dcm: there is nothing to restore" in errors
    assert "1 of 3 files were refused" in errors
    (shown,) = content(tmp_path / "page.html")["scans"]
    assert [view["name"] for view in shown["views"]] == list(BOTH)
    assert "scan 1: " in text


class KnownLabels:
    """A segmenter that knows the labels of the drawn body, with a hot spot left in the pelvis."""

    name = "known labels"
    provenance: dict = {}  # noqa: RUF012

    def probabilities(self, counts, exposure, spacing_mm):
        return certain(labels()[: len(counts)])


def labels():
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    found = body()
    found[:, np.hypot(rows - 119, columns - 60) <= 3] = LABEL["hot spots"]
    return found


def test_contours_and_hot_spots_lie_where_the_file_has_them(rbs, weights, tmp_path, monkeypatch):
    monkeypatch.setattr("rbs.inference.segmentation.load_segmenter_for", lambda *_: KnownLabels())
    mean = np.where(labels() > 0, 6.0, 1.0)
    mean[labels() == LABEL["hot spots"]] = 18.0
    counts = np.random.default_rng(0).poisson(mean)
    counts[1] = counts[1, :, ::-1]
    rapid = write_nm(tmp_path / "rapid.dcm", counts, views=BOTH, PixelSpacing=list(SPACING))
    page = tmp_path / "page.html"
    status, _, errors = rbs("view", rapid, "--checkpoint", weights, "-o", page)
    assert status == 0, errors
    (shown,) = content(page)["scans"]
    stored = [np.frombuffer(zlib.decompress(base64.b64decode(t)), np.uint8) for t in shown["labels"]]
    np.testing.assert_array_equal(stored[1].reshape(SHAPE), labels()[1, :, ::-1])
    places = {mark["view"]: (mark["row"], mark["column"], mark["text"]) for mark in shown["marks"]}
    assert places == {"anterior": (119, 60, "1"), "posterior": (119, SHAPE[1] - 1 - 60, "1")}


def test_what_does_not_fit_is_refused_and_nothing_written(rbs, view, tmp_path):
    rapid = scan(tmp_path / "rapid.dcm")
    other = write_nm(tmp_path / "other.dcm", poisson(2, rows=100, columns=64), views=BOTH, velocity=20.0)
    page = tmp_path / "page.html"
    stranger = scan(tmp_path / "stranger.dcm", 20.0, PatientID="P8")
    cases = [
        (view(rapid, "--standard", other), "differ in shape"),
        (view(rapid, "--standard", stranger), "Patient IDs are not the same"),
        (view(), "it is one of three things that rbs view does; name scans"),
        (view(rapid, "--study", other), "it is one of three things"),
        (view(rapid, "--key", other), "--scores and --key go together"),
        (view("--study", other), "--checkpoint and --segmenter would do nothing beside --study"),
        (rbs("view", "--study", other, "--names"), "--names would do nothing beside --study; leave it out"),
        (rbs("view", "--study", other, "--standard", other), "--standard would do nothing"),
        (
            rbs("view", "--scores", other, "--key", other, "-o", page, "--seed", "1"),
            "--seed and --output would do nothing beside --scores; leave them out",
        ),
        (view(rapid, "--seed", "1"), "--seed would do nothing beside scans"),
        (rbs("view", rapid), "there is no name for the page; add -o PAGE.html"),
    ]
    for (status, _, errors), fault in cases:
        assert status == 1
        assert fault in errors
    assert not page.exists()
    page.write_text("mine")
    assert "page.html: the page exists already; add --overwrite." in view(rapid)[2]
    assert page.read_text() == "mine"


def test_a_standard_scan_is_that_of_one_scan(view, tmp_path, monkeypatch):
    monkeypatch.setattr("rbs.clinic.view_scans.restore_scan", lambda *_, **__: pytest.fail("restored"))
    folder = tmp_path / "scans"
    for child in "ab":
        scan(folder / f"{child}.dcm")
    status, _, errors = view(folder, "--standard", scan(tmp_path / "standard.dcm", 20.0))
    assert status == 1
    assert "--standard is that of one scan; name one SCAN" in errors
    assert not (tmp_path / "page.html").exists()


@pytest.fixture
def study(rbs, weights, tmp_path):
    """A table of two pairs, a restored scan against its standard one."""
    rows = [("pair", "a", "b")]
    for child in "xy":
        rapid = scan(tmp_path / f"{child}.dcm", seed=1)
        assert rbs("restore", rapid, tmp_path / f"{child}-restored.dcm", "--checkpoint", weights)[0] == 0
        scan(tmp_path / f"{child}-standard.dcm", 10.0, tuple(reversed(BOTH)), seed=2)
        rows.append((child, f"{child}-restored.dcm", f"{child}-standard.dcm"))
    table = tmp_path / "pairs.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return table


def test_a_study_shows_both_files_at_standard_counts_and_is_summed_up(rbs, study, tmp_path):
    page = tmp_path / "study.html"
    status, text, errors = rbs("view", "--study", study, "-o", page)
    assert status == 0, errors
    assert "2 pairs" in text
    data = content(page)
    with (tmp_path / "study_key.csv").open(newline="") as file:
        key = list(csv.DictReader(file))
    restored = pydicom.dcmread(tmp_path / "x-restored.dcm")
    slope = float(restored.RealWorldValueMappingSequence[0].RealWorldValueSlope)
    standard = read_nm(tmp_path / "x-standard.dcm")
    expected = {"a": restored.pixel_array * slope, "b": standard.counts[::-1] / 2.0}
    trial, row = next((t, r) for t, r in zip(data["trials"], key, strict=True) if r["pair"] == "x")
    for side in ("left", "right"):
        counts = expected[row[side]]
        shown = counts_of(data["images"][trial[side]], counts.shape)
        np.testing.assert_allclose(shown, counts, atol=STEP / 2 + 1e-4)
    for word in ("restored", "standard", "Secret", ".dcm"):
        assert word not in page.read_text()
    scores = tmp_path / "scores.csv"
    with scores.open("w", newline="") as file:
        rows = [(data["study"], "R1", n, 4, 4, 3, 3, "left", "", "") for n in (1, 2)]
        csv.writer(file).writerows([SCORES, *rows])
    status, text, _ = rbs("view", "--scores", scores, "--key", tmp_path / "study_key.csv")
    assert status == 0
    assert "reader R1: 2 of 2 pairs scored" in text
    lefts = [row["left"] for row in key]
    assert f"preferred: a {lefts.count('a')}, b {lefts.count('b')}, none 0" in text


def test_order_and_sides_are_random_unless_a_seed_repeats_them(rbs, study, tmp_path):
    def key(name, *options):
        assert rbs("view", "--study", study, "-o", tmp_path / f"{name}.html", *options)[0] == 0
        return (tmp_path / f"{name}_key.csv").read_text()

    assert len({key(f"random-{n}") for n in range(8)}) > 1
    assert key("seed", "--seed", "5") == key("again", "--seed", "5")


def test_pairs_that_are_none_are_refused(rbs, study, tmp_path):
    page = tmp_path / "study.html"

    def refused(text):
        study.write_text(text)
        status, _, errors = rbs("view", "--study", study, "-o", page)
        assert status == 1
        assert not page.exists()
        return errors

    assert "give every pair a name of its own" in refused("pair,a,b\nx,1,2\nx,1,2\n")
    assert "no column b" in refused("pair,a\nx,1\n")
    scan(tmp_path / "one.dcm", views=("anterior",))
    assert "differ in views" in refused("pair,a,b\nx,x-restored.dcm,one.dcm\n")
    scan(tmp_path / "other.dcm", PatientID="P8")
    assert "Patient IDs are not the same" in refused("pair,a,b\nx,x-restored.dcm,other.dcm\n")
    unknown = scan(tmp_path / "unknown.dcm", velocity=None)
    assert "the scan velocity is unknown" in refused(f"pair,a,b\nx,x-restored.dcm,{unknown}\n")
    missing = rbs("view", "--scores", tmp_path / "none.csv", "--key", study)
    assert "none.csv: there is no such file; check the path." in missing[2]

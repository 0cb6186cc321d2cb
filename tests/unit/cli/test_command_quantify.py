"""`rbs quantify` and `rbs.quantify`, with labels that are known."""

from __future__ import annotations

import csv
import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from labelled_body import LABEL, SHAPE, SPACING, VIEWS, body, certain

import rbs
from rbs.clinic.quantify_scans import SPOT_COLUMNS
from rbs.errors import ScanError
from rbs.scans.dicom.modules import code
from rbs.scans.dicom.writer import RESTORED, PatientHeader, StudyHeader, write_acquired_nm
from rbs.scans.scan import Scan, View, align

SPOT = (119, 60)
"""Row and column, in the aligned views, of a hot spot in the left half of the pelvis."""


class KnownLabels:
    """A segmenter that knows the labels of the drawn body."""

    name = "known labels"
    provenance: dict = {}  # noqa: RUF012

    def probabilities(
        self, counts: np.ndarray, exposure: float, spacing_mm: tuple[float, float]
    ) -> np.ndarray:
        assert exposure == pytest.approx(0.5)
        assert spacing_mm == pytest.approx(SPACING)
        return certain(labels()[: len(counts)])


def labels() -> np.ndarray:
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    found = body()
    found[:, np.hypot(rows - SPOT[0], columns - SPOT[1]) <= 3] = LABEL["hot spots"]
    return found


def write(path: Path, views: tuple[View, ...] = VIEWS, level: float = 1.0, study: str = "study") -> Path:
    """A scan at 40 cm/min of the body, its hot spot three times as bright as the pelvis."""
    mean = np.where(labels() > 0, 6.0, 1.0)
    mean[labels() == LABEL["hot spots"]] = 18.0
    aligned = np.random.default_rng(0).poisson(level * mean).astype(np.uint16)
    kept = [VIEWS.index(view) for view in views]
    scan = Scan(align(aligned[kept], views), views, SPACING, 40.0, 190.0, "Secret-7")
    patient = PatientHeader("Secret-7", sex="F", age_y=9.0, height_m=1.3, weight_kg=30.0, activity_mbq=280.0)
    of = StudyHeader(study, datetime(2024, 1, 2, 9))
    write_acquired_nm(path, scan, patient=patient, study=of, uid_seed=path.name)
    return path


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbs.inference.segmentation.load_segmenter_for", lambda *_: KnownLabels())


def read(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_of_a_scan(rbs, tmp_path: Path) -> None:
    out = tmp_path / "tables"
    status, text, errors = rbs("quantify", write(tmp_path / "scan.dcm"), out)
    assert (status, errors) == (0, "")
    assert text.startswith("scan.dcm: 1 hot spot: ")
    assert "(pelvis 1)" in text
    assert "Secret" not in text
    (index,) = read(out / "index.csv")
    assert (index["hot_spots"], index["pelvis_hot_spots"], index["legs_percent"]) == ("1", "1", "0")
    assert float(index["area_index_percent"]) > 0
    anterior, posterior = read(out / "hot_spots.csv")
    assert (anterior["focus"], posterior["focus"]) == ("1", "1")
    places = {row["view"]: float(row["column"]) for row in (anterior, posterior)}
    assert places == {"anterior": SPOT[1], "posterior": SHAPE[1] - 1 - SPOT[1]}, "as the file has them"
    assert float(anterior["contrast"]) == pytest.approx(3, rel=0.15)
    assert float(anterior["contrast_sd"]) > 0
    regions = read(out / "regions.csv")
    assert {row["file"] for row in regions} == {"scan.dcm"}
    spots = [row for row in regions if row["region"] == "hot spots"]
    assert spots[0]["left_over_right"] == "", "not defined"


def test_views_of_two_files_are_one_scan(rbs, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for view in VIEWS:
        write(folder / f"{view}.dcm", (view,))
    assert rbs("quantify", folder, tmp_path / "out")[0] == 0
    (row,) = read(tmp_path / "out" / "index.csv")
    assert row["file"] == "anterior.dcm + posterior.dcm"
    assert row["hot_spots"] == "1"


def test_one_view(rbs, tmp_path: Path) -> None:
    file = write(tmp_path / "posterior.dcm", (View.POSTERIOR,))
    assert rbs("quantify", file, tmp_path / "out")[0] == 0
    assert {row["view"] for row in read(tmp_path / "out" / "regions.csv")} == {"posterior"}


def test_what_cannot_be_measured_is_named_and_the_others_go_on(rbs, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    write(folder / "empty.dcm", level=0.0, study="a")
    write(folder / "good.dcm", study="b")
    status, text, errors = rbs("quantify", folder, tmp_path / "out")
    assert status == 1
    assert "good.dcm: 1 hot spot" in text
    refused, last = errors.splitlines()
    assert "empty.dcm: frame 1 holds no counts; " in refused
    assert "1 of 2 files were refused" in last
    assert [row["file"] for row in read(tmp_path / "out" / "index.csv")] == ["good.dcm"]


def test_tables_are_not_replaced_unasked(rbs, tmp_path: Path) -> None:
    arguments = ("quantify", write(tmp_path / "scan.dcm"), tmp_path)
    assert rbs(*arguments)[0] == 0
    status, _, errors = rbs(*arguments)
    assert status == 1
    assert "index.csv: the table exists already; add --overwrite." in errors
    assert rbs(*arguments, "--overwrite")[0] == 0


def test_a_folder_is_no_file(rbs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    status, _, errors = rbs("quantify", write(tmp_path / "scan.dcm"), out)
    assert status == 1
    assert "out: it is a file, not a folder; name a folder." in errors


def test_files_of_one_name_are_told_apart_and_restored_ones_are_skipped(rbs, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    for child in "ab":
        (folder / child).mkdir(parents=True)
        write(folder / child / "scan.dcm", study=child)
    restored = pydicom.dcmread(folder / "a" / "scan.dcm")
    restored.DerivationCodeSequence = [code(*RESTORED)]
    restored.save_as(folder / "restored.dcm")
    status, _, errors = rbs("quantify", folder, tmp_path / "out")
    assert status == 0, errors
    assert "restored.dcm was restored by rbs already" in errors
    for table in ("index.csv", "hot_spots.csv", "regions.csv"):
        assert {row["file"] for row in read(tmp_path / "out" / table)} == {"a/scan.dcm", "b/scan.dcm"}


def test_warnings_are_those_of_segmenting(rbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KnownLabels, "provenance", {"exposure": (0.9, 1.1)})
    folder = tmp_path / "scans"
    folder.mkdir()
    scan = write(folder / "a.dcm")
    (folder / "b.dcm").write_bytes(scan.read_bytes())
    assert rbs("quantify", folder, tmp_path / "out")[0] == 0
    row = read(tmp_path / "out" / "index.csv")[0]
    assert "0.50 of the standard counts is outside what the weights were trained on" in row["warnings"]
    assert "its SOP Instance UID is also that of b.dcm: keep one of them" in row["warnings"]


def test_a_table_without_rows_keeps_its_columns(rbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KnownLabels, "probabilities", lambda _, counts, *__: certain(body()[: len(counts)]))
    assert rbs("quantify", write(tmp_path / "scan.dcm"), tmp_path / "out")[0] == 0
    lines = (tmp_path / "out" / "hot_spots.csv").read_text().splitlines()
    assert lines == [",".join(SPOT_COLUMNS)]


def test_a_single_file_that_is_refused(rbs, tmp_path: Path) -> None:
    file = write(tmp_path / "empty.dcm", level=0.0)
    status, text, errors = rbs("quantify", file, tmp_path / "out", "--json")
    assert status == 1
    (refused,) = json.loads(text)["refused"]
    assert refused["source"] == str(file)
    assert refused["error"] in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_json(rbs, tmp_path: Path) -> None:
    file = write(tmp_path / "scan.dcm")
    status, text, _ = rbs("quantify", file, tmp_path / "out", "--json")
    told = json.loads(text)
    assert status == 0
    assert told["index"][0]["hot_spots"] == 1
    assert len(told["hot_spots"]) == 2
    assert told["regions"][0]["region"] == "skull"
    assert told["refused"] == []


def test_in_python(tmp_path: Path) -> None:
    file = write(tmp_path / "scan.dcm")
    found = rbs.quantify(file)
    assert (found.index.foci, found.sources) == (1, (file,))
    halved = rbs.quantify(rbs.read(file), counted=0.5)
    one, other = (measures.regions[0].counts for measures in (found, halved))
    assert other.poisson == pytest.approx(2**0.5 * one.poisson)


def test_a_scan_in_memory_without_counts(tmp_path: Path) -> None:
    scan = rbs.read(write(tmp_path / "scan.dcm"))
    with pytest.raises(ScanError, match="it holds no counts"):
        rbs.quantify(scan.with_counts(np.zeros_like(scan.counts)))

"""A whole evaluation on small made-up cases."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from moving_body import SPACING, expectation, passes, rigid

from rbs.data.loading import LoadedCase
from rbs.data.manifest import Case, Manifest
from rbs.errors import CheckpointError, ManifestError, OutputError, RbsError
from rbs.evaluation import run as writing
from rbs.evaluation.methods import Method, trained_methods
from rbs.evaluation.scans import classical, pairs
from rbs.evaluation.scans.classical import CLASSICAL, GAUSSIAN, NON_LOCAL_MEANS, available
from rbs.evaluation.scans.images import ScanSet
from rbs.evaluation.scans.metrics import Target
from rbs.evaluation.scans.pairs import ScanPair
from rbs.evaluation.set_metrics.fid_kid import Inception
from rbs.evaluation.statistics import summary
from rbs.inference.strengths import Strength, apply, deviation
from rbs.report.tables import read_evaluation
from rbs.scans.registration import estimate_motion
from rbs.scans.scan import View
from rbs.utils.files import whole_file


def evaluate(manifest, output, *, split="test", **options):
    return writing.evaluate(ScanSet(manifest, split), output, **options)


def truth_of(patient):
    y, x = np.mgrid[0:64, 0:48]
    size = 12 + 2 * int(patient[1:])
    return np.stack([np.where((y - 32) ** 2 + (x - 24) ** 2 < size**2, 8.0, 0.1)] * 2)


def case(patient, split, age):
    standard = Path(f"{patient}.dcm")
    return Case(patient, split, (Path("r.dcm"),), (standard,), Path("t.dcm"), age_y=age)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Two peers with few candidates, and short bootstraps: both have tests of their own."""
    few = replace(GAUSSIAN, candidates=(2.5, 4.0, 6.0)), replace(NON_LOCAL_MEANS, candidates=(1.0, 2.0))
    monkeypatch.setattr(classical, "CLASSICAL", few)
    monkeypatch.setattr(summary, "RESAMPLES", 200)


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    """Two validation and four test patients, one of them without an acquired rapid scan."""
    path = tmp_path / "manifest.csv"
    path.write_text("made up\n")
    monkeypatch.chdir(tmp_path)
    for name in ("r", "t", *(f"P{k}" for k in range(1, 7))):
        Path(f"{name}.dcm").touch()
    cases = [case("P1", "val", 3), case("P2", "val", 4)]
    cases += [case(f"P{k}", "test", age) for k, age in ((3, 9.0), (4, 1.0), (5, 12.0), (6, 5.0))]
    loaded = []

    def load(case, *, register):
        loaded.append(case.patient)
        truth, rng = truth_of(case.patient), np.random.default_rng(int(case.patient[1:]))
        rapid = None if case.patient == "P6" else rng.poisson(truth / 2).astype(np.float32)
        labels = (truth > 1).astype(np.uint8)
        standard = rng.poisson(truth).astype(np.float32)
        exposure = None if rapid is None else 0.5
        return LoadedCase(rapid, standard, exposure, labels, truth, tuple(View), (4.0, 4.0))

    monkeypatch.setattr(pairs, "load_case", load)
    manifest = Manifest(path, tuple(cases))
    return manifest, loaded


ORACLE = Method("stage1", "Stage 1", lambda pair: truth_of(pair.patient), {"sha256": "abc"})


def test_tables_pictures_and_settings(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(classical, "CLASSICAL", CLASSICAL)
    out = tmp_path / "run"
    found = evaluate(manifest[0], out, trained=[ORACLE], command="rbs evaluate")
    means = found.pivot(index="method", columns="metric", values="mean")
    assert set(means.index) == {"ceiling", "repeat", "rapid", "stage1", *(peer.name for peer in available())}
    assert means.loc["rapid", "nc_psnr"] < means.loc["gaussian", "nc_psnr"] < means.loc["stage1", "nc_psnr"]
    # What knows the truth scores the ceiling, no more.
    pd.testing.assert_series_equal(means.loc["stage1"], means.loc["ceiling"], check_names=False)
    assert means.loc["stage1", "region_bias"] == pytest.approx(0)
    # Another standard scan is better than a rapid one, and no better than half the ceiling's error.
    assert means.loc["rapid", "psnr_truth"] < means.loc["repeat", "psnr_truth"]
    assert means.loc["ceiling", "psnr"] - means.loc["repeat", "psnr"] == pytest.approx(3.01, abs=0.5)
    per_scan = pd.read_csv(out / "per_scan.csv")
    assert len(per_scan) == 4 * len(means.index)
    settings = json.loads((out / "settings.json").read_text())
    assert settings["patients"] == 4
    assert settings["methods"][-1]["settings"]["sha256"] == "abc"
    assert settings["peers"] == [m["name"] for m in settings["methods"]][:-1]
    assert set(settings["references"]) == {"ceiling", "repeat"}
    assert [p["age_y"] for p in settings["pictures"]] == [1.0, 9.0, 12.0]
    with np.load(out / "pictures.npz") as pictures:
        first = settings["pictures"][0]["case"]
        np.testing.assert_allclose(pictures[f"{first}/truth"], truth_of("P4"), rtol=1e-3)


def test_differences_are_those_of_the_patients_table(manifest, tmp_path):
    evaluate(manifest[0], tmp_path / "run", trained=[ORACLE])
    found = pd.read_csv(tmp_path / "run" / "differences.csv").set_index(["metric", "method"])
    patients = pd.read_csv(tmp_path / "run" / "per_patient.csv").pivot(
        index="patient", columns="method", values="ssim"
    )
    row = found.loc["ssim", "stage1"]
    assert row["against"] == patients.drop(columns=["ceiling", "repeat", "stage1"]).mean().idxmax()
    assert row["difference"] == pytest.approx(
        (patients["stage1"] - patients[row["against"]]).mean(), rel=1e-4
    )
    # Four patients: nothing is tested. And no reference is compared with anything.
    assert found["p"].isna().all()
    assert not {"ceiling", "repeat"} & set(found.index.get_level_values("method"))


def test_all_can_be_compared_with_one_method(manifest, tmp_path):
    evaluate(manifest[0], tmp_path / "run", trained=[ORACLE], against="stage1")
    found = pd.read_csv(tmp_path / "run" / "differences.csv")
    assert set(found["against"]) == {"stage1"}
    with pytest.raises(RbsError, match=r"no method 'stage2'; compare with one of rapid, gaussian, "):
        evaluate(manifest[0], tmp_path / "other", against="stage2")


class Histogram(torch.nn.Module):
    """Stands in for Inception: the mean grey and its spread in each quarter of a tile."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        quarters = x[:, 0].float().unfold(1, 64, 64).unfold(2, 64, 64).flatten(1, 2)
        return (torch.cat([quarters.mean((2, 3)), quarters.std((2, 3))], dim=1),)


def test_figures_of_the_whole_split_survive_an_interruption(manifest, tmp_path):
    the_manifest, seen = manifest[0], []
    network = Inception(Histogram(), "0" * 64)
    options = {"inception": network, "overwrite": True}
    with pytest.raises(Interrupted):
        evaluate(the_manifest, tmp_path / "run", trained=[failing_at("P5", seen)], **options)
    before = network.model.calls
    evaluate(the_manifest, tmp_path / "run", trained=[failing_at(None, seen)], **options)
    resumed = network.model.calls - before
    evaluate(the_manifest, tmp_path / "once", trained=[ORACLE], **options)
    assert resumed < network.model.calls - before - resumed
    found = pd.read_csv(tmp_path / "run" / "sets.csv")
    pd.testing.assert_frame_equal(found, pd.read_csv(tmp_path / "once" / "sets.csv"))
    fid = found[found["metric"] == "fid"].set_index("method")["value"]
    assert set(fid.index) >= {"ceiling", "repeat", "rapid", "gaussian", "nlm", "stage1"}
    # As any metric of texture: a second noisy scan is nearest to the noisy scans, perfection is
    # not.
    assert fid.idxmin() == "repeat"
    assert fid["stage1"] == pytest.approx(fid["ceiling"])
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["inception_sha256"] == "0" * 64
    assert [m["name"] for m in settings["sets"]] == ["fid", "kid"]
    # Parts without features are of no use to an evaluation with them.
    with pytest.raises(Interrupted):
        evaluate(the_manifest, tmp_path / "later", trained=[failing_at("P5", [])])
    again = []
    evaluate(the_manifest, tmp_path / "later", trained=[failing_at(None, again)], **options)
    assert again == ["P3", "P4", "P5", "P6"]


def test_a_child_that_moved_is_judged_where_it_lay(tmp_path, monkeypatch):
    u = rigid(5.0, -3.0)

    def load(case, *, register):
        assert register
        standard, rapid = passes(u, seed=int(case.patient[1:]))
        motion = estimate_motion(standard, rapid, SPACING) if registering else None
        return LoadedCase(rapid, standard, 0.5, None, None, tuple(View), SPACING, motion)

    monkeypatch.setattr(pairs, "load_case", load)
    monkeypatch.chdir(tmp_path)
    for name in ("r", "t", "P1", "P3"):
        Path(f"{name}.dcm").touch()
    Path("manifest.csv").write_text("made up\n")
    made_up = Manifest(Path("manifest.csv"), (case("P1", "val", 3), case("P3", "test", 9)))
    knows_where_it_was = Method("stage1", "Stage 1", lambda pair: expectation(), {"sha256": "abc"})
    scores = {}
    for registering in (True, False):
        out = tmp_path / str(registering)
        found = evaluate(made_up, out, trained=[knows_where_it_was])
        scores[registering] = found.pivot(index="method", columns="metric", values="mean")["psnr"]
        per_scan = pd.read_csv(out / "per_scan.csv")
        if registering:
            assert per_scan["motion_mm"].iloc[0] == pytest.approx(np.hypot(5, 3), abs=0.4)
            assert per_scan["residual_mm"].iloc[0] < 1.3 * per_scan["residual_by_noise_mm"].iloc[0]
        else:
            assert "motion_mm" not in per_scan
    # Registered, what knows the truth of before reaches the ceiling of after; and nothing else gets
    # worse.
    assert scores[True]["stage1"] == pytest.approx(scores[True]["ceiling"], abs=0.2)
    assert scores[False]["stage1"] < scores[False]["ceiling"] - 1
    assert (scores[True][["rapid", "gaussian", "nlm"]] > scores[False][["rapid", "gaussian", "nlm"]]).all()


def test_a_scan_without_a_rapid_one_is_dealt_into_disjoint_parts(manifest):
    found = pairs.load_pair(manifest[0].split("test")[3])
    again = pairs.load_pair(manifest[0].split("test")[3])
    np.testing.assert_array_equal(found.rapid, again.rapid)
    rng = np.random.default_rng(6)
    standard = rng.poisson(truth_of("P6"))
    np.testing.assert_array_equal(found.rapid + found.target.counts, standard)
    assert (found.exposure, found.target.exposure) == (0.5, 0.5)


def test_the_peers_are_tuned_without_the_test_split(manifest):
    the_manifest, loaded = manifest
    ScanSet(the_manifest, "test").tuned_peers()
    assert set(loaded) == {"P1", "P2"}


def test_the_test_split_does_not_change_the_tuning(manifest, tmp_path):
    the_manifest, _ = manifest
    evaluate(the_manifest, tmp_path / "a")
    fewer = Manifest(the_manifest.path, the_manifest.cases[:3])
    evaluate(fewer, tmp_path / "b")
    a, b = (json.loads((tmp_path / x / "settings.json").read_text())["methods"][1:3] for x in "ab")
    assert a == b
    assert "sigma_mm" in a[0]["settings"]


def test_results_are_not_overwritten_unasked(manifest, tmp_path):
    evaluate(manifest[0], tmp_path / "run")
    with pytest.raises(OutputError, match="overwrite"):
        evaluate(manifest[0], tmp_path / "run")
    evaluate(manifest[0], tmp_path / "run", overwrite=True)


def test_an_empty_split_is_refused(manifest, tmp_path):
    with pytest.raises(ManifestError, match="train"):
        evaluate(manifest[0], tmp_path / "run", split="train")


class Interrupted(Exception):
    """As a power cut would: not one of rbs' own errors."""


def failing_at(patient, seen):
    def restore(pair):
        if pair.patient == patient:
            raise Interrupted
        seen.append(pair.patient)
        return truth_of(pair.patient)

    return Method("stage1", "Stage 1", restore, {"sha256": "abc"})


def test_an_interrupted_evaluation_goes_on_where_it_stopped(manifest, tmp_path):
    the_manifest, seen = manifest[0], []
    with pytest.raises(Interrupted):
        evaluate(the_manifest, tmp_path / "run", trained=[failing_at("P5", seen)])
    assert seen == ["P3", "P4"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["unfinished"]
    found = evaluate(the_manifest, tmp_path / "run", trained=[failing_at(None, seen)])
    assert seen == ["P3", "P4", "P5", "P6"]
    pd.testing.assert_frame_equal(found, evaluate(the_manifest, tmp_path / "once", trained=[ORACLE]))
    for name in ("per_scan.csv", "regions.csv", "differences.csv", "sets.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "once" / name).read_bytes()
    with np.load(tmp_path / "run" / "pictures.npz") as a, np.load(tmp_path / "once" / "pictures.npz") as b:
        assert a.files == b.files
    assert not (tmp_path / "run" / "unfinished").exists()


@pytest.mark.parametrize("change", ["weights", "scan", "manifest"])
def test_parts_made_from_anything_else_are_not_used(manifest, tmp_path, change):
    the_manifest, seen = manifest[0], []
    with pytest.raises(Interrupted):
        evaluate(the_manifest, tmp_path / "run", trained=[failing_at("P5", seen)])
    method = failing_at(None, seen)
    if change == "weights":
        method.settings["sha256"] = "def"
    else:
        (Path("P3.dcm") if change == "scan" else the_manifest.path).write_text("other")
    evaluate(the_manifest, tmp_path / "run", trained=[method])
    assert seen == ["P3", "P4", "P3", "P4", "P5", "P6"]


def test_a_failing_evaluation_leaves_older_results_whole(manifest, tmp_path):
    run = tmp_path / "run"
    evaluate(manifest[0], run)
    older = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(Interrupted):
        evaluate(manifest[0], run, trained=[failing_at("P6", [])], overwrite=True)
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == older


def test_half_written_results_are_no_results(manifest, tmp_path, monkeypatch):
    run, seen = tmp_path / "run", []
    evaluate(manifest[0], run)

    def full(path, **options):
        if Path(path).name == "summary.csv":
            raise OutputError("the disk is full; nothing was written", file=path)
        return whole_file(path, **options)

    monkeypatch.setattr(writing, "whole_file", full)
    with pytest.raises(OutputError):
        evaluate(manifest[0], run, trained=[failing_at(None, seen)], overwrite=True)
    with pytest.raises(RbsError, match="incomplete"):
        read_evaluation(run)
    monkeypatch.setattr(writing, "whole_file", whole_file)
    evaluate(manifest[0], run, trained=[failing_at(None, seen)])  # nothing is left to be overwritten
    assert "stage1" in read_evaluation(run).labels
    assert seen == ["P3", "P4", "P5", "P6"]


def test_a_place_that_cannot_be_written_is_found_out_first(manifest, tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OutputError, match="cannot be written"):
        evaluate(manifest[0], tmp_path / "file" / "run")
    assert manifest[1] == []


def test_the_hash_is_that_of_the_manifest_that_was_read(manifest, tmp_path):
    the_manifest = manifest[0]
    expected = hashlib.sha256(the_manifest.path.read_bytes()).hexdigest()
    edits = Method("edits", "Edits", lambda pair: the_manifest.path.write_text("new") * truth_of("P1"))
    evaluate(the_manifest, tmp_path / "run", trained=[edits])
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["manifest_sha256"] == expected


def test_pictures_show_the_youngest_the_middle_and_the_oldest(manifest):
    cases = manifest[0].split("test")
    ages = [cases[i].age_y for i in ScanSet(manifest[0], "test").pictured()]
    assert ages[0] == 1.0
    assert ages[-1] == 12.0
    assert len(set(ages)) == 3
    alone = Manifest(manifest[0].path, tuple(cases[:1]))
    assert ScanSet(alone, "test").pictured() == [0]


def test_a_named_checkpoint_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing\.ckpt"):
        trained_methods([tmp_path / "nothing.ckpt"])
    assert trained_methods([]) == []


def test_others_are_compared_with_the_first_restorer(tmp_path):
    from rbs.restorers.checkpoint import load_restorer, save_restorer
    from rbs.restorers.nafnet import NAFNet
    from rbs.restorers.uncertainty import UncertaintyHead, head_file, save_uncertainty

    small = {"width": 4, "enc_blocks": (1,), "middle_blocks": 1, "dec_blocks": (1,)}
    files = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for file, sigma_px in zip(files, (1.0, 2.0), strict=True):
        save_restorer(file, NAFNet(**small, sigma_px=sigma_px), {})
    one = load_restorer(files[0])
    save_uncertainty(head_file(files[0]), UncertaintyHead(4, 4), one.sha256, {})
    plain, *rows = trained_methods(files[:1], strengths=True, uncertainty=True)
    rng = np.random.default_rng(0)
    pair = ScanPair(
        "P", rng.poisson(2.0, (2, 40, 30)), 0.5, Target(rng.poisson(4.0, (2, 40, 30)), 1.0, (2.0, 3.0))
    )
    assert plain.deviation
    for strength, row in zip(Strength, rows, strict=True):
        assert (row.name, row.label) == (f"stage1_{strength}", f"Stage 1, {strength}")
        assert row.settings["strength"] == {"share": strength.share, "sigma_mm": 4.0}
        for found, given, own in (
            (row.restore, apply, plain.restore),
            (row.deviation, deviation, plain.deviation),
        ):
            expected = given(strength, own(pair), pair.rapid, 0.5, (2.0, 3.0))
            np.testing.assert_array_equal(found(pair), expected)
    with pytest.raises(RbsError, match="--strengths is about stage 1"):
        trained_methods([], strengths=True)
    methods = trained_methods(files, adapt=True)
    assert [m.name for m in methods] == ["stage1", "stage1_adapted", "stage1_2", "stage1_2_adapted"]
    assert [m.settings["weights"].split()[1].rstrip(",") for m in methods] == [
        "one.safetensors",
        "one.safetensors",
        "two.safetensors",
        "two.safetensors",
    ]


def test_the_cascade_is_read_from_beside_its_first_restorer(manifest, tmp_path):
    from rbs.distillation.cascade import Cascade, save_cascade
    from rbs.restorers.checkpoint import save_restorer
    from rbs.restorers.nafnet import NAFNet

    small = {"width": 4, "enc_blocks": (1,), "middle_blocks": 1, "dec_blocks": (1,)}
    f1, f2 = NAFNet(**small), NAFNet(**small)
    save_restorer(tmp_path / "restorer.safetensors", f1, {})
    methods = trained_methods([], tmp_path / "restorer.safetensors")
    assert [m.name for m in methods] == ["stage2_f1"]
    save_cascade(tmp_path / "cascade.safetensors", Cascade(f1, f2), {})
    methods = trained_methods([tmp_path / "restorer.safetensors"], tmp_path / "restorer.safetensors")
    assert [m.name for m in methods] == ["stage1", "stage2_f1", "stage2_f2"]
    pair = pairs.load_pair(manifest[0].split("test")[0])
    for method in methods:
        restored = method.restore(pair)
        assert restored.shape == pair.rapid.shape
        assert (restored >= 0).all()


def test_a_restorer_in_the_place_of_the_cascade_is_named(tmp_path):
    from rbs.restorers.checkpoint import save_restorer
    from rbs.restorers.dncnn import DnCNN

    for name in ("restorer", "cascade"):
        save_restorer(tmp_path / f"{name}.safetensors", DnCNN(depth=3, width=4), {})
    with pytest.raises(CheckpointError, match=r"cascade.safetensors: it holds no second restorer; put"):
        trained_methods([], tmp_path / "restorer.safetensors")


@pytest.mark.parametrize(("recorded", "said"), [({"prior": "online"}, "online"), ({}, "not recorded")])
def test_the_second_restorer_says_where_its_prior_comes_from(tmp_path, monkeypatch, recorded, said):
    """And its teacher is built on the base weights that were named."""
    from types import SimpleNamespace

    import torch

    from rbs.distillation.cascade import Cascade, save_cascade, second_restorer
    from rbs.distillation.spi import SPI
    from rbs.restorers.checkpoint import save_restorer
    from rbs.restorers.dncnn import DnCNN
    from rbs.segmentation import adapters
    from rbs.weights.shipped import file_sha256

    asked = []

    def load_teacher(folder, base):
        asked.append((folder, base))
        teacher = torch.nn.Identity()
        teacher.digest = "d1"
        return teacher

    monkeypatch.setattr(adapters, "load_teacher", load_teacher)
    f1 = DnCNN(depth=3, width=4)
    save_restorer(tmp_path / "restorer.safetensors", f1, {})
    spi = SPI(6)
    cascade = Cascade(f1, second_restorer(f1, spi, "i1"), spi)
    save_cascade(tmp_path / "cascade.safetensors", cascade, {"teacher": "d1", **recorded})
    files = SimpleNamespace(
        f1=tmp_path / "restorer.safetensors", teacher=tmp_path / "t", base=tmp_path / "sam.pth"
    )
    files.teacher.mkdir()
    *_, method = trained_methods([files.f1], files.f1, files.teacher, files.base)
    assert asked == [(files.teacher, files.base)]
    assert method.settings["prior"].startswith(f"{said} in training; here of the whole scan")
    assert method.settings["sha256"] == file_sha256(tmp_path / "cascade.safetensors")

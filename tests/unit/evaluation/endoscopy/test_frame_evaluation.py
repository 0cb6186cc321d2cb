"""A whole evaluation of frames, from the manifest to the page."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from drawn_frames import write_frames

from rbs.cli.main import main
from rbs.data.endoscopy import EndoscopyDataModule
from rbs.data.frames_manifest import FramesManifest
from rbs.evaluation.endoscopy import classical
from rbs.evaluation.endoscopy.images import FrameSet, tiles
from rbs.evaluation.endoscopy.metrics import dice_metric
from rbs.evaluation.endoscopy.pairs import Source
from rbs.evaluation.methods import Method
from rbs.evaluation.run import evaluate
from rbs.evaluation.set_metrics.fid_kid import Inception
from rbs.evaluation.statistics import summary
from rbs.report.page import write_report
from rbs.report.tables import read_evaluation
from rbs.restorers.checkpoint import save_restorer
from rbs.restorers.dncnn import DnCNN

ORACLE = Method("stage1", "Stage 1", lambda pair: pair.target.clean, {"sha256": "abc"})
SOURCE = Source("denoise", 320)


def evaluate_frames(manifest, output, *, source, **options):
    return evaluate(FrameSet(manifest, "test", source), output, **options)


def red(frame):
    return frame[0] > 0.75


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Every second candidate of a peer, and short bootstraps: both have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_DENOISERS", "_LIGHTERS", "_SHARPENERS"):
            few = (replace(peer, candidates=peer.candidates[::2]) for peer in getattr(classical, name))
            patch.setattr(classical, name, tuple(few))
        patch.setattr(summary, "RESAMPLES", 200)
        yield


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """Seven groups to test, two of them of two frames."""
    folder = tmp_path_factory.mktemp("frames")
    splits = {"train": 2, "val": 2, "test": 8}
    return write_frames(folder, splits, size=(224, 192))


@pytest.fixture(scope="module")
def evaluated(listed, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation") / "run"
    segmenter = dice_metric(red, "fedcba9876543210")
    manifest = FramesManifest.read(listed)
    evaluate_frames(
        manifest, out, source=SOURCE, trained=[ORACLE], extra_metrics=[segmenter], command="rbs evaluate"
    )
    return out


def test_every_method_and_frame_is_scored(evaluated):
    frames = pd.read_csv(evaluated / "per_frame.csv")
    names = ["ceiling", "degraded", "gaussian", "median", "nlm", "stage1"]
    assert [name for name in frames["method"].drop_duplicates() if name != "bm3d"] == names
    assert len(frames) == 8 * frames["method"].nunique()
    assert frames["degradation"].str.contains("stops").any()
    groups = pd.read_csv(evaluated / "per_group.csv")
    assert groups["group"].nunique() == 8
    means = pd.read_csv(evaluated / "summary.csv").pivot(index="method", columns="metric", values="mean")
    assert means.loc["degraded", "psnr"] < means.loc["nlm", "psnr"] < means.loc["stage1", "psnr"] == np.inf
    # The clean frame has a row only where it is not the reference.
    assert means.loc["ceiling"].dropna().index.tolist() == ["dice"]
    assert means.loc["ceiling", "dice"] == means.loc["stage1", "dice"] > means.loc["degraded", "dice"]


def test_settings_say_all(evaluated):
    settings = json.loads((evaluated / "settings.json").read_text())
    assert (settings["images"], settings["preset"], settings["longest_side"]) == ("frames", "denoise", 320)
    assert (settings["scans"], settings["patients"]) == (8, 8)
    assert settings["peers"][0] == "degraded"
    assert [shown["frame"] for shown in settings["pictures"]] == ["5.png", "9.png", "12.png"]
    assert "fedcba987654" in next(m for m in settings["metrics"] if m["name"] == "dice")["definition"]


def test_each_method_is_compared_with_the_best_peer_group_by_group(evaluated):
    found = pd.read_csv(evaluated / "differences.csv").set_index(["metric", "method"])
    row = found.loc[("ssim", "stage1")]
    assert row["against"] in ("nlm", "bm3d", "gaussian", "median")
    assert (row["better"], row["patients"]) == (8, 8)
    # Eight groups, all better: 2 / 2^8, times the number of methods compared.
    assert row["p"] == pytest.approx(2 / 2**8)
    assert row["p_holm"] >= row["p"]


def test_pictures_are_kept_as_a_screen_shows_them(evaluated):
    with np.load(evaluated / "pictures.npz") as pictures:
        assert pictures["0/clean"].dtype == np.uint8
        np.testing.assert_array_equal(pictures["0/clean"], pictures["0/stage1"])
        assert pictures["0/lesion"].dtype == pictures["0/valid"].dtype == bool


def test_the_page_shows_frames_and_speaks_of_groups(evaluated, tmp_path):
    write_report([evaluated], tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert "Restoration of endoscopic frames" in html
    assert "8 frames of 8" in html
    assert "better in 8 of 8 groups" in html
    assert "standard scan" not in html
    assert "patients" not in html.replace("videos or patients", "")
    assert html.count("data:image/jpeg;base64,") == 3 + 6
    for title in ("Whole frame", "Detail", "Error"):
        assert html.count(f"<h4>{title}</h4>") == 3


def test_frames_of_a_group_count_as_one(listed, tmp_path):
    """Four frames in two groups: the mean of the groups' means."""
    manifest = FramesManifest.read(write_frames(tmp_path, {"train": 1, "val": 1, "test": 3}, a_group=2))
    evaluate_frames(manifest, tmp_path / "run", source=SOURCE)
    frames = pd.read_csv(tmp_path / "run" / "per_frame.csv").query("method == 'degraded'")
    found = pd.read_csv(tmp_path / "run" / "summary.csv").set_index(["method", "metric"])
    assert frames["group"].tolist() == ["test0", "test0", "test1"]
    expected = frames.groupby("group")["ssim"].mean().mean()
    assert found.loc[("degraded", "ssim"), "mean"] == pytest.approx(expected, rel=1e-5)
    assert found.loc[("degraded", "ssim"), "patients"] == 2


def test_an_interrupted_evaluation_goes_on(tmp_path):
    manifest = FramesManifest.read(write_frames(tmp_path))
    seen = []

    def failing(pair):
        seen.append(pair.patient)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return pair.degraded

    method = Method("stage1", "Stage 1", failing)
    with pytest.raises(KeyboardInterrupt):
        evaluate_frames(manifest, tmp_path / "run", source=SOURCE, trained=[method])
    assert not (tmp_path / "run" / "settings.json").exists()
    evaluate_frames(manifest, tmp_path / "run", source=SOURCE, trained=[method])
    assert seen == ["test0", "test1", "test2", "test2", "test3"]


class Histogram(torch.nn.Module):
    """Stands in for Inception: mean and spread of each colour."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        x = x.float()
        return (torch.cat([x.mean((2, 3)), x.std((2, 3))], dim=1),)


def test_frames_as_a_set(tmp_path):
    manifest = FramesManifest.read(write_frames(tmp_path))
    network = Inception(Histogram(), "0" * 64)
    evaluate_frames(
        manifest, tmp_path / "run", source=Source("low-light", 320), trained=[ORACLE], inception=network
    )
    fid = pd.read_csv(tmp_path / "run" / "sets.csv").query("metric == 'fid'").set_index("method")["value"]
    assert fid["stage1"] == pytest.approx(0, abs=1e-6)
    assert fid["exposure"] < fid["degraded"]
    assert "clean" not in fid


def test_tiles_cover_the_frame_and_leave_out_what_is_not_valid():
    frame = np.arange(300 * 200, dtype=np.float32).reshape(1, 300, 200).repeat(3, 0) / 60000
    valid = np.ones((300, 200), bool)
    assert tiles(frame, valid).shape == (6, 3, 128, 128)
    # The last ones end where the frame ends.
    assert tiles(frame, valid)[-1, 0, -1, -1] == round(255 * 59999 / 60000)
    valid[:, :120] = False
    assert len(tiles(frame, valid)) == 3
    assert tiles(frame[:, :100], valid[:100]).shape == (0, 3, 128, 128)


def colours(path: Path, **provenance) -> Path:
    save_restorer(path, DnCNN(depth=3, width=4, domain="colours"), provenance)
    return path


def test_one_command_for_either_manifest(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RBS_WEIGHTS", raising=False)
    manifest = write_frames(tmp_path / "frames")
    weights = colours(tmp_path / "restorer.safetensors", preset="deblur", longest_side=None)
    out = tmp_path / "run"
    arguments = ["evaluate", str(manifest), "--stage1", str(weights), "--output", str(out)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "over groups" in printed
    found = read_evaluation(out)
    assert (found.settings["preset"], found.settings["longest_side"]) == ("deblur", None)
    means = found.summary.pivot(index="method", columns="metric", values="mean")
    # Untrained, it is the identity.
    assert means.loc["stage1", "psnr"] == pytest.approx(means.loc["degraded", "psnr"], abs=1e-3)
    for option in ("--strengths", "--adapt"):
        assert main([*arguments, option, "--overwrite"]) == 1
        assert f"{option} weighs counts, and frames have none" in capsys.readouterr().err
    assert main([*arguments, "--preset", "x2", "--overwrite"]) == 0
    found = read_evaluation(out)
    assert found.settings["preset"] == "x2"
    assert found.labels["degraded"] == "Bicubic (frame as enlarged)"


def test_frames_of_low_quality_are_taken_as_they_are(tmp_path, monkeypatch):
    monkeypatch.delenv("RBS_WEIGHTS", raising=False)
    manifest = write_frames(tmp_path / "frames", low=True)
    assert main(["evaluate", str(manifest), "--output", str(tmp_path / "run")]) == 0
    found = read_evaluation(tmp_path / "run")
    assert found.settings["preset"] is None
    means = found.summary.pivot(index="method", columns="metric", values="mean")
    assert means.loc["degraded", "psnr"] < 15
    assert means.loc["exposure", "psnr"] > 20


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ((), "has frames without a low-quality picture, and the weights name no preset; say with --preset"),
        (("--stage1", "scans"), "Stage 1 restores scans, but the manifest lists frames"),
        (("--stage1", "deblur", "--stage2", "denoise"), "the weights name deblur, denoise"),
        (("--stage1", "deblur", "--stage2", "large"), "trained on frames of other sizes"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(tmp_path, capsys, arguments, fault):
    manifest = write_frames(tmp_path / "frames")
    files = {
        "scans": "rbs/weights/restorer.safetensors",
        "deblur": colours(tmp_path / "a" / "restorer.safetensors", preset="deblur", longest_side=320),
        "denoise": colours(tmp_path / "b" / "restorer.safetensors", preset="denoise", longest_side=320),
        "large": colours(tmp_path / "c" / "restorer.safetensors", preset="deblur", longest_side=640),
    }
    given = [str(files.get(word, word)) for word in arguments]
    assert main(["evaluate", str(manifest), *given, "--output", str(tmp_path / "run")]) == 1
    assert fault in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_options_of_frames_are_refused_for_scans(tiny_cohort, tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main(["evaluate", str(tiny_cohort), "--preset", "denoise", "--output", out]) == 1
    assert "--preset and --segmenter are for frames" in capsys.readouterr().err


def test_an_empty_split_is_named(tmp_path, capsys):
    manifest = write_frames(tmp_path / "frames", {"train": 1, "val": 2})
    assert main(["evaluate", str(manifest), "--preset", "denoise", "--output", str(tmp_path / "run")]) == 1
    assert "no frame is in split 'test'" in capsys.readouterr().err


def test_peers_need_a_validation_split(tmp_path, caplog):
    manifest = FramesManifest.read(write_frames(tmp_path / "frames", {"train": 1, "test": 2}))
    evaluate_frames(manifest, tmp_path / "run", source=SOURCE)
    assert "the classical peers are left out" in caplog.text
    assert "degraded" in read_evaluation(tmp_path / "run").labels


@pytest.mark.parametrize("low", [False, True])
def test_pairs_are_those_that_training_is_tested_by(tmp_path, low):
    manifest = write_frames(tmp_path, {"train": 1, "val": 1, "test": 2}, low=low)
    module = EndoscopyDataModule(manifest, preset="mixed", longest_side=150, num_workers=0)
    module.setup("test")
    source = Source(None if low else "mixed", 150)
    for place, (row, batch) in enumerate(zip(module.cases("test"), module.test_dataloader(), strict=True)):
        pair = source.pair(row, place)
        np.testing.assert_array_equal(pair.degraded, batch["rapid"][0].numpy())
        np.testing.assert_array_equal(pair.target.clean, batch["target"][0].numpy())
        np.testing.assert_array_equal(pair.target.valid, batch["valid"][0, 0].numpy())
        np.testing.assert_array_equal(pair.target.lesion, batch["labels"][0, 0].numpy() > 0)
        assert pair.patient == batch["patient"][0]
        assert bool(pair.degradation) != low

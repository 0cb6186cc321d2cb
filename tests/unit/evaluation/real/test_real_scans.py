"""Slow real scans: how they are read, thinned, restored and summarised."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nm_files import expectation, poisson, write_nm

from rbs.errors import CheckpointError, OutputError, RbsError
from rbs.evaluation.methods import RAPID
from rbs.evaluation.real.methods import peers, restorers
from rbs.evaluation.real.run import evaluate_real, score
from rbs.evaluation.real.scans import RealScan, Speed, read_scans, short_names
from rbs.evaluation.scans.classical import CLASSICAL
from rbs.evaluation.scans.metrics import nc_psnr
from rbs.scans.censoring import cut_counts
from rbs.scans.scan import Scan, View

SPEEDS = [Speed(40.0), Speed(60.0)]
BOTH = ("posterior", "anterior")


@pytest.fixture
def gaussian():
    return CLASSICAL[0].method(3.5)


@pytest.fixture
def slow(tmp_path) -> Path:
    """A folder of two scans of 10 cm/min: one of one view, one of both."""
    folder = tmp_path / "scans"
    write_nm(folder / "one.dcm", poisson(seed=1), velocity=10.0)
    write_nm(folder / "two.dcm", poisson(2, seed=2), views=BOTH, velocity=10.0)
    return folder


def read(*paths, speeds=SPEEDS, **options):
    scans, refused = read_scans(paths, speeds, **options)
    return scans, [str(error) for error in refused]


def test_a_folder_is_read_and_named(slow):
    scans, refused = read(slow)
    assert [scan.name for scan in scans] == ["one", "two"]
    assert scans[1].views == (View.ANTERIOR, View.POSTERIOR)
    assert refused == []


def test_files_of_one_name_are_told_apart():
    files = [Path("a/x.dcm"), Path("b/x.dcm"), Path("b/y.dcm")]
    assert short_names(files) == ["a/x", "b/x", "b/y"]


def test_names_are_safe_to_print():
    assert short_names([Path("a\x1b[31m.dcm"), Path("M\udcfcller.dcm")]) == ["a\\x1b[31m", "M\\udcfcller"]


def test_scans_of_like_names_have_pictures_of_their_own(slow, tmp_path, gaussian):
    scans, _ = read(slow)
    alike = [replace(scan, name=name) for scan, name in zip(scans, ("A 1", "a-1"), strict=True)]
    evaluate_real(alike, SPEEDS, 1, [RAPID, gaussian], [], tmp_path / "out")
    pictures = json.loads((tmp_path / "out" / "settings.json").read_text())["pictures"]
    assert pictures == {"A 1": "a-1.png", "a-1": "1-a-1.png"}
    assert all((tmp_path / "out" / "pictures" / file).is_file() for file in pictures.values())


def test_the_rapid_scan_and_the_rest_are_the_scan(slow):
    (_, scan), _ = read(slow)
    pair = scan.pair(Speed(40.0), 1)
    assert (pair.rapid + pair.target.counts == scan.scan.aligned()).all()
    assert pair.rapid.sum() / scan.scan.counts.sum() == pytest.approx(0.25, rel=0.02)
    # Relative to a scan of 20 cm/min: half of it, and one and a half of it.
    assert (pair.exposure, pair.target.exposure) == (0.5, 1.5)
    halved = scan.pair(Speed(2.0, relative=True), 1)
    assert (halved.exposure, halved.target.exposure) == (1.0, 1.0)


def test_draws_do_not_depend_on_the_order_of_files(slow):
    (one, two), _ = read(slow)
    (also_two,), _ = read(slow / "two.dcm")
    assert (two.pair(SPEEDS[0], 1).rapid == also_two.pair(SPEEDS[0], 1).rapid).all()
    assert (two.pair(SPEEDS[0], 1).rapid != two.pair(SPEEDS[0], 2).rapid).any()
    assert (two.pair(SPEEDS[0], 1).rapid != two.pair(SPEEDS[1], 1).rapid).any()
    assert one.digest != two.digest


def test_draws_do_not_depend_on_how_a_view_is_named(tmp_path):
    file = write_nm(tmp_path / "unnamed.dcm", poisson(seed=5), views=("?",), velocity=10.0)
    (enumerated,), _ = read(file, views=(View.POSTERIOR,))
    (named,), _ = read(file, views=["posterior"])
    assert (enumerated.pair(SPEEDS[0], 1).rapid == named.pair(SPEEDS[0], 1).rapid).all()


def test_only_faster_scans_are_simulated(tmp_path):
    file = write_nm(tmp_path / "a.dcm", poisson(), velocity=45.0)
    (scan,), refused = read(file, speeds=[Speed(40.0), Speed(60.0), Speed(2.0, relative=True)])
    assert [speed.label for speed in scan.speeds([Speed(40.0), Speed(60.0)])] == ["60 cm/min"]
    assert refused == []


def test_scans_that_cannot_be_used_are_named_and_do_not_stop_the_others(slow, tmp_path):
    from scipy.ndimage import gaussian_filter

    smoothed = np.rint(gaussian_filter(poisson().astype(float), (0, 2, 2))).astype(int)
    write_nm(slow / "smoothed.dcm", smoothed, velocity=10.0)
    write_nm(slow / "fast.dcm", poisson(seed=3), velocity=60.0)
    write_nm(slow / "silent.dcm", poisson(seed=4), velocity=None)
    write_nm(slow / "unnamed.dcm", poisson(seed=5), views=("?",), velocity=10.0)
    write_nm(slow / "zz_twin.dcm", poisson(seed=1), velocity=10.0)
    scans, refused = read(slow, tmp_path / "nowhere")
    assert [scan.name for scan in scans] == ["one", "two"]
    for name, fault in {
        "smoothed": "raw counts",
        "fast": "it was acquired at 60.0 cm/min, which is no slower than 40 cm/min, 60 cm/min",
        "silent": "the scan velocity is unknown; state it with --from-velocity",
        "unnamed": "which view a frame shows; name it with --view",
        "zz_twin": "it holds the same counts as",
        "nowhere": "it cannot be read",
    }.items():
        (message,) = (text for text in refused if f"/{name}.dcm: " in text or f"/{name}: " in text)
        assert fault in message
    (named,), _ = read(slow / "unnamed.dcm", views=(View.POSTERIOR,))
    assert named.views == (View.POSTERIOR,)
    (timed,), _ = read(slow / "silent.dcm", velocity=10.0)
    assert timed.velocity == 10


def test_a_view_is_scored_over_its_own_body(slow):
    """With one view the score is NC-PSNR of `rbs evaluate`; a view is not blamed for the other."""
    (one, two), _ = read(slow)
    pair = one.pair(SPEEDS[0], 1)
    estimate = CLASSICAL[0].method(3.5).restore(pair)
    (row,) = score(estimate, pair)
    assert row["nc_psnr"] == pytest.approx(nc_psnr(estimate, pair.target))
    pair = two.pair(SPEEDS[0], 1)
    estimate = CLASSICAL[0].method(3.5).restore(pair)
    spoiled = estimate.copy()
    spoiled[1] *= 2
    before, after = score(estimate, pair), score(spoiled, pair)
    assert before[0] == after[0]
    assert after[1]["view"] == "posterior"
    assert after[1]["nc_psnr"] < before[1]["nc_psnr"] - 3
    assert after[1]["count_bias"] == pytest.approx(100, abs=10)


def test_a_cut_scan_is_judged_as_the_whole_one(slow):
    """What an export cut is drawn anew, and pixels that may well have been cut are left out."""
    expected = np.stack([expectation(rows=256, columns=96, level=12.0)])
    counts = np.random.default_rng(0).poisson(expected)
    whole = RealScan("whole", Scan(counts, (View.ANTERIOR,), (2.3, 2.3), velocity=10.0))
    cut = RealScan("cut", replace(whole.scan, counts=cut_counts(counts, 2), cut=2))
    found = [scan.pair(Speed(20.0), 1) for scan in (whole, cut)]
    judged = found[1].target.judged
    assert 0.1 < judged.sum() / found[0].target.judged.sum() < 0.95
    # The known expectation at standard scale has no error of its own, judged by either.
    for pair in found:
        (row,) = score(expected / 2, pair)
        assert abs(row["nc_nmse"]) * pair.target.peak**2 < 0.02 * pair.target.standard[judged].mean()


def counting(method, seen):
    def restore(pair):
        seen.append((method.name, pair.patient))
        return method.restore(pair)

    return replace(method, restore=restore)


def test_what_is_done_is_not_done_again(slow, tmp_path, gaussian):
    scans, _ = read(slow)
    seen: list = []
    median = counting(CLASSICAL[1].method(5), seen)
    raw, smooth, out = counting(RAPID, seen), counting(gaussian, seen), tmp_path / "out"

    def stop(pair):
        raise RbsError("interrupted")

    with pytest.raises(RbsError, match="interrupted"):
        evaluate_real(scans, SPEEDS, 2, [raw], [replace(gaussian, restore=stop)], out)
    evaluate_real(scans, SPEEDS, 2, [raw, smooth], [], out)
    assert len(seen) == 2 * 2 * 2 * 2
    whole = pd.read_csv(out / "scores.csv")
    assert len(whole) == 2 * (1 + 2) * 2 * 2
    seen.clear()
    # A further method under another name of the scans costs its own restorations alone.
    renamed = [replace(scan, name=f"new {scan.name}") for scan in scans]
    evaluate_real(renamed, SPEEDS, 2, [raw, smooth], [median], out)
    assert {name for name, _ in seen} == {"median"}
    assert len(seen) == 2 * 2 * 2
    again = pd.read_csv(out / "scores.csv").query("method != 'median'")
    assert again["nc_psnr"].tolist() == whole["nc_psnr"].tolist()
    # Another draw or a lost file is made up for.
    seen.clear()
    next((out / "restorations").glob("*.json")).write_text("{half")
    evaluate_real(scans, SPEEDS, 2, [raw, smooth], [median], out)
    assert len(seen) == 1


def test_the_table_and_the_pictures(slow, tmp_path, gaussian):
    scans, _ = read(slow)
    table = evaluate_real(scans, SPEEDS, 2, [RAPID, gaussian], [], tmp_path / "out")
    assert table["speed"].unique().tolist() == ["40 cm/min", "60 cm/min"]
    row = table.set_index(["speed", "method"]).loc["40 cm/min"]
    assert row.loc["gaussian", "nc_psnr"] > row.loc["rapid", "nc_psnr"] + 3
    assert row.loc["rapid", "difference"] < row.loc["rapid", "difference_high"] < -3
    assert np.isnan(row.loc["gaussian", "difference"])  # the best peer, which all are compared with
    assert (row["scans"] == 2).all()
    assert (row["views"] == 3).all()
    scores = pd.read_csv(tmp_path / "out" / "scores.csv").query("method == 'rapid' and speed == '40 cm/min'")
    expected = scores.groupby(["scan", "view"])["nc_psnr"].mean().groupby("scan").mean().mean()
    assert row.loc["rapid", "nc_psnr"] == pytest.approx(expected)
    assert {path.name for path in (tmp_path / "out" / "pictures").iterdir()} == {"one.png", "two.png"}
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["reference"] == {"name": "gaussian", "label": "Gaussian, 3.5 mm", "asked for": False}
    assert "| Gaussian, 3.5 mm |" in (tmp_path / "out" / "real_scans.md").read_text()


def test_a_folder_of_something_else_and_an_unknown_reference_are_refused(slow, tmp_path, gaussian):
    scans, _ = read(slow)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something else"):
        evaluate_real(scans, SPEEDS, 1, [gaussian], [], tmp_path / "other")
    with pytest.raises(RbsError, match="there is no method 'x'; compare with one of gaussian"):
        evaluate_real(scans, SPEEDS, 1, [gaussian], [], tmp_path / "out", against="x")
    with pytest.raises(RbsError, match="two methods are called 'gaussian'; rename the file of weights"):
        evaluate_real(scans, SPEEDS, 1, [gaussian], [gaussian], tmp_path / "out")


def test_peers_keep_what_phantoms_tuned():
    """A value that was never tried on phantoms is none that they tuned."""
    assert [peer.name for peer in peers()][:6] == ["rapid", "gaussian", "median", "tv", "wavelet", "nlm"]
    assert all(peer.on_phantoms in peer.candidates for peer in CLASSICAL)


def test_restorers_are_named_after_their_files(tmp_path):
    from rbs.restorers.checkpoint import save_restorer
    from rbs.restorers.dncnn import DnCNN
    from rbs.restorers.nafnet import NAFNet

    files = [tmp_path / name / "restorer.safetensors" for name in "ab"]
    for width, file in enumerate(files, 2):
        save_restorer(file, DnCNN(depth=3, width=width), {"steps": 0})
    found = restorers([*files, files[0]], adapt=True, strengths=True)
    assert [method.name for method in found] == [
        f"{folder}/restorer{row}"
        for folder in "ab"
        for row in ("", "_adapted", "_gentle", "_standard", "_strong")
    ]
    assert len({json.dumps(method.settings, default=str) for method in found}) == 10
    frames = NAFNet(width=4, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,), domain="colours")
    save_restorer(tmp_path / "f.safetensors", frames, {"steps": 0})
    with pytest.raises(CheckpointError, match="it restores frames, not scans"):
        restorers([tmp_path / "f.safetensors"])

"""The benchmark: costs against counts made by hand, and a table with the origin of each row."""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_frames import write_frames

from rbs.cli.main import main
from rbs.errors import CheckpointError
from rbs.evaluation.scans.classical import available, gaussian
from rbs.multirun import benchmark
from rbs.multirun.benchmark import Cost, cost_of, multiply_adds
from rbs.multirun.runs import Training
from rbs.restorers.checkpoint import save_restorer
from rbs.restorers.diffusion import Diffusion
from rbs.restorers.dncnn import DnCNN
from rbs.restorers.swinir import SwinIR
from rbs.weights.shipped import file_sha256

ROWS, COLUMNS = 48, 32


def run_of(folder: Path, width: int = 4, version: int = 0) -> Path:
    """What `rbs fit` leaves of a DnCNN."""
    save_restorer(folder / "restorer.safetensors", DnCNN(depth=3, width=width, sigma_px=1.0), {"steps": 7})
    (folder / f"version_{version}").mkdir()
    (folder / f"version_{version}" / "config.yaml").write_text("name: it\n")
    return folder


def test_multiply_adds_are_those_of_the_convolutions():
    restorer = DnCNN(depth=3, width=4, sigma_px=0.0)
    network = 9 * (5 * 4 + 4 * 4 + 4 * 2) * ROWS * COLUMNS
    # The local mean of both views: 17 taps down, on 8 more columns to either side, then 17 across.
    local_mean = 2 * 17 * (ROWS * (COLUMNS + 16) + ROWS * COLUMNS)
    assert multiply_adds(restorer, (2, ROWS, COLUMNS)) == network + local_mean


def test_multiply_adds_count_attention_and_every_step():
    swin = {width: multiply_adds(SwinIR(width, [2], [2], window=4), (2, 16, 16)) for width in (8, 16)}
    assert (
        2 < swin[16] / swin[8] < 4
    )  # products of windows grow with the width, those of weights with its square
    steps = {n: multiply_adds(Diffusion([4, 8], groups=2, steps=n, tile=16), (2, 16, 16)) for n in (1, 2, 3)}
    assert steps[3] - steps[2] == steps[2] - steps[1] > 0


def test_costs_are_measured_in_a_process_of_their_own(tmp_path):
    before = benchmark._peak_memory_mb()
    large = np.ones(int((1000 + before) * 1e6 / 8))  # beyond any earlier peak
    assert large.nbytes / 1e6 < benchmark._peak_memory_mb() < large.nbytes / 1e6 + before + 50
    mine = benchmark._peak_memory_mb()
    del large
    cost = cost_of(Training.read(run_of(tmp_path)).weights, (2, ROWS, COLUMNS))
    assert 50 < cost.memory_mb < mine - 400
    assert cost.parameters == sum(p.numel() for p in DnCNN(depth=3, width=4).parameters())
    assert cost.macs == multiply_adds(DnCNN(depth=3, width=4, sigma_px=1.0), (2, ROWS, COLUMNS))
    assert 0 < cost.seconds < 60


def test_a_slow_restoration_is_not_repeated(monkeypatch):
    calls = []
    monkeypatch.setattr(benchmark, "LONG_S", 0.0)
    with pytest.raises(ZeroDivisionError):
        benchmark._measure(lambda pair: 1 / 0, (1, 8, 8))
    monkeypatch.setattr(benchmark, "LONG_S", 1e-9)
    benchmark._measure(lambda pair: calls.append(pair), (1, 8, 8))
    assert len(calls) == 2


def test_what_a_run_lacks_is_named(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"no restorer\.safetensors of a finished training; .*make benchmark"
    ):
        Training.read(tmp_path)
    run_of(tmp_path)
    (tmp_path / "version_0" / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"no version_\*/config\.yaml"):
        Training.read(tmp_path)


def test_the_newest_version_is_the_one_that_made_the_weights(tmp_path):
    run_of(tmp_path, version=9)
    run_of(tmp_path, version=10)
    assert Training.read(tmp_path).config == tmp_path / "version_10" / "config.yaml"


def test_one_table_of_all(tiny_cohort, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RBS_WEIGHTS", raising=False)
    # In this process and on a small scan: the real ones are tested above.
    monkeypatch.setattr(benchmark, "cost_of", lambda job, shape: benchmark._measure(job, (shape[0], 32, 32)))
    runs = [run_of(tmp_path / "stage1"), run_of(tmp_path / "peers" / "wide_50%", width=8)]
    output = tmp_path / "benchmark"
    arguments = ["benchmark", str(tiny_cohort), *map(str, runs), "--output", str(output)]
    assert main(arguments) == 0
    table = pd.read_csv(output / "benchmark.csv").set_index("method")
    classical = [peer.name for peer in available()]
    assert {"ceiling", "rapid", *classical, "stage1", "wide_50%"} <= set(table.index)
    for run in runs:
        row = table.loc[run.name]
        assert row["sha256"] == file_sha256(run / "restorer.safetensors")
        assert row["config"] == str(run / "version_0" / "config.yaml")
        assert row["command"] == f"rbs fit --config {row['config']}"
        assert row["steps"] == 7
    assert table.loc["wide_50%", "macs"] > table.loc["stage1", "macs"] > 0
    assert table.loc[[*classical, "stage1"], "seconds"].gt(0).all()
    assert math.isnan(table.loc["gaussian", "macs"])
    assert math.isnan(table.loc["rapid", "seconds"])
    markdown = (output / "benchmark.md").read_text()
    rows = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in rows}) == 1
    assert len(rows) == 2 + len(table)
    assert markdown.split("\n\n")[1].startswith("Mean over 1 patient (")
    latex = (output / "benchmark.tex").read_text()
    assert r"wide\_50\% (DnCNN)" in latex
    assert latex.count(r"\\") == 1 + len(table)
    assert markdown.splitlines()[0] in capsys.readouterr().out
    assert main(arguments) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_one_table_of_frames(tmp_path, monkeypatch):
    monkeypatch.delenv("RBS_WEIGHTS", raising=False)
    monkeypatch.setattr(benchmark, "cost_of", lambda job, shape: benchmark._measure(job, (shape[0], 32, 32)))
    manifest = write_frames(tmp_path / "frames", {"train": 1, "val": 1, "test": 2})
    run = tmp_path / "stage1"
    restorer = DnCNN(depth=3, width=4, domain="colours")
    save_restorer(run / "restorer.safetensors", restorer, {"preset": "deblur", "longest_side": 320})
    (run / "version_0").mkdir()
    (run / "version_0" / "config.yaml").write_text("name: it\n")
    output = tmp_path / "benchmark"
    assert main(["benchmark", str(manifest), str(run), "--output", str(output)]) == 0
    table = pd.read_csv(output / "benchmark.csv").set_index("method")
    assert {"degraded", "unsharp", "lucy", "stage1"} <= set(table.index)
    # Convolutions of 6 channels to 4, 4 to 4 and 4 to 3; the local mean as above, of three colours.
    network = 9 * (6 * 4 + 4 * 4 + 4 * 3) * 32 * 32
    assert table.loc["stage1", "macs"] == network + 3 * 17 * (32 * 48 + 32 * 32)
    assert table.loc["stage1", "parameters"] == sum(p.numel() for p in restorer.parameters())
    assert table.loc[["unsharp", "lucy", "stage1"], "seconds"].gt(0).all()
    head, _, *lines = (output / "benchmark.md").read_text().splitlines()
    cells = dict(zip(head.split(" | "), next(x for x in lines if "DnCNN" in x).split(" | "), strict=True))
    # Both are rounded, the time to whole milliseconds.
    slowest, fastest = float(cells["ms a frame"]) + 0.5, max(float(cells["ms a frame"]) - 0.5, 1e-3)
    assert 1000 / slowest - 0.05 <= float(cells["Frames a second"]) <= 1000 / fastest + 0.05
    assert "over 2 groups" in (output / "benchmark.md").read_text()
    assert "Costs of one frame of 3 x 256 x 320 pixels" in (output / "benchmark.md").read_text()
    other = ["--split", "val", "--output", str(tmp_path / "val")]
    assert main(["benchmark", str(manifest), str(run), *other]) == 0
    assert json.loads((tmp_path / "val" / "settings.json").read_text())["split"] == "val"


def test_two_runs_of_one_name_are_refused(tiny_cohort, tmp_path, capsys):
    runs = [run_of(tmp_path / "a" / "unet"), run_of(tmp_path / "b" / "unet")]
    output = tmp_path / "benchmark"
    assert main(["benchmark", str(tiny_cohort), *map(str, runs), "--output", str(output)]) == 1
    assert capsys.readouterr().err == "rbs: two runs have one name; name folders whose last part differs.\n"
    assert not output.exists()


def test_a_classical_peer_costs_time_and_no_parameters():
    cost = benchmark._measure(partial(gaussian, sigma_mm=3.0), (2, 32, 32))
    assert isinstance(cost, Cost)
    assert cost.seconds > 0
    assert (cost.parameters, cost.macs) == (None, None)

"""Running a sweep: nothing twice, nothing lost, several at a time, the poor stopped early."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from rbs.errors import OutputError, RbsError
from rbs.multirun.runs import Run
from rbs.multirun.sweep.definition import read_sweep
from rbs.multirun.sweep.results import write_results
from rbs.multirun.sweep.runner import history, read_runs, run_sweep


def starts(output):
    """How often each run was started."""
    return {file.parent.name: len(file.read_text().splitlines()) for file in sorted(output.glob("*/starts"))}


def test_a_grid_runs_to_its_end_and_is_not_run_again(write_sweep, tmp_path):
    sweep, output = read_sweep(write_sweep()), tmp_path / "out"
    runs = run_sweep(sweep, output)
    assert [run.state for run in runs] == ["finished"] * 3
    assert starts(output) == {"0001": 1, "0002": 1, "0003": 1}
    table = write_results(sweep, runs, output)
    assert list(table["x"]) == [3.0, 2.0, 1.0]
    assert list(table["score"]) == [18.0, 12.0, 6.0]
    assert set(table["iterations"]) == {6}
    pd.testing.assert_frame_equal(pd.read_csv(output / "sweep.csv", dtype={"run": str}), table)
    assert "The best run that finished, 0002:" in (output / "sweep.md").read_text()
    assert (output / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (output / "sweep.svg").read_text()
    run_sweep(sweep, output)
    assert starts(output) == {"0001": 1, "0002": 1, "0003": 1}


def test_more_runs_can_be_asked_for_but_nothing_else_changed(write_sweep, tmp_path):
    output = tmp_path / "out"
    parameters = {"x": {"min": 0.0, "max": 1.0}}
    random = {"method": "random", "parameters": parameters}
    first = run_sweep(read_sweep(write_sweep(**random, run_cap=1)), output)
    both = run_sweep(read_sweep(write_sweep(**random, run_cap=2)), output)
    assert both[0].about == first[0].about
    assert starts(output) == {"0001": 1, "0002": 1}
    with pytest.raises(OutputError, match="it holds another sweep, of which parameters differ"):
        run_sweep(read_sweep(write_sweep(method="random", run_cap=2, parameters={"x": {"value": 1}})), output)
    with pytest.raises(OutputError, match="of which arguments differ"):
        run_sweep(read_sweep(write_sweep(**random, run_cap=2)), output, arguments=["--steps=2"])


def test_workers_run_side_by_side(write_sweep, tmp_path):
    sweep = read_sweep(write_sweep(parameters={"x": {"values": [1, 2, 3, 4]}, "together": {"value": 4}}))
    runs = run_sweep(sweep, tmp_path / "out", workers=4)
    assert [run.state for run in runs] == ["finished"] * 4


def test_the_poor_are_stopped_early(write_sweep, tmp_path):
    hold = tmp_path / "hold"
    (tmp_path / "hold9").touch()  # the better one goes on by itself, the poorer one waits to be stopped
    sweep = read_sweep(
        write_sweep(
            parameters={"x": {"values": [9, 1]}, "hold": {"value": str(hold)}},
            early_terminate={"type": "hyperband", "min_iter": 2, "eta": 4},
        )
    )
    runs = run_sweep(sweep, tmp_path / "out")
    assert [run.state for run in runs] == ["finished", "stopped"]
    assert [len(history(run.folder, "score")) for run in runs] == [6, 3]
    table = write_results(sweep, runs, tmp_path / "out")
    assert list(table["state"]) == ["finished", "stopped"]
    assert [run.state for run in run_sweep(sweep, tmp_path / "out")] == ["finished", "stopped"]
    assert set(starts(tmp_path / "out").values()) == {1}


def test_the_target_ends_the_sweep(write_sweep, tmp_path):
    metric = {"name": "score", "goal": "maximize", "target": 15}
    sweep = read_sweep(write_sweep(metric=metric))
    assert [run.about["values"]["x"] for run in run_sweep(sweep, tmp_path / "out")] == [1.0, 3.0]


def test_an_interrupted_sweep_goes_on_where_it_was(write_sweep, tmp_path):
    hold, output = tmp_path / "hold", tmp_path / "out"
    path = write_sweep(parameters={"x": {"values": [1, 2]}, "hold": {"value": str(hold)}})
    command = [sys.executable, "-m", "rbs.cli", "sweep", str(path), "--output", str(output)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    checkpoint = output / "0001" / "checkpoint"
    while not (checkpoint.exists() and checkpoint.read_text() == "3"):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert "rbs: terminated" in process.stderr.read()
    assert Run.read(output / "0001").state == "unfinished"
    for x in (1, 2):
        (tmp_path / f"hold{x}").touch()
    time.sleep(0.2)
    assert checkpoint.read_text() == "3", "its training lives on"
    run_sweep(read_sweep(path), output)
    assert starts(output) == {"0001": 2, "0002": 1}
    assert history(output / "0001", "score") == [float(k) for k in range(1, 7)]
    assert [run.state for run in read_runs(output)] == ["finished", "finished"]


def test_runs_that_all_fail_end_it_with_the_last_line(write_sweep, tmp_path):
    sweep = read_sweep(write_sweep(parameters={"x": {"values": [1, 2, 3, 4]}, "fails": {"value": True}}))
    with pytest.raises(RbsError, match="the first 3 runs failed; the last line of this one: it is broken"):
        run_sweep(sweep, tmp_path / "out")
    assert starts(tmp_path / "out") == {"0001": 1, "0002": 1, "0003": 1}


def test_one_that_fails_does_not_end_it_and_is_tried_again(write_sweep, tmp_path):
    sweep = read_sweep(write_sweep(parameters={"x": {"value": 1}, "fails": {"values": [True, False]}}))
    for times in (1, 2):
        runs = run_sweep(sweep, tmp_path / "out")
        assert [run.state for run in runs] == ["failed", "finished"]
        assert starts(tmp_path / "out") == {"0001": times, "0002": 1}
    table = write_results(sweep, runs, tmp_path / "out")
    assert list(table["state"]) == ["finished", "failed"]


MACHINE = """
import sys
from pathlib import Path
from rbs.multirun import runs
from rbs.multirun.sweep.definition import read_sweep
from rbs.multirun.sweep.runner import run_sweep
runs._POLL_S = 0.02
run_sweep(read_sweep(Path(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.fixture
def machines(write_sweep, tmp_path):
    """One sweep in two processes, as on two machines with one disk; each holds one of four runs."""
    output, values = tmp_path / "out", {"x": {"values": [1, 2, 3, 4]}, "together": {"value": 2}}
    path = write_sweep(parameters={**values, "hold": {"value": str(tmp_path / "hold")}})
    command = [sys.executable, "-c", MACHINE, str(path), str(output)]
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        while [file.read_text() for file in output.glob("*/checkpoint")] != ["3", "3"]:
            assert all(process.poll() is None for process in processes)
            time.sleep(0.02)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def let_go(tmp_path):
    """Let all trainings go on."""
    for x in (1, 2, 3, 4):
        (tmp_path / f"hold{x}").touch()


def parents(output, run):
    """The processes that started a run, in turn."""
    return [json.loads(line)["parent"] for line in (output / run / "starts").read_text().splitlines()]


def run_of(output, process):
    """The run that a process is at work on."""
    (folder,) = (f.parent for f in output.glob("*/starts") if parents(output, f.parent.name) == [process.pid])
    return folder


def test_two_machines_share_a_sweep(machines, tmp_path):
    output = tmp_path / "out"
    let_go(tmp_path)
    assert [process.wait(120) for process in machines] == [0, 0]
    assert starts(output) == {"0001": 1, "0002": 1, "0003": 1, "0004": 1}
    runs = read_runs(output)
    assert [(run.about["values"]["x"], run.state) for run in runs] == [(x, "finished") for x in (1, 2, 3, 4)]
    begun = {parents(output, run.folder.name)[0] for run in runs}
    assert begun == {process.pid for process in machines}


def test_a_machine_that_dies_leaves_its_run_to_another(machines, tmp_path):
    output = tmp_path / "out"
    first, second = machines
    run = run_of(output, first)
    (training,) = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    first.kill()
    os.kill(int(training), signal.SIGKILL)
    let_go(tmp_path)
    assert second.wait(120) == 0
    again = {name for name, times in starts(output).items() if times > 1}
    assert again == {run.name}
    assert parents(output, run.name) == [first.pid, second.pid]
    x = Run.read(run).about["values"]["x"]
    assert history(run, "score") == [float(x * k) for k in range(1, 7)], "it did not go on where it was"
    assert [run.state for run in read_runs(output)] == ["finished"] * 4


def test_a_training_that_outlives_its_sweep_is_not_begun_again(machines, tmp_path):
    output = tmp_path / "out"
    first, second = machines
    run = run_of(output, first)
    first.kill()
    let_go(tmp_path)
    assert second.wait(120) == 0
    while not (run / "version_0" / "finished").exists():
        time.sleep(0.02)
    runs = run_sweep(read_sweep(tmp_path / "climb.yaml"), output)
    assert [run.state for run in runs] == ["finished"] * 4
    assert starts(output) == {"0001": 1, "0002": 1, "0003": 1, "0004": 1}


def test_history_joins_the_versions_of_a_resumed_run(tmp_path):
    for version, rows in {0: ["1,9", "2,", "5,7"], 10: ["5,nan", "6,3"], 2: ["4,8", "5,6"]}.items():
        folder = tmp_path / f"version_{version}"
        folder.mkdir()
        text = "step,m\n" + "\n".join(rows) + "\n"
        (folder / "metrics.csv").write_text(text)
    with (tmp_path / "version_10" / "metrics.csv").open("a") as file:
        file.write("7,1")  # half of 12.5: the line has no end yet
    assert history(tmp_path, "m") == [9, 8, 3]


def test_damaged_notes_are_named(write_sweep, tmp_path):
    output = tmp_path / "out"
    sweep = read_sweep(write_sweep())
    run_sweep(sweep, output)
    (output / "0002" / "run.json").write_text("{")
    with pytest.raises(RbsError, match="delete its folder to run it again") as refused:
        run_sweep(sweep, output)
    assert refused.value.file == output / "0002" / "run.json"
    shutil.rmtree(output / "0002")
    runs = run_sweep(sweep, output)
    assert starts(output) == {"0001": 1, "0002": 1, "0003": 1}
    assert list(write_results(sweep, runs, output)["x"]) == [3.0, 2.0, 1.0]


def test_threads_are_shared_out_unless_the_user_has(write_sweep, tmp_path, monkeypatch):
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import os, pathlib, sys, json\n"
        "a = dict(w[2:].split('=', 1) for w in sys.argv[1:])\n"
        "f = pathlib.Path(a['trainer.default_root_dir'], a['name'], 'env')\n"
        "f.write_text(json.dumps([os.environ.get('OMP_NUM_THREADS'), os.environ['WANDB_RUN_GROUP']]))\n"
    )
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("rbs.multirun.runs.thread_count", lambda: 8)
    run_sweep(read_sweep(write_sweep(program=str(probe))), tmp_path / "eight", workers=3)
    assert json.loads((tmp_path / "eight" / "0001" / "env").read_text()) == ["2", "eight"]

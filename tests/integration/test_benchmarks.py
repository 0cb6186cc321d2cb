"""The benchmarks run: once each, on small things, without a clock."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_every_benchmark_runs(tmp_path):
    files = sorted(str(path) for path in (ROOT / "benchmarks").glob("bench_*.py"))
    assert len(files) >= 4
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *files, "--benchmark-disable", "-rs", "-p", "no:cacheprovider"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST")},
    )
    last = done.stdout.strip().splitlines()[-1]
    assert done.returncode == 0, done.stdout[-3000:]
    passed = int(last.split()[0])
    assert passed >= 30, last


def test_the_tables_of_what_was_measured(tmp_path):
    """In the table of a benchmark the first row of a group is what the others are compared with."""
    (tmp_path / "bench_sums.py").write_text(
        "import pytest\n"
        "@pytest.mark.benchmark(group='sums')\n"
        "@pytest.mark.parametrize('of', [1, 2])\n"
        "def test_sum(measure, of):\n"
        "    measure(lambda: sum(range(1000)), rounds=2, of=of, note='n')\n"
    )
    (tmp_path / "conftest.py").write_text((ROOT / "benchmarks" / "conftest.py").read_text())
    storage = tmp_path / "bench"
    options = [f"--benchmark-storage={storage}", "--benchmark-save=bench"]
    command = [sys.executable, "-m", "pytest", str(tmp_path / "bench_sums.py"), *options]
    # Beside other workers nothing is measured; this process is told of none.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    subprocess.run(command, cwd=ROOT, check=True, env=alone)
    (file,) = storage.rglob("*.json")
    runs = json.loads(file.read_text())["benchmarks"]
    assert [run["extra_info"]["of"] for run in runs] == [1, 2]
    printed = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "table.py"), str(storage)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    first, second = (line.split(" | ") for line in printed.splitlines() if "note n" in line)
    assert first[3] == "1.00"
    ratio = runs[1]["stats"]["median"] / 2 / runs[0]["stats"]["median"]
    assert float(second[3]) == pytest.approx(ratio, abs=0.01)

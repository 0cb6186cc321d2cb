"""A training without arithmetic: it climbs to a height that its parameters decide, and resumes."""

from pathlib import Path

import pytest
import yaml

from rbs.multirun import runs

PROGRAM = """
import json, os, pathlib, sys, time
given = {"parent": os.getppid()} | dict(word[2:].split("=", 1) for word in sys.argv[1:])
folder = pathlib.Path(given["trainer.default_root_dir"], given["name"])
with (folder / "starts").open("a") as starts:
    starts.write(json.dumps(given) + "\\n")

def wait(ready):
    end = time.monotonic() + 60
    while not ready():
        if time.monotonic() > end:
            sys.exit("it waited in vain")
        time.sleep(0.01)

# Until so many runs have begun.
wait(lambda: len(list(folder.parent.glob("*/starts"))) >= int(given.get("together", 1)))
if given.get("fails") == "True":
    sys.exit("it is broken")
saved = folder / "checkpoint"
begin = int(saved.read_text()) if saved.exists() else 0
version = folder / f"version_{len(list(folder.glob('version_*')))}"
version.mkdir()
with (version / "metrics.csv").open("w") as file:
    file.write("epoch,score,step\\n")
    for step in range(begin, 6):
        if step == 3 and "hold" in given:  # until the test lets this one go on
            wait(pathlib.Path(given["hold"] + given["x"]).exists)
        file.write(f"0,{float(given['x']) * (step + 1)},{step}\\n")
        file.flush()
        saved.write_text(str(step + 1))
(version / "finished").touch()
"""

BASE = {
    "program": "climb.py",
    "method": "grid",
    "metric": {"name": "score", "goal": "maximize"},
    "parameters": {"x": {"values": [1.0, 3.0, 2.0]}},
}


@pytest.fixture(autouse=True)
def _asked_often(monkeypatch):
    monkeypatch.setattr(runs, "_POLL_S", 0.02)


@pytest.fixture
def write_sweep(tmp_path):
    """Write a sweep file: the base with changes; a change to None leaves a key out."""
    program = tmp_path / "climb.py"
    program.write_text(PROGRAM)

    def write(name: str = "climb.yaml", **changes) -> Path:
        content = {**BASE, "program": str(program), **changes}
        content = {key: value for key, value in content.items() if value is not None}
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write

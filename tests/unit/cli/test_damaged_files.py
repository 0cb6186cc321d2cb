"""Damaged files on the command line: a sentence and exit status 1, or a result; never anything else."""

from pathlib import Path

import fuzz_reader
import numpy as np
import pydicom
import pytest

FILES = 120


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of damaged files of all kinds, each called after its number."""
    folder = tmp_path_factory.mktemp("damaged")
    intact = list(fuzz_reader.intact_files(tmp_path_factory.mktemp("intact")).values())
    for number in range(FILES):
        rng = np.random.default_rng((3, number))
        data, _ = fuzz_reader.damaged(intact[rng.integers(len(intact))].data, rng)
        (folder / f"{number:03d}.dcm").write_bytes(data)
    return folder


def refused(errors: str, folder: Path) -> set[str]:
    """The files that were refused; each in a sentence that names it, and not the patient."""
    lines = [line for line in errors.splitlines() if line.startswith(f"refused: {folder}")]
    assert all(line.endswith(".") and "; " in line for line in lines)
    assert "Traceback" not in errors
    assert "Secret" not in errors
    return {line.removeprefix(f"refused: {folder}/")[:7] for line in lines}


def test_inspect(damaged: Path, rbs) -> None:
    status, text, errors = rbs("inspect", damaged)
    gone = refused(errors, damaged)
    read = {line[-7:] for line in text.splitlines() if line.startswith(str(damaged))}
    assert status == 1
    assert gone.isdisjoint(read)
    assert len(gone | read) == FILES
    assert min(len(gone), len(read)) > 10
    assert "Secret" not in text


def test_restore(damaged: Path, weights: Path, rbs, tmp_path: Path) -> None:
    status, text, errors = rbs("restore", damaged, tmp_path / "out", "--checkpoint", weights)
    gone = refused(errors, damaged)
    written = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert status == 1
    assert gone.isdisjoint(written)
    assert len(gone | written) == FILES
    assert min(len(gone), len(written)) > 10
    assert all(
        pydicom.dcmread(tmp_path / "out" / name).ContentQualification == "RESEARCH" for name in written
    )
    assert "Secret" not in text


@pytest.mark.parametrize("command", ["inspect", "restore", "thin"])
def test_one_file_that_is_no_scan(command: str, rbs, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(bytes(128) + b"DICM" + bytes(range(256)))
    more = {"inspect": [], "restore": [tmp_path / "b.dcm"], "thin": [tmp_path / "b.dcm", "--velocity", 40]}
    status, text, errors = rbs(command, path, *more[command])
    assert (status, text) == (1, "")
    assert str(path) in errors
    assert not (tmp_path / "b.dcm").exists()

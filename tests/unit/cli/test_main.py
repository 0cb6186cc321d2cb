"""The command line: lazy, and one sentence for whatever stops it."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

import rbs
from rbs.cli.main import main


def test_help_imports_no_heavy_library():
    heavy = ["torch", "lightning", "pydicom", "matplotlib", "monai", "pandas", "skimage"]
    code = f"""
import sys
from rbs.cli.main import main
try:
    main(["--help"])
except SystemExit:
    pass
print("HEAVY", [m for m in {heavy!r} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "restore" in done.stdout
    assert "HEAVY []" in done.stdout


def test_user_error_is_one_sentence_and_status_1(tmp_path, capsys):
    missing = tmp_path / "nowhere.dcm"
    assert main(["thin", str(missing), str(tmp_path / "out.dcm"), "--velocity", "40"]) == 1
    message = capsys.readouterr().err
    assert str(missing) in message
    assert "Traceback" not in message
    assert len(message.strip().splitlines()) == 1


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"rbs {rbs.__version__}\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("phantom", "simulate --kind scans"),
        ("mucosa", "simulate --kind endoscopy"),
        ("index-frames", "index --kind endoscopy"),
        ("assess", "evaluate --observers"),
        ("predict", "restore"),
    ],
)
def test_an_old_name_is_answered_with_the_new_one(old, new, capsys):
    assert main([old, "some", "--arguments"]) == 1
    assert capsys.readouterr().err == f"rbs: `rbs {old}` is now `rbs {new}`; use that.\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_commands_and_their_options(shell, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--print-completion", shell])
    assert stop.value.code == 0
    script = capsys.readouterr().out
    assert [word for word in ("recover-counts", "fit", "observers", "farther") if word not in script] == []


def test_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["restroe"])
    assert stop.value.code == 2
    assert "restroe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "rbs: interrupted"),
        (SIGTERMException(), 143, "rbs: terminated"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/ward/scan.dcm"),
            1,
            "rbs: /ward/scan.dcm: it cannot be read or written (Permission denied); check the permissions.",
        ),
    ],
    ids=["interrupt", "sigterm", "permission"],
)
def test_whatever_stops_a_command_says_so_and_gives_its_status(monkeypatch, capsys, raised, status, said):
    def stop(*_):
        raise raised

    monkeypatch.setattr("rbs.cli.inspect.run", stop)
    monkeypatch.setattr("rbs.tasks.fit.run_lightning", stop)
    for arguments in (["inspect", "x"], ["fit"]):
        assert main(arguments) == status
        assert capsys.readouterr().err == f"{said}\n"


def test_an_interrupted_training_is_not_taken_for_a_failure(monkeypatch):
    def shut_down_gracefully(_):  # as Lightning does
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    monkeypatch.setattr("rbs.tasks.fit.run_lightning", shut_down_gracefully)
    assert main(["fit"]) == 130


def test_a_folder_that_may_not_be_searched_is_refused_in_one_sentence(monkeypatch, tmp_path, capsys):
    def no_entry(self):  # as pathlib does up to Python 3.11
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_dir", no_entry)
    assert main(["restore", str(tmp_path / "scan.dcm"), str(tmp_path / "out.dcm")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"rbs: {tmp_path / 'scan.dcm'}: ")
    assert error.count("\n") == 1

"""A folder never stops at one of its files: n good ones give n outputs, and each fault one line."""

import errno
import importlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from drawn_frames import write_picture
from nm_files import poisson, write_nm
from pictures_of import counts_of_a_body, exported

from rbs.utils.files import whole_file

BOTH = ("anterior", "posterior")
GOOD = 2
LATIN = os.fsdecode(b"M\xfcller.dcm")
UNFORESEEN = "rbs met an error that it did not foresee (ZeroDivisionError at "


def good(folder: Path) -> None:
    for number in range(GOOD):
        write_nm(folder / "deep" / f"good{number}.dcm", poisson(seed=number))


def locked(folder: Path) -> None:
    write_nm(folder / "locked.dcm", poisson()).chmod(0)


def closed_folder(folder: Path) -> None:
    write_nm(folder / "closed" / "a.dcm", poisson()).parent.chmod(0)


def truncated(folder: Path) -> None:
    os.truncate(write_nm(folder / "a.dcm", poisson()), 3000)


def damaged(folder: Path) -> None:
    path = write_nm(folder / "a.dcm", poisson())
    path.write_bytes(path.read_bytes().replace(b"NUM", b"\xff\xff\xff")[:400])


def latin(folder: Path) -> None:
    os.truncate(write_nm(folder / LATIN, poisson()), 3000)


def huge(folder: Path) -> None:
    """A file with holes, whose reading would fill the memory."""
    os.truncate(write_nm(folder / "a.dcm", poisson()), 2**40)


def archive(folder: Path) -> None:
    with zipfile.ZipFile(folder / "export.dcm", "w") as packed:
        packed.writestr("a.dcm", b"scan")


def changed(**attributes: object) -> Callable[[Path], object]:
    return lambda folder: write_nm(folder / "a.dcm", poisson(), **attributes)


UNREADABLE: dict[str, Callable[[Path], object]] = {
    "no permission": locked,
    "closed folder": closed_folder,
    "link to nothing": lambda folder: (folder / "a.dcm").symlink_to("nothing"),
    "link in a circle": lambda folder: (folder / "a.dcm").symlink_to("a.dcm"),
    "empty": lambda folder: (folder / "a.dcm").write_bytes(b""),
    "text": lambda folder: (folder / "a.dcm").write_text("Dear colleague,\n" * 50),
    "zeros": lambda folder: (folder / "a.dcm").write_bytes(bytes(5000)),
    "noise": lambda folder: (folder / "a.dcm").write_bytes(bytes(128) + b"DICM" + bytes(range(256)) * 20),
    "archive": archive,
    "huge": huge,
    "truncated": truncated,
    "damaged": damaged,
    "name in Latin-1": latin,
    "no image": changed(PixelData=None),
    "CT": changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT"),
    "colour": changed(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0),
    "long name": lambda folder: (folder / f"{'n' * 251}.dcm").write_text("Dear colleague"),
}
UNFIT: dict[str, Callable[[Path], object]] = {
    "lossy": changed(LossyImageCompression="01"),
    "no velocity": lambda folder: write_nm(folder / "a.dcm", poisson(), velocity=None),
    "standard scan": lambda folder: write_nm(folder / "a.dcm", poisson(), velocity=20),
    "doubled": lambda folder: write_nm(folder / "a.dcm", 2 * poisson()),
    "few counts": lambda folder: write_nm(folder / "a.dcm", poisson(level=2.0)),
    "no spacing": changed(PixelSpacing=[0, 0]),
    "view unknown": lambda folder: write_nm(folder / "a.dcm", poisson(), views=("",)),
}


def without_powers(*commands: list[object]) -> list[tuple[int, str, str]]:
    """Outcomes of commands run in one process, without the powers of root."""
    script = Path(__file__).parents[2] / "powerless.py"
    given = json.dumps([[str(argument) for argument in command] for command in commands])
    done = subprocess.run([sys.executable, script], input=given, capture_output=True, text=True, timeout=300)
    if done.returncode == 77:
        pytest.skip("the powers of root cannot be given up here")
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_every_good_file_is_restored_and_every_fault_told_in_one_line(tmp_path: Path) -> None:
    faults = UNREADABLE | UNFIT
    assert len(faults) >= 15
    commands: list[list[object]] = []
    for name, make in faults.items():
        good(tmp_path / name)
        make(tmp_path / name)
        commands.append(["restore", tmp_path / name, tmp_path / "out" / name])
    for name, (status, text, errors) in zip(faults, without_powers(*commands), strict=True):
        lines = errors.splitlines()
        assert (status, len(lines)) == (1, 2), (name, errors)
        assert lines[0].startswith(f"refused: {tmp_path / name}/"), (name, errors)
        assert lines[1] == f"rbs: 1 of {GOOD + 1} files were refused; the reasons stand above."
        assert text.count(" counts in, ") == GOOD, name
        written = [path for path in (tmp_path / "out" / name).rglob("*") if path.is_file()]
        assert sorted(path.name for path in written) == ["good0.dcm", "good1.dcm"], name
    for folder in tmp_path.glob("*/closed"):
        folder.chmod(0o700)


@pytest.mark.parametrize("command", ["inspect", "deidentify", "index"])
def test_the_other_commands_go_on_too(command: str, tmp_path: Path) -> None:
    commands: list[list[object]] = []
    for name, make in UNREADABLE.items():
        good(tmp_path / name)
        make(tmp_path / name)
        more: dict[str, list[object]] = {
            "inspect": ["--json"],
            "deidentify": [tmp_path / "out" / name, "--json"],
            "index": ["-o", tmp_path / "out" / f"{name}.csv", "--kind", "scans", "--workers", 1, "--json"],
        }
        commands.append([command, tmp_path / name, *more[command]])
    for name, (status, text, errors) in zip(UNREADABLE, without_powers(*commands), strict=True):
        assert status == 1, name
        document = json.loads(text)
        if command == "inspect":
            assert len(document) == GOOD, name
        elif command == "deidentify":
            assert (document["files"], document["refused"]) == (GOOD, 1), name
        else:  # the good ones lack their partners
            bad = [r for r in document["refusals"] if "/good" not in r["file"]]
            assert (document["files"], len(bad)) == (GOOD + 1, 1), name
        if command != "index":
            assert errors.count("refused: ") == 1, (name, errors)
    for folder in tmp_path.glob("*/closed"):
        folder.chmod(0o700)


def test_a_folder_that_cannot_be_searched_is_named_itself(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    good(folder)
    folder.chmod(0)
    commands: list[list[object]] = [
        ["restore", folder, tmp_path / "out"],
        ["inspect", folder],
        ["deidentify", folder, tmp_path / "clean"],
        ["index", folder, "-o", tmp_path / "a.csv", "--kind", "scans", "--workers", 1],
    ]
    for status, text, errors in without_powers(*commands):
        assert (status, text) == (1, "")
        assert f"{folder}: it cannot be searched (Permission denied); check the permissions." in errors
    folder.chmod(0o700)


def test_archives_alone_are_to_be_unpacked(rbs, tmp_path: Path) -> None:
    (tmp_path / "export.zip").write_bytes(b"PK")
    status, _, error = rbs("restore", tmp_path, tmp_path / "out")
    assert status == 1
    assert error.endswith("picture or video in this folder; unpack its archives.\n")


def test_a_folder_of_any_names(tmp_path: Path) -> None:
    names = [LATIN, "a\nb.dcm", "\x1b[31mred.dcm", "\u202egnp.dcm", f"{'n' * 251}.dcm", "Ä ö.dcm"]
    for number, name in enumerate(names):
        write_nm(tmp_path / "in" / name, poisson(seed=number))
    environment = os.environ | {"LC_ALL": "C.UTF-8", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for encoding in ("utf-8", "ascii"):
        out, log = tmp_path / encoding, tmp_path / f"{encoding}.log"
        done = subprocess.run(
            [sys.executable, "-m", "rbs.cli", "restore", tmp_path / "in", out, "--log-file", log],
            env=environment | {"PYTHONIOENCODING": f"{encoding}:strict"},
            capture_output=True,
            timeout=100,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert {os.fsencode(path.name) for path in out.iterdir()} == {os.fsencode(name) for name in names}
        assert b"M\\udcfcller.dcm" in done.stdout
        assert b"\x1b" not in done.stdout
        assert len(log.read_text("utf-8").splitlines()) == len(names)
    done = subprocess.run(
        [sys.executable, "-m", "rbs.cli", "restore", tmp_path / "in", tmp_path / "json", "--json"],
        env=environment,
        capture_output=True,
        timeout=100,
    )
    shown = {Path(file["source"]).name for file in json.loads(done.stdout.decode("ascii"))["files"]}
    assert shown == {"M\\udcfcller.dcm", *names[1:]}


@pytest.fixture
def stumble(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Exception], None]:
    """Have a function raise an error for files called bad; it is given one, or a scan of one."""

    def stumble(target: str, error: Exception) -> None:
        module, _, name = target.rpartition(".")
        whole = getattr(importlib.import_module(module), name)

        def stumbling(given: object, *args: object, **kwargs: object) -> object:
            path = given if isinstance(given, Path) else given.provenance.path  # type: ignore[attr-defined]
            if path.stem == "bad":
                raise error
            return whole(given, *args, **kwargs)

        monkeypatch.setattr(target, stumbling)

    return stumble


ERRORS = {
    "of rbs": (ZeroDivisionError("Secret^Name"), UNFORESEEN),
    "memory": (MemoryError("Secret^Name"), "there is not enough memory for it; close other programs."),
    "PyTorch's memory": (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
    "system": (OSError(errno.EIO, "Input/output error"), "(Input/output error); check its disk."),
    "removed": (FileNotFoundError(errno.ENOENT, "No such file"), "it was moved or removed meanwhile"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_whatever_one_scan_raises_is_told_of_it(
    rbs, tmp_path: Path, weights: Path, stumble, kind: str
) -> None:

    error, said = ERRORS[kind]
    folder, log = tmp_path / "in", tmp_path / "log.txt"
    good(folder)
    write_nm(folder / "bad.dcm", poisson(seed=9))
    stumble("rbs.clinic.restore_scans.check", error)
    stumble("rbs.clinic.deidentify.deidentify", error)
    stumble("rbs.clinic.checks.check", error)
    for command in (
        ("restore", folder, tmp_path / "out", "--checkpoint", weights, "--log-file", log),
        ("deidentify", folder, tmp_path / "clean"),
        ("inspect", folder),
    ):
        status, _, errors = rbs(*command)
        assert status == 1
        first, last = errors.splitlines()
        assert first.startswith(f"refused: {folder / 'bad.dcm'}: "), first
        assert said in first
        assert "Secret" not in first
        assert last == f"rbs: 1 of {GOOD + 1} files were refused; the reasons stand above."
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == GOOD
    assert len(list((tmp_path / "clean").rglob("*.dcm"))) == GOOD
    told = log.read_text()
    assert ("in stumbling" in told) == (kind == "of rbs")  # the traceback
    assert "Secret" not in told + (tmp_path / "clean" / "report.csv").read_text()


def test_both_views_are_named_where_their_restoring_fails(
    rbs, tmp_path: Path, weights: Path, stumble
) -> None:

    for name, view in (("bad", "anterior"), ("other", "posterior")):
        write_nm(tmp_path / "in" / f"{name}.dcm", poisson(), views=(view,), study="1.2.3")
    stumble("rbs.clinic.restore_scans.restore_scan", ZeroDivisionError())
    status, _, errors = rbs("restore", tmp_path / "in", tmp_path / "out", "--checkpoint", weights)
    assert status == 1
    for name in ("bad", "other"):
        assert f"refused: {tmp_path / 'in' / name}.dcm: {UNFORESEEN}" in errors


def test_frames_and_pictures_go_on(rbs, tmp_path: Path, stumble, monkeypatch) -> None:

    for number in range(3):
        write_picture(tmp_path / "frames" / f"{number}.png", None)
    write_picture(tmp_path / "frames" / "bad.png")
    stumble("rbs.data.indexing.endoscopy.size_of", ZeroDivisionError())
    table = tmp_path / "frames.csv"
    status, text, _ = rbs("index", tmp_path / "frames", "-o", table, "--kind", "endoscopy", "--json")
    assert status == 0
    refused = {Path(r["file"]).name: r["reason"] for r in json.loads(text)["refusals"]}
    assert refused["bad.png"].startswith(UNFORESEEN)

    from PIL import Image

    folder = tmp_path / "pictures"
    for number, name in enumerate(("1_A/a.png", f"2_A/{LATIN}.png", "3_A/bad.png")):
        (folder / name).parent.mkdir(parents=True)
        Image.fromarray(exported(counts_of_a_body(number), 2.54)).save(folder / name)
    stumble("rbs.scans.pictures.counts.read_picture", ZeroDivisionError())
    pattern = r"(?P<patient>[0-9])_(?P<view>A)"
    arguments = ["recover-counts", folder, tmp_path / "counts", "--pattern", pattern, "--spacing-mm", 2.4]
    status, text, _ = rbs(*arguments, "--workers", 1, "--json")
    rows = {row["file"]: row for row in json.loads(text)["pictures"]}
    assert status == 1
    assert rows["3_A/bad.png"]["reason"].startswith(UNFORESEEN)
    assert [row["verdict"] for row in rows.values()].count("recovered") == 2
    # What could not be read is tried again, and what was recovered is known again by its name.
    monkeypatch.undo()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "counts").rglob("*.dcm")}
    assert rbs(*arguments, "--workers", 1)[0] == 0
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "counts").rglob("*.dcm")}
    assert (len(before), len(after)) == (2, 3)
    assert before.items() <= after.items()


def test_a_full_disk_ends_the_work_and_leaves_nothing_half_written(
    rbs, tmp_path: Path, weights: Path, small_disk: Path
) -> None:
    folder = tmp_path / "in"
    for number in range(4):
        write_nm(folder / f"{number}.dcm", poisson(seed=number))
    os.truncate(folder / "0.dcm", 3000)
    status, _, errors = rbs("restore", folder, small_disk / "out", "--checkpoint", weights)
    first, last = errors.splitlines()
    assert status == 1
    assert first.startswith(f"refused: {folder / '0.dcm'}: it holds ")
    assert last == f"rbs: {small_disk}/out/1.dcm: the disk is full; nothing was written; free some space."
    assert not [path for path in small_disk.rglob("*") if path.is_file()]
    status, _, errors = rbs("deidentify", folder, small_disk / "clean", "--key", key(tmp_path))
    assert status == 1
    assert errors.count("the disk is full; nothing was written") == 1
    assert not list(small_disk.rglob("*.dcm"))


def key(folder: Path) -> Path:
    path = folder / "key"
    path.write_text("0123456789abcdef" * 4 + "\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_on_the_disk_is_told_from_no_permission(tmp_path: Path, number: int) -> None:
    from rbs.errors import DiskFullError

    with pytest.raises(DiskFullError, match="the disk is full"), whole_file(tmp_path / "a"):
        raise OSError(number, os.strerror(number))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_a_full_standard_output_is_blamed_on_itself(tmp_path: Path) -> None:
    scan = write_nm(tmp_path / "a.dcm", poisson())
    command = [sys.executable, "-m", "rbs.cli", "inspect", scan]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == (
        "rbs: standard output cannot be written (No space left on device); free some space, or print"
        " elsewhere.\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")  # as programs end whose reader has enough


def test_pictures_and_archives_beside_scans_are_passed_over_in_one_line(
    rbs, tmp_path: Path, weights: Path
) -> None:
    good(tmp_path / "in")
    for name in ("logo.png", "deep/shot.jpg"):
        write_picture(tmp_path / "in" / name)
    (tmp_path / "in" / "more.zip").write_bytes(b"PK")
    arguments = ("restore", tmp_path / "in", tmp_path / "out", "--checkpoint", weights)
    status, text, errors = rbs(*arguments)
    assert status == 0
    assert text.count(" counts in, ") == GOOD
    assert errors == "passed over: 2 pictures, 1 archive beside the scans, such as shot.jpg\n"
    document = json.loads(rbs(*arguments[:2], tmp_path / "again", *arguments[3:], "--json")[1])
    assert sorted(Path(name).name for name in document["passed_over"]) == ["logo.png", "more.zip", "shot.jpg"]


def test_linked_folders_are_followed_and_pipes_are_not(rbs, tmp_path: Path, weights: Path) -> None:
    good(tmp_path / "elsewhere")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "circle").symlink_to(folder)
    os.mkfifo(folder / "pipe.dcm")
    status, _, errors = rbs("restore", folder, tmp_path / "out", "--checkpoint", weights)
    assert (status, errors) == (0, "")
    assert len(list((tmp_path / "out" / "link").rglob("*.dcm"))) == GOOD
    for command in (["restore", tmp_path / "a.dcm"], ["inspect"], ["thin", tmp_path / "b", "--velocity", 80]):
        status, _, errors = rbs(command[0], folder / "pipe.dcm", *command[1:])
        assert status == 1
        assert f"{folder / 'pipe.dcm'}: it is a pipe, not a file; name a file." in errors


def two_views(folder: Path) -> np.ndarray:
    counts = poisson(2)
    for view, frame in zip(BOTH, counts, strict=True):
        write_nm(folder / f"{view}.dcm", frame[None], views=(view,), study="1.2.3")
    return counts


@pytest.mark.parametrize("option", ["--skip-existing", None])
def test_a_view_is_restored_with_its_partner_also_where_that_was_restored_before(
    rbs, tmp_path: Path, option: str | None
) -> None:
    two_views(tmp_path / "in")
    assert rbs("restore", tmp_path / "in", tmp_path / "whole")[0] == 0
    assert rbs("restore", tmp_path / "in", tmp_path / "broken")[0] == 0
    (tmp_path / "broken" / "posterior.dcm").unlink()
    kept = (tmp_path / "broken" / "anterior.dcm").read_bytes()
    options = [option] if option else []
    status, text, errors = rbs("restore", tmp_path / "in", tmp_path / "broken", *options)
    assert ", with anterior.dcm)" in text
    assert text.count(" counts in, ") == 1
    if option:
        assert (status, errors) == (0, "skipped: 1 of 2 files, whose output exists\n")
    else:
        assert status == 1
        assert f"refused: {tmp_path}/broken/anterior.dcm: the output exists already" in errors
    assert (tmp_path / "broken" / "anterior.dcm").read_bytes() == kept
    alike = [pydicom.dcmread(tmp_path / run / "posterior.dcm").pixel_array for run in ("whole", "broken")]
    np.testing.assert_array_equal(*alike)


def test_copies_of_one_object_are_pointed_out(rbs, tmp_path: Path, weights: Path) -> None:
    scan = write_nm(tmp_path / "in" / "a.dcm", poisson())
    (tmp_path / "in" / "copy.dcm").write_bytes(scan.read_bytes())
    status, text, _ = rbs("restore", tmp_path / "in", tmp_path / "out", "--checkpoint", weights)
    assert status == 0
    for other in ("a.dcm", "copy.dcm"):
        assert f"warning: its SOP Instance UID is also that of {other}: keep one of them" in text

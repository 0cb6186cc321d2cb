"""The command says what it found, what it refused, and what it moved."""

import json
from pathlib import Path

from frame_files import scene, write_box, write_picture

from rbs.cli.main import main
from rbs.data.frames_manifest import FramesManifest


def test_summary_and_manifest(tmp_path: Path, capsys) -> None:
    for split, seeds in (("train", range(4)), ("val", range(4, 6))):
        for seed in seeds:
            write_picture(tmp_path / "in" / split / "images" / f"{seed}.png", scene(seed))
            write_box(tmp_path / "in" / split / "masks" / f"{seed}.png")
    write_picture(tmp_path / "in" / "val" / "images" / "copy.jpg", scene(0))
    (tmp_path / "in" / "val" / "images" / "bad.jpg").touch()
    manifest = tmp_path / "manifest.csv"
    assert main(["index", str(tmp_path / "in"), "-o", str(manifest)]) == 0
    said = capsys.readouterr().out
    for line in (
        "images: 7 frames, 6 with a mask",
        "refused: 1 files, each with its reason and remedy in",
        "near-duplicates: 2 frames in 1 sets, each kept in one split; listed in",
        "train  5 frames of 4 videos, patients or single frames",
        "val    2 frames of 2 videos",
        "show the same (likeness",
        "frames without a mask: 1 of 7",
    ):
        assert line in said, said
    assert len(FramesManifest.read(manifest).rows("train")) == 5


def test_json_counts_what_was_done(tmp_path: Path, capsys) -> None:
    for seed in range(3):
        write_picture(tmp_path / "in" / f"{seed}.png", scene(seed))
    manifest = tmp_path / "manifest.csv"
    assert main(["index", str(tmp_path / "in"), "-o", str(manifest), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["manifest"], found["refusals"]) == ("endoscopy", str(manifest), [])
    assert sum(split["frames"] for split in found["splits"].values()) == 3
    assert found["near_duplicates"]["frames"] == 0


def test_a_folder_of_nothing_usable_is_one_sentence(tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    assert main(["index", str(tmp_path / "in"), "-o", str(tmp_path / "m.csv")]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("rbs: ")
    assert "no picture in it can be used; read the reasons and remedies in" in said
    assert not (tmp_path / "m.csv").exists()

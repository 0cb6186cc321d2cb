"""`rbs restore` on pictures, folders and videos: an untrained restorer of colours is the identity."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from drawn_frames import decoded, in_8_bits, scene, write_picture, write_video
from PIL import Image

from rbs.clinic import restore_frames as module
from rbs.restorers.checkpoint import save_restorer
from rbs.restorers.dncnn import DnCNN


@pytest.fixture(autouse=True)
def everything_is_scene(monkeypatch):
    """These drawn colours have neither borders nor text; where those are is tested elsewhere."""
    monkeypatch.setattr(module, "field_of_view", lambda frame: np.ones(frame.shape[1:], bool))


@pytest.fixture
def colours(tmp_path) -> Path:
    path = tmp_path / "weights" / "restorer.safetensors"
    save_restorer(path, DnCNN(depth=3, width=4, domain="colours"), {"preset": "denoise"})
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_picture_comes_back_pixel_by_pixel_and_says_who_made_it(rbs, tmp_path, colours):
    source = write_picture(tmp_path / "in.png")
    status, text, errors = rbs("restore", source, tmp_path / "out.png", "--checkpoint", colours)
    assert (status, errors) == (0, "")
    assert text.startswith("in.png: 96 x 64 pixels, ")
    np.testing.assert_array_equal(pixels(tmp_path / "out.png"), in_8_bits(scene()))
    with Image.open(tmp_path / "out.png") as picture:
        comment = picture.info["Comment"]
    assert comment.startswith("Restored by rbs ")
    assert "DnCNN restorer.safetensors (SHA-256 " in comment
    assert comment.endswith("Research use only. Not for diagnostic use.")


def test_a_video_comes_back_within_the_codecs_loss(rbs, tmp_path, colours):
    source = write_video(tmp_path / "in.avi", codec="mpeg4")
    status, text, _ = rbs("restore", source, f"{tmp_path}/out/", "--checkpoint", colours)
    assert status == 0
    assert "in.avi: 5 frames of 96 x 64 pixels, 0.20 s at 25 frames a second, " in text
    restored = decoded(tmp_path / "out" / "in.mkv").astype(int)
    assert np.abs(restored - decoded(source)).mean() < 1.5


def test_a_folder_of_pictures_goes_on_after_a_refusal(rbs, tmp_path, colours):
    folder, out = tmp_path / "in", tmp_path / "out"
    write_picture(folder / "a.png")
    write_picture(folder / "deep" / "b.bmp")
    whole = write_picture(folder / "c.jpg").read_bytes()
    (folder / "c.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("no picture")
    status, text, errors = rbs("restore", folder, out, "--checkpoint", colours)
    assert status == 1
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()) == ["a.png", "deep/b.png"]
    assert text.count(" pixels, ") == 2
    assert errors.count("refused: ") == 1
    assert "c.jpg: " in errors
    assert "1 of 3 files were refused" in errors


def test_a_folder_of_videos(rbs, tmp_path, colours):
    for name in ("a.mp4", "b.avi"):
        write_video(tmp_path / "in" / name)
    assert rbs("restore", tmp_path / "in", tmp_path / "out", "--checkpoint", colours)[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "b.mkv"]


def test_what_was_restored_is_left_alone(rbs, tmp_path, colours):
    write_picture(tmp_path / "in" / "a.png")
    write_video(tmp_path / "v" / "a.mp4")
    for kind, name in (("in", "a.png"), ("v", "a.mp4")):
        folder = tmp_path / kind
        assert rbs("restore", folder, folder / "out", "--checkpoint", colours)[0] == 0
        status, text, errors = rbs("restore", folder, tmp_path / "again" / kind, "--checkpoint", colours)
        assert status == 0
        assert f"skipped: {folder / 'out' / name}" in errors
        assert text.count("->") == 1
        status, _, errors = rbs("restore", folder / "out", tmp_path / "no", "--checkpoint", colours)
        assert status == 1
        assert "it holds only restored" in errors
        status, _, errors = rbs(
            "restore", folder / "out" / name, tmp_path / f"no{Path(name).suffix}", "--checkpoint", colours
        )
        assert status == 1
        assert "rbs restored it before; name the original" in errors


def test_a_video_that_ends_early_is_restored_as_far_as_it_goes_and_is_a_failure(rbs, tmp_path, colours):
    # MPEG-4 codes frames in the order they are shown in: cut anywhere, no frame before the last is
    # missing.
    source = write_video(tmp_path / "in.mkv", frames=200, codec="mpeg4")
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    status, text, errors = rbs("restore", source, tmp_path / "out.mkv", "--checkpoint", colours)
    assert status == 1
    frames = len(decoded(tmp_path / "out.mkv"))
    assert 0 < frames < 200
    assert f"in.mkv: {frames} frames of 96 x 64 pixels" in text
    assert f"it ends early, after {frames} frames: {frames / 25:.2f} s of 8.00 s; all of it that" in errors


def test_weights_for_half_the_resolution_double_the_size(rbs, tmp_path):
    weights = tmp_path / "x2.safetensors"
    save_restorer(weights, DnCNN(depth=3, width=4, domain="colours"), {"preset": "x2"})
    source = write_picture(tmp_path / "in.png")
    assert rbs("restore", source, tmp_path / "out.png", "--checkpoint", weights)[0] == 0
    found = pixels(tmp_path / "out.png")
    assert found.shape == (128, 192, 3)
    # Pillow's bicubic, which has the kernel of another parameter.
    expected = np.asarray(Image.fromarray(in_8_bits(scene())).resize((192, 128), Image.Resampling.BICUBIC))
    assert np.abs(found.astype(int) - expected).max() <= 3
    film = write_video(tmp_path / "in.mp4")
    assert rbs("restore", film, tmp_path / "out.mp4", "--checkpoint", weights)[0] == 0
    assert decoded(tmp_path / "out.mp4").shape == (5, 128, 192, 3)


def test_what_is_no_scene_stays_as_it_is(rbs, tmp_path, colours, monkeypatch):
    """A restorer that blackens all leaves borders and text alone; once scene is always scene in a video."""
    left = np.zeros((64, 96), bool)
    left[:, :48] = True
    areas = iter([left, ~left])
    monkeypatch.setattr(module, "LOOKED_AT", 2)
    monkeypatch.setattr(module, "field_of_view", lambda frame: next(areas, left))
    monkeypatch.setattr(
        "rbs.restorers.checkpoint.LoadedRestorer.restore_frame", lambda self, frame: 0 * frame
    )
    film = write_video(tmp_path / "in.mp4", frames=5)
    assert rbs("restore", film, tmp_path / "out.mp4", "--checkpoint", colours)[0] == 0
    found = decoded(tmp_path / "out.mp4")
    assert found[:2, :, :44].max() < 8
    assert found[:2, :, 52:].min() > 30
    assert found[2:].max() < 8
    source = write_picture(tmp_path / "in.png")
    assert rbs("restore", source, tmp_path / "out.png", "--checkpoint", colours)[0] == 0
    np.testing.assert_array_equal(pixels(tmp_path / "out.png")[:, 48:], in_8_bits(scene())[:, 48:])
    assert pixels(tmp_path / "out.png")[:, :48].max() == 0


def test_colour_weights_must_be_named(rbs, tmp_path):
    for source, kind in (
        (write_picture(tmp_path / "a.png"), "pictures"),
        (write_video(tmp_path / "a.mp4"), "videos"),
    ):
        status, _, errors = rbs("restore", source, tmp_path / f"out{source.suffix}")
        assert status == 1
        assert (
            f"no weights for {kind} come with rbs; train some with `make train-stage1 DATA=endoscopy`"
            in errors
        )


def test_pictures_have_no_counts_to_adapt_to(rbs, tmp_path, colours):
    source = write_picture(tmp_path / "a.png")
    status, _, errors = rbs("restore", source, tmp_path / "out.png", "--checkpoint", colours, "--adapt")
    assert status == 1
    assert "--adapt works on counts, and pictures have none; leave it out" in errors


def test_weights_of_scans_are_refused_for_pictures(rbs, tmp_path, weights):
    source = write_picture(tmp_path / "a.png")
    status, _, errors = rbs("restore", source, tmp_path / "out.png", "--checkpoint", weights)
    assert status == 1
    assert "restores scans, not frames" in errors
    assert not (tmp_path / "out.png").exists()


def test_weights_that_give_no_numbers_are_named(rbs, tmp_path, colours, monkeypatch):
    monkeypatch.setattr(
        "rbs.restorers.checkpoint.LoadedRestorer.restore_frame", lambda self, frame: np.nan * frame
    )
    source = write_picture(tmp_path / "a.png")
    status, _, errors = rbs("restore", source, tmp_path / "out.png", "--checkpoint", colours)
    assert status == 1
    assert "values that are not finite; use other weights" in errors


def test_a_mixed_folder_is_refused_before_anything_is_done(rbs, tmp_path, colours):
    write_picture(tmp_path / "in" / "a.png")
    write_video(tmp_path / "in" / "b.mp4")
    status, _, errors = rbs("restore", tmp_path / "in", tmp_path / "out", "--checkpoint", colours)
    assert status == 1
    assert "the folder mixes kinds (pictures: 1, such as a.png; videos: 1, such as b.mp4)" in errors
    assert not (tmp_path / "out").exists()


def test_two_pictures_of_one_name_are_refused(rbs, tmp_path, colours):
    write_picture(tmp_path / "in" / "a.png")
    shutil.copy(write_picture(tmp_path / "a.bmp"), tmp_path / "in")
    status, _, errors = rbs("restore", tmp_path / "in", tmp_path / "out", "--checkpoint", colours)
    assert status == 1
    assert "a.png: its restoration would be called a.png, as that of a.bmp; rename one of the two" in errors


def test_nothing_is_overwritten(rbs, tmp_path, colours):
    source = write_picture(tmp_path / "a.png")
    before = source.read_bytes()
    status, _, errors = rbs("restore", source, source, "--checkpoint", colours)
    assert status == 1
    assert "the output exists already" in errors
    assert source.read_bytes() == before

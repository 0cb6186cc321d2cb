"""The field of view: of drawn borders, of generated frames, and of real ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from rbs.endoscopy.field_of_view import Mask, field_of_view
from rbs.synthetic.mucosa.video import Video

ROWS, COLUMNS = 240, 320


def mucosa() -> np.ndarray:
    """Something reddish that varies everywhere, (3, ROWS, COLUMNS)."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    texture = 0.05 * np.sin(x / 3) * np.sin(y / 4) + 0.02 * np.random.default_rng(0).standard_normal(x.shape)
    return (np.array([0.6, 0.4, 0.3])[:, None, None] + texture).astype(np.float32)


def octagon() -> Mask:
    y, x = np.mgrid[:ROWS, :COLUMNS]
    off_y, off_x = abs(y - ROWS / 2), abs(x - 190)
    return (off_y < 112) & (off_x < 118) & (off_y + off_x < 180)


def under(field: Mask, border: float = 0.0) -> np.ndarray:
    return np.where(field, mucosa(), np.float32(border))


def assert_like(found: Mask, truth: Mask, *, at_least: float = 0.94) -> None:
    """Nearly all of the truth, and next to nothing beside it."""
    assert (found & ~truth).sum() <= 0.002 * truth.sum()
    assert (found & truth).sum() >= at_least * truth.sum()


@pytest.mark.parametrize("border", [0.0, 4 / 255, 16 / 255])
def test_the_field_is_found_on_a_black_or_grey_border(border: float) -> None:
    assert_like(field_of_view(under(octagon(), border)), octagon())


def test_a_circle_that_the_picture_cuts_is_found() -> None:
    y, x = np.mgrid[:ROWS, :COLUMNS]
    circle = np.hypot(y - 120, x - 160) < 150
    assert_like(field_of_view(under(circle)), circle)


def test_dark_lumen_at_the_rim_belongs_to_the_field() -> None:
    frame = under(octagon(), 16 / 255)
    y, x = np.mgrid[:ROWS, :COLUMNS]
    lumen = octagon() & (np.hypot(y - 120, x - 300) < 50)
    frame[:, lumen] *= np.float32(0.15)
    found = field_of_view(frame)
    assert_like(found, octagon(), at_least=0.93)
    assert (found & lumen).sum() > 0.85 * lumen.sum()


def test_all_of_a_frame_without_border_and_nothing_of_a_black_one() -> None:
    assert field_of_view(mucosa()).all()
    assert not field_of_view(np.zeros((3, ROWS, COLUMNS), np.float32)).any()
    assert not field_of_view(np.full((3, ROWS, COLUMNS), np.float32(16 / 255))).any()


def test_insets_are_taken_out_even_where_they_reach_into_the_field() -> None:
    frame, inset = under(octagon(), 16 / 255), np.zeros((ROWS, COLUMNS), bool)
    frame[:, 160:, :60] = np.array([0.18, 0.7, 0.55], np.float32)[:, None, None]
    frame[:, 160:, 60:110] = np.array([0.3, 0.43, 0.72], np.float32)[:, None, None]
    inset[160:, :110] = True
    small = np.hypot(*(np.mgrid[:ROWS, :COLUMNS] - np.array([25, 25])[:, None, None])) < 18
    frame[:, small] = mucosa()[:, small]  # another picture in the corner
    assert_like(field_of_view(frame), octagon() & ~inset, at_least=0.93)


def test_blue_dye_is_no_inset() -> None:
    frame = under(octagon())
    y, x = np.mgrid[:ROWS, :COLUMNS]
    dyed = octagon() & (np.hypot(y - 180, x - 160) < 45)
    frame[:, dyed] = frame[[2, 1, 0]][:, dyed] + np.float32(0.1)
    assert_like(field_of_view(frame), octagon())


def test_text_and_black_patches_across_the_rim_are_taken_out() -> None:
    picture = Image.fromarray((under(octagon(), 16 / 255).transpose(1, 2, 0) * 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((40, 20, 130, 45), fill=(0, 0, 0))
    pen.text((60, 100), "12/03/2020 10:42", fill=(230, 230, 230))
    pen.text((2, 60), "ID: 1234", fill=(230, 230, 230))
    found = field_of_view(np.asarray(picture, np.float32).transpose(2, 0, 1) / 255)
    clean = octagon()
    clean[20:46, 40:131] = False
    written = np.asarray(picture).min(2) > 150
    assert (written & octagon()).sum() > 100
    assert not (found & written).any()
    assert_like(found, clean, at_least=0.9)


def test_highlights_in_the_middle_are_no_text() -> None:
    frame = under(octagon())
    frame[:, 118:121, 170:210:4] = 1
    assert_like(field_of_view(frame), octagon())


def test_generated_frames_give_back_their_truth() -> None:
    overlaps = []
    for number in range(6):
        picture = Video(2, number, 128).draw(0)
        found = field_of_view(picture.frame)
        overlaps.append((found & picture.field_of_view).sum() / (found | picture.field_of_view).sum())
    assert min(overlaps) > 0.88
    assert np.mean(overlaps) > 0.94


def test_polyps_that_readers_outlined_lie_in_the_valid_area_of_real_frames() -> None:
    folder = Path(os.environ.get("RBS_TEST_DATA") or pytest.skip("RBS_TEST_DATA is not set"), "endoscopy/val")
    kept = []
    for path in sorted((folder / "images").iterdir())[::4]:
        with Image.open(path) as picture, Image.open(folder / "masks" / f"{path.stem}.png") as mask:
            frame = np.asarray(picture.convert("RGB").reduce(2), np.float32).transpose(2, 0, 1) / 255
            polyp = np.asarray(mask.convert("L").resize(frame.shape[:0:-1], Image.Resampling.NEAREST)) > 127
        valid = field_of_view(frame)
        assert 0.4 < valid.mean() < 1, path.name  # all of these have a border
        kept.append((polyp & valid).sum() / polyp.sum())
    assert min(kept) > 0.9
    assert np.mean(kept) > 0.99

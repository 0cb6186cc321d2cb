"""Pictures of every kind come in as the same frame, and damaged ones with a sentence."""

import cv2
import numpy as np
import pytest
from frame_files import scene, write_picture
from PIL import Image

from rbs.endoscopy.files import glance, read_frame, read_mask, reduced, size_of, write_frame
from rbs.errors import FrameError, OutputError

COLOURS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def as_frame(colours):
    return colours.transpose(2, 0, 1).astype(np.float32) / 255


def test_what_is_written_is_read(tmp_path):
    write_frame(tmp_path / "a.png", as_frame(COLOURS), comment="by whom")
    np.testing.assert_array_equal(read_frame(tmp_path / "a.png"), as_frame(COLOURS))
    assert Image.open(tmp_path / "a.png").text == {"Comment": "by whom"}
    with pytest.raises(OutputError, match="exists already"):
        write_frame(tmp_path / "a.png", as_frame(COLOURS))


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_files_without_loss_are_read_to_the_bit(tmp_path, suffix):
    Image.fromarray(COLOURS).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_frame(tmp_path / f"a.{suffix}"), as_frame(COLOURS))


def test_transparency_is_shown_on_black(tmp_path):
    opaque = np.dstack([COLOURS, np.full(COLOURS.shape[:2], 255, np.uint8)])
    opaque[:5, :, 3] = 0
    Image.fromarray(opaque).save(tmp_path / "a.png")
    frame = read_frame(tmp_path / "a.png")
    assert (frame[:, :5] == 0).all()
    np.testing.assert_array_equal(frame[:, 5:], as_frame(COLOURS)[:, 5:])


def test_sixteen_bits_of_grey_keep_their_depth(tmp_path):
    grey = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    Image.fromarray(grey).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_frame(tmp_path / "a.png"), np.stack([grey / 65535] * 3), atol=1e-6)


def test_palettes_and_grey_become_colours(tmp_path):
    few = Image.fromarray(COLOURS).quantize(8)
    few.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_frame(tmp_path / "p.png"), as_frame(np.asarray(few.convert("RGB"))))
    Image.fromarray(COLOURS[..., 0]).save(tmp_path / "g.png")
    np.testing.assert_array_equal(read_frame(tmp_path / "g.png"), as_frame(COLOURS[..., [0, 0, 0]]))


def test_a_turned_camera_is_turned_back(tmp_path):
    picture = Image.fromarray(COLOURS)
    exif = picture.getexif()
    exif[0x0112] = 6  # the top of the scene is at the right of the file
    picture.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(
        read_frame(tmp_path / "a.png"), as_frame(np.ascontiguousarray(np.rot90(COLOURS, -1)))
    )


def test_masks_of_every_kind(tmp_path):
    inside = np.zeros((20, 30), bool)
    inside[4:9, 5:20] = True
    Image.fromarray((inside * 255).astype(np.uint8)).save(tmp_path / "255.png")
    Image.fromarray(inside.astype(np.uint8)).save(tmp_path / "1.png")
    Image.fromarray(inside.astype(np.uint16) * 500).save(tmp_path / "16.png")
    classes = Image.fromarray(inside.astype(np.uint8), "P")
    classes.putpalette([0, 0, 0, 0, 0, 0])  # both classes are drawn black
    classes.save(tmp_path / "p.png")
    Image.fromarray((inside * 255).astype(np.uint8)).save(tmp_path / "j.jpg", quality=60)
    for name in ("255.png", "1.png", "16.png", "p.png", "j.jpg"):
        np.testing.assert_array_equal(read_mask(tmp_path / name), inside, err_msg=name)


def test_reducing_averages_areas():
    frame = np.random.default_rng(1).random((3, 40, 64)).astype(np.float32)
    np.testing.assert_allclose(
        reduced(frame, 32), frame.reshape(3, 20, 2, 32, 2).mean(axis=(2, 4)), atol=1e-6
    )
    assert reduced(frame, 64) is frame
    assert reduced(frame, None) is frame


def test_what_cannot_be_read_is_told(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(COLOURS).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:600])
    pages = [Image.fromarray(COLOURS), Image.fromarray(COLOURS[::-1].copy())]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    Image.fromarray(COLOURS[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    for name, fault in (
        ("none.png", "there is no such picture; check the path"),
        ("text.png", "it is no picture; copy it again"),
        ("cut.png", r"it cannot be decoded \(.+\); copy it again"),
        ("pages.tif", "it holds 2 pictures"),
        ("float.tif", "floating-point values"),
    ):
        with pytest.raises(FrameError, match=fault):
            read_frame(tmp_path / name)


def test_sixteen_bits_of_colour_are_read_as_eight(tmp_path):
    deep = np.random.default_rng(2).integers(0, 65536, (20, 30, 3), np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), deep[..., ::-1])  # Pillow does not write them
    expected = deep.transpose(2, 0, 1) / 65535
    np.testing.assert_allclose(read_frame(tmp_path / "a.png"), expected, atol=1.01 / 255)


def test_twelve_bits_in_sixteen_would_come_out_black(tmp_path):
    deep = np.random.default_rng(2).integers(0, 4096, (20, 30, 3), np.uint16)
    cv2.imwrite(str(tmp_path / "c.png"), deep)
    Image.fromarray(deep[..., 0]).save(tmp_path / "g.png")
    for name in ("c.png", "g.png"):
        with pytest.raises(FrameError, match="nothing above 4095, as of a camera of 10 or 12 bits; scale it"):
            read_frame(tmp_path / name)


def test_masks_that_were_compressed_or_interpolated_are_cut_at_half(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 60).astype(np.uint8), (20, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "ramp.png"), ramp > 127)
    clear = np.zeros((20, 60, 4), np.uint8)
    clear[..., :3] = 255
    clear[:5, :, 3] = 255
    Image.fromarray(clear).save(tmp_path / "clear.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "clear.png"), clear[..., 3] > 0)


def test_a_glance_is_the_frame_reduced(tmp_path):
    big = np.asarray(Image.fromarray(scene(1)).resize((1280, 960), Image.Resampling.BICUBIC))
    write_picture(tmp_path / "a.jpg", big, quality=95)
    quick, whole = glance(tmp_path / "a.jpg", 160), reduced(read_frame(tmp_path / "a.jpg"), 160)
    assert quick.shape == whole.shape == (3, 120, 160)
    assert np.abs(quick - whole).mean() < 1 / 255


def test_the_size_is_that_of_the_upright_picture(tmp_path):
    picture = Image.fromarray(COLOURS)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert size_of(tmp_path / "a.jpg") == read_frame(tmp_path / "a.jpg").shape[1:] == (30, 20)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of damaged tags, too
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_no_damage_gets_past_with_a_traceback(tmp_path, suffix):
    whole = write_picture(tmp_path / f"a.{suffix}", scene(1, 40, 48)).read_bytes()
    rng, damaged = np.random.default_rng(0), tmp_path / f"b.{suffix}"
    told = 0
    for _ in range(150):
        data = bytearray(whole[: int(rng.integers(1, len(whole)))] if rng.random() < 0.4 else whole)
        for place in rng.integers(0, min(len(data), 300), 4):
            data[place] = int(rng.integers(256))
        damaged.write_bytes(bytes(data))
        try:
            assert read_frame(damaged).shape[0] == 3
        except FrameError:
            told += 1
    assert told > 20

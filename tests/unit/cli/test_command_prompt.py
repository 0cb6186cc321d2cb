"""`rbs prompt` with the shipped small SAM; what it finds is tested with rbs.segmentation.prompts."""

import numpy as np
import pytest
from PIL import Image

from rbs.cli.main import main
from rbs.endoscopy.files import read_mask


@pytest.fixture
def frame(tmp_path):
    picture = np.full((384, 512, 3), 25, np.uint8)
    picture[100:220, 300:360] = 128
    Image.fromarray(picture).save(tmp_path / "frame.png")
    return tmp_path / "frame.png"


def prompt(frame, out, *arguments):
    return main(["prompt", str(frame), str(out), "--size", "vit_t", *arguments])


def test_a_box_gives_a_mask_that_a_manifest_can_name(frame, tmp_path, capsys):
    out = tmp_path / "masks" / "mask.png"
    assert prompt(frame, out, "--box", "300,100,360,220") == 0
    mask = read_mask(out)
    assert mask.shape == (384, 512)
    assert set(np.unique(np.asarray(Image.open(out)))) == {0, 255}
    assert mask[110:210, 310:350].mean() > 0.6
    assert f"{mask.mean():.1%} of the frame -> {out}" in capsys.readouterr().out


def test_points_of_it_and_outside(frame, tmp_path):
    assert prompt(frame, tmp_path / "mask.png", "--point", "330,160", "--outside", "200,160") == 0
    assert read_mask(tmp_path / "mask.png")[160, 330]


def test_without_prompts_all_masks_are_written(frame, tmp_path, monkeypatch, capsys):
    masks = np.zeros((2, 384, 512), bool)
    masks[0, :50], masks[1, 60:70] = True, True
    monkeypatch.setattr("rbs.segmentation.prompts.all_masks", lambda sam, frame: masks)
    assert prompt(frame, tmp_path / "all") == 0
    assert "2 masks, the largest first" in capsys.readouterr().out
    for number, mask in enumerate(masks, start=1):
        np.testing.assert_array_equal(read_mask(tmp_path / "all" / f"{number:03d}.png"), mask)


@pytest.mark.parametrize(
    ("out", "arguments", "said"),
    [
        ("mask.png", ["--box", "300,100,600,220"], "(600, 220) lies outside the frame of 512 x 384 pixels"),
        ("mask.png", ["--outside", "3,3"], "SAM needs a point or a box"),
        ("mask.jpg", ["--point", "3,3"], "a mask is written as PNG; name a .png file"),
        ("frame.png", ["--point", "3,3"], "the output exists already"),
    ],
)
def test_refusals(frame, tmp_path, capsys, out, arguments, said):
    before = sorted(tmp_path.iterdir())
    assert prompt(frame, tmp_path / out, *arguments) == 1
    assert said in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("point", ["3", "3,4,5", "here,there"])
def test_a_point_has_two_numbers(frame, tmp_path, capsys, point):
    with pytest.raises(SystemExit):
        prompt(frame, tmp_path / "mask.png", "--point", point)
    assert "--point" in capsys.readouterr().err

"""Copies are recognised however they are stored; scenes are told apart whatever surrounds them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from frame_files import scene
from PIL import Image

from rbs.endoscopy.duplicates import DUPLICATE, joined, near_duplicates
from rbs.endoscopy.perceptual_hash import PerceptualHash, alike, likeness, perceptual_hash


def look(pixels: np.ndarray, valid: np.ndarray | None = None) -> PerceptualHash:
    frame = pixels.transpose(2, 0, 1).astype(np.float32) / 255
    return perceptual_hash(frame, np.ones(pixels.shape[:2], bool) if valid is None else valid)


def coded(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize(
    "change",
    [
        lambda p: coded(p, 20),
        lambda p: np.asarray(Image.fromarray(p).resize((64, 48), Image.Resampling.BOX)),
        lambda p: np.asarray(Image.fromarray(p).resize((384, 288), Image.Resampling.BICUBIC)),
        lambda p: (p // 4).astype(np.uint8),
        lambda p: np.rint((p / 255.0) ** 2 * 255).astype(np.uint8),
        lambda p: np.clip(1.5 * p, 0, 255).astype(np.uint8),
    ],
    ids=["JPEG 20", "half", "larger", "dark", "squared", "bright"],
)
def test_a_copy_is_known_again(change):
    for seed in range(5):
        assert alike(look(scene(seed)), look(change(scene(seed)))) > DUPLICATE + 0.1


def test_other_scenes_agree_by_chance_only():
    hashes = [look(scene(seed)) for seed in range(60)]
    bits, shown = np.stack([s.bits for s in hashes]), np.stack([s.shown for s in hashes])
    value = likeness(bits, shown, bits, shown)
    assert np.allclose(np.diag(value), 1)
    others = value[np.triu_indices(60, 1)]
    assert abs(others.mean()) < 0.02
    assert others.max() < DUPLICATE - 0.1


def test_a_common_border_makes_no_likeness():
    """The black corners of one processor, without which every frame would be like every other."""
    rows, columns = np.mgrid[:96, :128]
    field = abs(rows - 48) + abs(columns - 64) < 90
    frames = [np.where(field[..., None], scene(seed), 12).astype(np.uint8) for seed in (1, 2)]
    assert abs(alike(*(look(frame, field) for frame in frames))) < 0.25
    # What says that the field is to be looked at alone is the mask: without it they share their
    # corners.
    assert alike(*(look(frame) for frame in frames)) > alike(*(look(frame, field) for frame in frames))


def test_likeness_is_twice_the_share_of_cells_that_agree_less_one():
    rng = np.random.default_rng(0)
    bits, shown = rng.random((3, 2, 1024)) < 0.5, rng.random((3, 2, 1024)) < 0.8
    pack = lambda cells: np.packbits(cells, axis=-1).view(np.uint64)  # noqa: E731
    packed = likeness(pack(bits[:, 0]), pack(shown[:, 0]), pack(bits[:, 1]), pack(shown[:, 1]))
    for i in range(3):
        for j in range(3):
            both = shown[i, 0] & shown[j, 1]
            expected = 2 * np.mean(bits[i, 0][both] == bits[j, 1][both]) - 1
            assert packed[i, j] == pytest.approx(expected, abs=1e-6)


def test_too_little_in_common_is_no_verdict():
    left, right = np.zeros((96, 128), bool), np.zeros((96, 128), bool)
    left[:, :64], right[:, 64:] = True, True
    assert np.isnan(alike(look(scene(1), left), look(scene(1), right)))
    assert near_duplicates([look(scene(1), left), look(scene(1), right)], ["a", "b"], progress=False) == []


def test_near_duplicates_are_all_pairs_of_different_groups_across_blocks():
    """Of more frames than are compared at once."""
    hashes = [look(scene(seed)) for seed in range(300)]
    hashes += [look(coded(scene(3), 50)), look(scene(3) // 2), look(coded(scene(299), 50))]
    groups = [f"video {number}" for number in range(303)]
    groups[299] = groups[302] = "one video"
    found = {(pair.first, pair.second) for pair in near_duplicates(hashes, groups, progress=False)}
    assert found == {(3, 300), (3, 301), (300, 301)}
    assert near_duplicates([], [], progress=False) == []


def test_what_is_tied_is_joined():
    assert joined(6, [(4, 1), (1, 5), (2, 2)]) == [[0], [1, 4, 5], [2], [3]]
    assert joined(2, []) == [[0], [1]]

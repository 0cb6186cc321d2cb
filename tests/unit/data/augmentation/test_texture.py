"""Texture: a field of known variance and blur on the expectation; the mean stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_crops import assert_poisson, training_batch

from rbs.data.augmentation import texture as module
from rbs.data.augmentation.texture import draw_texture
from rbs.data.bone_scans import RBSDataModule
from rbs.errors import RbsError

FLAT = np.full((2, 96, 80), 7.0, np.float32)
SPACING = (2.4, 2.0)


@pytest.fixture
def strong(monkeypatch: pytest.MonkeyPatch) -> None:
    """One strength, 0.5, of white noise seen by a camera of 9 mm."""
    for name, value in {"STRENGTH": 0.5, "EXPONENT": 0.0, "FWHM_MM": 9.0}.items():
        monkeypatch.setattr(module, name, (value, value))


def drawn(image: np.ndarray, seeds: int) -> np.ndarray:
    return np.stack([draw_texture(image, SPACING, np.random.default_rng(seed)) for seed in range(seeds)])


def test_the_logarithm_has_the_strength_and_the_mean_stays(strong) -> None:
    images = drawn(FLAT, 60)
    assert images.dtype == np.float32
    logs = np.log(images / 7)
    assert logs.std(axis=(2, 3)).mean() == pytest.approx(0.5, rel=0.02)
    assert images.mean() == pytest.approx(7, rel=0.01)


def test_the_camera_blurs_it_by_millimetres(strong) -> None:
    logs = np.log(drawn(FLAT, 40))
    logs -= logs.mean()
    # Autocorrelation of white noise under a Gaussian: exp(-d² / 4 sigma²).
    sigma = 9.0 / np.sqrt(8 * np.log(2))
    for axis, mm in ((2, SPACING[0]), (3, SPACING[1])):
        found = (logs * np.roll(logs, 2, axis)).mean() / (logs**2).mean()
        assert found == pytest.approx(np.exp(-((2 * mm) ** 2) / (4 * sigma**2)), abs=0.02)


def test_views_share_a_part_of_it(strong) -> None:
    logs = np.log(drawn(FLAT[:, :48, :40], 200)).reshape(200, 2, -1)
    shared = [np.corrcoef(pair)[0, 1] for pair in logs]
    # The part is uniform between 0 and 1.
    assert np.mean(shared) == pytest.approx(0.5, abs=0.08)
    assert np.std(shared) == pytest.approx(1 / np.sqrt(12), abs=0.06)


def test_a_larger_exponent_makes_clouds(monkeypatch: pytest.MonkeyPatch, strong) -> None:
    def far(exponent: float) -> float:
        monkeypatch.setattr(module, "EXPONENT", (exponent, exponent))
        logs = np.log(drawn(FLAT, 20))
        logs -= logs.mean(axis=(2, 3), keepdims=True)
        return float((logs * np.roll(logs, 8, 2)).mean() / (logs**2).mean())

    assert abs(far(0.0)) < 0.05
    assert far(1.5) > 0.4


def test_clouds_are_as_wide_as_high_in_millimetres(monkeypatch: pytest.MonkeyPatch, strong) -> None:
    monkeypatch.setattr(module, "EXPONENT", (1.5, 1.5))
    image = np.full((1, 128, 64), 7.0, np.float32)  # square in mm
    fields = [np.log(draw_texture(image, (2.0, 4.0), np.random.default_rng(seed))) for seed in range(150)]
    logs = np.stack(fields) - np.mean(fields)
    down, across = ((logs * np.roll(logs, pixels, axis)).mean() for axis, pixels in ((2, 16), (3, 8)))
    assert down == pytest.approx(across, rel=0.1)


def test_it_multiplies_and_is_the_same_again() -> None:
    bone = np.zeros_like(FLAT)
    bone[:, 30:60, 20:50] = 5
    images = drawn(bone, 3)
    assert not images[:, bone == 0].any()
    assert (images[:, bone > 0] > 0).all()
    np.testing.assert_array_equal(images, drawn(bone, 3))
    assert not np.array_equal(images[0], images[1])


def test_crops_have_it_and_their_counts_are_poisson(tiny_cohort) -> None:
    known = {"pairs": "expectation", "exposures": (0.5, 0.5)}
    plain, half = (training_batch(tiny_cohort, 32, textures=share, **known) for share in (0.0, 0.5))
    # Flips differ with the numbers that counts were drawn from; the total does not.
    totals = [batch["target"].sum(dim=(1, 2, 3)) for batch in (plain, half)]
    same = int(torch.isclose(*totals, rtol=1e-5).sum())
    assert 6 < same < 26
    assert "labels" in half  # bones are where they were
    assert_poisson(half["rapid"], 0.5 * half["target"])


@pytest.mark.parametrize(
    "settings", [{"textures": 1.1}, {"textures": 0.5, "pairs": "split"}, {"textures": 0.5, "realisations": 4}]
)
def test_where_it_cannot_go_it_is_refused(settings) -> None:
    with pytest.raises(RbsError, match=r"textures, pairs .* do not go together"):
        RBSDataModule("manifest.csv", **{"pairs": "expectation"} | settings)

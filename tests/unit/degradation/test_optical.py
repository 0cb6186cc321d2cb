"""Degradations against the closed forms of their physics."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image
from scipy.special import j1
from skimage.color import rgb2xyz, rgb2ycbcr

from rbs.degradation.optical import (
    PRESETS,
    ChromaLoss,
    Defocus,
    Downsampling,
    Frame,
    Haze,
    Illumination,
    Jpeg,
    Motion,
    Optical,
    Preset,
    Recipe,
    SensorNoise,
    Specular,
    Step,
    enlarge,
    halve,
    to_linear,
    to_srgb,
)
from rbs.degradation.optical.optics import smooth_field
from rbs.errors import RbsError

RNG = np.random.default_rng


def flat(light: float, side: int = 256) -> Frame:
    return to_srgb(np.full((3, side, side), light))


def impulse(side: int = 61) -> Frame:
    light = np.zeros((3, side, side), np.float32)
    light[:, side // 2, side // 2] = 1
    return to_srgb(light)


def scene(rows: int = 96, columns: int = 128) -> Frame:
    """Something smooth with edges and colours, away from black and white."""
    y, x = np.mgrid[:rows, :columns] / 16
    planes = [np.sin(x + y), np.sin(2 * x - y), np.where(x > y, 0.5, -0.5)]
    return (0.5 + 0.3 * np.array(planes)).astype(np.float32)


# ---- the transfer function


def test_srgb_transfer_is_that_of_the_standard_both_ways() -> None:
    values = np.linspace(0, 1, 1001)
    luminance = rgb2xyz(np.stack([values] * 3, -1)[None])[0, :, 1]  # scikit-image's own transfer function
    # Its luminance weights sum to 1 within 1e-5.
    np.testing.assert_allclose(to_linear(values), luminance, rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(to_srgb(to_linear(values)), values, atol=2e-6)
    assert to_linear(np.array([0.5]))[0] == pytest.approx(0.2140411, abs=1e-7)
    assert (to_linear(values).dtype, to_srgb(values).dtype) == (np.float32, np.float32)


def test_light_beyond_full_scale_saturates() -> None:
    assert to_srgb(np.array([-1.0, 2.0])).tolist() == [0, 1]


# ---- sensor


@pytest.mark.parametrize("light", [0.05, 0.2, 0.6])
@pytest.mark.parametrize("gain", [0.0, 1.0])
def test_noise_has_the_mean_and_variance_of_shot_and_read_noise(light: float, gain: float) -> None:
    full_well, read, g = 2000.0, 6.0, 2**gain
    seen = to_linear(SensorNoise(full_well, read, gain)(flat(light / g), RNG(1))).astype(float)
    mean, variance = light, g**2 * (light / g / full_well + (read / full_well) ** 2)
    n = seen.size
    assert seen.mean() == pytest.approx(mean, abs=5 * math.sqrt(variance / n) + 1e-6)
    assert seen.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / n))
    channels = np.corrcoef(seen.reshape(3, -1))[np.triu_indices(3, 1)]
    neighbours = np.corrcoef(seen[0, :, 1:].ravel(), seen[0, :, :-1].ravel())[0, 1]
    assert np.abs([*channels, neighbours]).max() < 5 / math.sqrt(n / 3)


def test_a_camera_that_makes_up_for_missing_light_keeps_the_brightness_and_adds_noise() -> None:
    def seen(stops: float) -> np.ndarray:
        recipe = Recipe((Illumination(stops), SensorNoise(8000, 2, stops)))
        return to_linear(recipe(flat(0.3), RNG(2))).astype(float)

    assert seen(4).mean() == pytest.approx(0.3, abs=2e-3)
    assert seen(4).var() / seen(2).var() == pytest.approx(4, rel=0.05)  # shot noise by far the larger


@pytest.mark.parametrize("reach", [0.5, 2.0])
def test_light_falls_off_by_the_fourth_power_of_the_cosine(reach: float) -> None:
    seen = to_linear(Illumination(1.5, reach, (0.5, 0.25))(flat(0.8, 64), RNG(0)))
    for row, column in ((0, 0), (32, 16), (63, 63), (10, 50)):
        distance = math.hypot(row + 0.5 - 32, column + 0.5 - 16) / (32 * math.sqrt(2))
        cosine = math.cos(math.atan(distance / reach))
        assert seen[1, row, column] == pytest.approx(0.8 * 2**-1.5 * cosine**4, rel=1e-4)
    even = Illumination(1.5)(flat(0.8, 64), RNG(0))
    np.testing.assert_allclose(even, flat(0.8 * 2**-1.5, 64), rtol=1e-5)
    assert Illumination(-2)(flat(0.3), RNG(0)).min() == 1  # overexposed


def test_highlights_saturate_the_area_of_a_gaussian_lobe_and_seek_bright_places() -> None:
    number, sigma, peak = 40, 4.0, 5.0
    areas = []
    for seed in range(40):  # one lobe each, so that they do not overlap
        seen = Specular(1, sigma, peak, wrinkles=0)(np.zeros((3, 128, 128), np.float32), RNG(seed))
        rows, columns = np.nonzero(seen[0] == 1)
        inside = min(rows.min(), columns.min()) > 0 and max(rows.max(), columns.max()) < 127
        if inside:
            areas.append(len(rows))
    expected = 2 * math.pi * sigma**2 * math.log(peak) * (1 + 1 / 12)  # the sizes' mean square
    assert np.mean(areas) == pytest.approx(expected, abs=4 * np.std(areas) / math.sqrt(len(areas)))

    half = flat(0.05)
    half[:, :, 128:] = to_srgb(np.array(0.5))
    whiter = Specular(number, 1.5, peak)(half, RNG(3)) - half
    np.testing.assert_allclose(whiter[:, whiter[0] > 0.3].std(0), 0, atol=1e-6)  # white
    assert whiter[:, :, :120].sum() < 0.05 * whiter.sum()


# ---- smoke and lens


def test_even_haze_is_koschmieders_law() -> None:
    airlight = (0.5, 0.6, 0.7)
    frame, t = scene(), math.exp(-0.8)
    seen = to_linear(Haze(0.8, patchiness=0, airlight=airlight)(frame, RNG(0)))
    expected = to_linear(frame) * t + np.array(airlight)[:, None, None] * (1 - t)
    np.testing.assert_allclose(seen, expected, atol=1e-5)


def test_patchy_haze_has_its_mean_depth_and_leaves_airlight_alone() -> None:
    frame = np.zeros((3, 128, 160), np.float32)
    seen = to_linear(Haze(0.6, patchiness=0.5, airlight=(0.5, 0.5, 0.5))(frame, RNG(4))).astype(float)
    depth = -np.log(1 - seen[0] / 0.5)
    assert depth.mean() == pytest.approx(0.6, rel=1e-3)
    assert 0.1 < np.log(depth).std() < 1
    grey = flat(0.5)
    np.testing.assert_allclose(Haze(1.0, airlight=(0.5, 0.5, 0.5))(grey, RNG(5)), grey, atol=1e-5)


def test_the_smooth_field_has_unit_variance_and_its_correlation_length() -> None:
    fields = np.array([smooth_field((64, 64), 3, RNG(seed)) for seed in range(60)])
    assert fields.mean() == pytest.approx(0, abs=0.05)
    assert fields.var() == pytest.approx(1, rel=0.1)
    for lag in (2, 4):  # of white noise smoothed by a Gaussian
        product = (fields[:, :, lag:] * fields[:, :, :-lag]).mean()
        assert product == pytest.approx(math.exp(-(lag**2) / (4 * 3**2)), abs=0.06)


@pytest.mark.parametrize("radius", [1.0, 2.5, 6.0])
def test_defocus_has_the_transfer_function_of_a_disc(radius: float) -> None:
    columns = np.arange(256)
    for cycles in (0.02, 0.05, 0.61 / radius):
        if cycles > 0.45:
            continue
        wave = 0.5 + 0.4 * np.cos(2 * np.pi * cycles * (columns - 127.5))
        frame = to_srgb(np.broadcast_to(wave, (3, 64, 256)))
        seen = to_linear(Defocus(radius)(frame, RNG(0)))[0, 32].astype(float)
        middle = slice(40, 216)
        basis = np.cos(2 * np.pi * cycles * (columns - 127.5))[middle]
        contrast = (seen[middle] - 0.5) @ basis / (basis @ basis) / 0.4
        argument = 2 * np.pi * radius * cycles
        expected = 2 * j1(argument) / argument * np.sinc(cycles)  # a disc, averaged over pixels
        assert contrast == pytest.approx(expected, abs=0.02), cycles
    assert abs(2 * j1(2 * np.pi * 0.61)) < 0.01  # the last of them was the zero


@pytest.mark.parametrize("radius", [3.0, 4.4, 7.2])
def test_defocus_has_the_second_moment_of_a_disc_and_keeps_light(radius: float) -> None:
    total, along, across = moments(Defocus(radius)(impulse(), RNG(0)), 0)
    assert total == pytest.approx(1, abs=1e-3)
    for moment in (along, across):
        assert moment == pytest.approx(radius**2 / 4 + 1 / 12, rel=0.02)


@pytest.mark.parametrize("length", [5.0, 11.3])
@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 135.0])
def test_motion_has_the_second_moments_of_a_line(length: float, angle: float) -> None:
    total, along, across = moments(Motion(length, angle)(impulse(), RNG(0)), angle)
    assert total == pytest.approx(1, abs=1e-3)
    assert along == pytest.approx(length**2 / 12 + 1 / 6, abs=0.15)  # bilinear weights add u (1 - u) at most
    assert 0 <= across <= 1 / 4


def moments(frame: Frame, angle_deg: float) -> tuple[float, float, float]:
    """Light of the first channel; its variance along and across a direction, pixels squared."""
    light = to_linear(frame)[0].astype(float)
    y, x = np.indices(light.shape) - light.shape[0] // 2
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    total = light.sum()
    return (
        total,
        float((light * (c * x + s * y) ** 2).sum() / total),
        float((light * (c * y - s * x) ** 2).sum() / total),
    )


# ---- recording


def test_halving_is_the_mean_of_two_by_two() -> None:
    frame = RNG(0).random((3, 10, 14), np.float32)
    for row, column in ((0, 0), (3, 5), (4, 6)):
        square = frame[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_allclose(halve(frame)[:, row, column], square.mean((1, 2)), rtol=1e-6)
    odd = halve(frame[:, :9, :13])
    assert odd.shape == (3, 5, 7)
    np.testing.assert_allclose(odd[:, 4, 6], frame[:, 8, 12], rtol=1e-6)


def test_enlarging_reproduces_a_parabola_without_a_shift() -> None:
    # Cubic convolution with a = -1/2 reproduces polynomials of second degree (Keys 1981).
    y, x = np.mgrid[:40, :48].astype(np.float32)

    def parabola(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.stack([0.1 + 1e-4 * y**2 + 1e-4 * x**2 - 5e-5 * x * y] * 3).astype(np.float32)

    small = parabola(2 * y[:20, :24] + 0.5, 2 * x[:20, :24] + 0.5)  # at the middle of the squares
    np.testing.assert_allclose(
        enlarge(small, (40, 48))[:, 6:-6, 6:-6], parabola(y, x)[:, 6:-6, 6:-6], atol=2e-6
    )
    frame = RNG(0).random((3, 9, 13), np.float32)
    assert Downsampling()(frame, RNG(0)).shape == frame.shape


@pytest.mark.parametrize("factor", [2, 3])
def test_colour_loses_resolution_and_luma_does_not(factor: int) -> None:
    frame = (0.4 + 0.2 * RNG(0).random((3, 24, 36))).astype(np.float32)
    seen = ChromaLoss(factor)(frame, RNG(0))
    before, after = (rgb2ycbcr(f.transpose(1, 2, 0)) for f in (frame, seen))
    np.testing.assert_allclose(after[..., 0], before[..., 0], atol=1e-3)
    assert after[..., 1].std() < 0.7 * before[..., 1].std()
    grey = np.repeat(frame[:1], 3, 0)
    np.testing.assert_allclose(ChromaLoss(factor)(grey, RNG(0)), grey, atol=1e-6)
    even = np.full((3, 24, 24), 0.5, np.float32) * np.array([1, 0.5, 0.7], np.float32)[:, None, None]
    np.testing.assert_allclose(ChromaLoss(factor)(even, RNG(0)), even, atol=1e-6)


def test_jpeg_is_the_codec_of_pillow_and_its_subsampling_costs_colour() -> None:
    frame = scene()
    seen = Jpeg(40, "4:4:4")(frame, RNG(0))
    file = io.BytesIO()
    pixels = Image.fromarray(np.round(frame * 255).astype(np.uint8).transpose(1, 2, 0))
    pixels.save(file, "JPEG", quality=40, subsampling=0)
    assert np.array_equal(np.round(seen * 255), np.asarray(Image.open(file)).transpose(2, 0, 1))
    # A chequerboard of single pixels of two colours of one luma (0.299, 0.587, 0.114).
    chequers = np.indices((32, 32)).sum(0) % 2 * 2 - 1
    colours = (
        np.array([0.5, 0.5, 0.5])[:, None, None]
        + np.array([0.2, -0.2 * 0.299 / 0.587, 0])[:, None, None] * chequers
    )
    kept = [Jpeg(95, s)(colours.astype(np.float32), RNG(0))[0].std() for s in ("4:4:4", "4:2:0")]  # type: ignore[arg-type]
    assert kept[0] > 0.15 > 0.02 > kept[1]


# ---- levels


@pytest.mark.parametrize(
    "levels",
    [
        [Haze(d, patchiness=0) for d in (0.2, 0.5, 1.0)],
        [Defocus(r) for r in (1, 2, 4)],
        [Motion(n, 20) for n in (3, 7, 15)],
        [Illumination(s) for s in (0.5, 1, 2)],
        [SensorNoise(6000, 2, g) for g in (0, 2, 4)],
        [Specular(n, 2, 4) for n in (2, 8, 40)],
        [ChromaLoss(f) for f in (2, 4, 8)],
        [Jpeg(q) for q in (90, 50, 10)],
    ],
    ids=lambda levels: type(levels[0]).__name__,
)
def test_a_higher_level_does_more_harm(levels: list[Step]) -> None:
    frame = scene()
    if isinstance(levels[0], SensorNoise):
        recipes = [Recipe((Illumination(s.gain_stops), s)) for s in levels]  # type: ignore[attr-defined]
    else:
        recipes = [Recipe((step,)) for step in levels]
    errors = [np.mean((recipe(frame, RNG(6)) - frame) ** 2) for recipe in recipes]
    assert 0 < errors[0] < errors[1] < errors[2]


# ---- recipes and presets


def test_steps_out_of_the_order_of_light_are_refused() -> None:
    with pytest.raises(ValueError, match="light meets 'defocus"):
        Recipe((Jpeg(50), Defocus(2)))


def test_a_recipe_says_what_it_does_and_delivers_eight_bits() -> None:
    recipe = Recipe((Haze(0.4), Defocus(2), Illumination(3, 1.5), SensorNoise(5000, 2, 3), Jpeg(60)))
    assert str(recipe) == (
        "haze of optical depth 0.40, patchiness 0.50; defocus of 2.0 px radius;"
        " light -3.0 stops, a quarter of it 1.50 off centre;"
        " sensor of 5000 e full well, 2.0 e read noise, gain +3.0 stops; JPEG 60 (4:2:0)"
    )
    seen = recipe(scene(), RNG(0))
    assert (seen.dtype, seen.shape) == (np.float32, scene().shape)
    assert np.array_equal(seen, np.round(seen * 255).astype(np.float32) / np.float32(255))
    assert (seen.min() >= 0, seen.max() <= 1) == (True, True)


def test_what_the_processor_lays_over_the_picture_neither_bleeds_nor_gets_noise() -> None:
    frame = flat(0.3, 96)
    field = np.ones((96, 96), bool)
    field[:, :20] = field[70:, 60:] = False
    frame[:, ~field] = 0
    blurred = Recipe((Defocus(5), Motion(12, 45)), field)(frame, RNG(0))
    assert np.abs(blurred - frame).max() <= 0.5 / 255 + 1e-6
    noisy = Recipe((Haze(0.5), SensorNoise(500, 5, 1)), field)(frame, RNG(0))
    assert not noisy[:, ~field].any()
    assert noisy[:, field].std() > 0.01
    compressed = Recipe((Jpeg(10),), field)(frame, RNG(0))
    assert compressed[:, ~field].any()  # the recorder sees the mask, too


def test_the_rim_of_a_mask_and_the_ground_of_text_do_not_tell_the_clean_brightness() -> None:
    frame = flat(0.4, 320)
    frame[:, :, :20] = 0
    frame[:, :, 20] *= np.float32(0.5)  # half of it is mask
    field = np.ones((320, 320), bool)
    field[:, :22] = False  # on the safe side by one column
    field[40:46, 60:90] = False
    frame[:, 42:44, 62:88] = 1  # text on some ground
    dark = Recipe((Illumination(4),), field)(frame, RNG(0))
    level = float(dark[0, 0, 300])
    assert level == pytest.approx(float(to_srgb(np.array(0.4 / 16))), abs=1 / 255)
    np.testing.assert_allclose(dark[:, :, 21], level, atol=1.5 / 255)
    np.testing.assert_allclose(dark[:, :, 20], level / 2, atol=1.5 / 255)
    np.testing.assert_allclose(dark[:, 40, 60:90], level, atol=1.5 / 255)
    assert (dark[:, :, :20].max(), dark[:, 42:44, 62:88].min()) == (0, 1)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_same_seed_makes_the_same_picture_and_another_another(preset: Preset) -> None:
    frame = scene()
    degrade = Optical(preset)
    one, two = (degrade(frame, RNG((1, 2, 3))) for _ in range(2))
    recipe = degrade.draw(RNG((1, 2, 3)))
    assert str(recipe) == str(degrade.draw(RNG((1, 2, 3))))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, frame)
    assert (one.shape, one.dtype) == (frame.shape, np.float32)
    other, different = degrade(frame, RNG((1, 2, 4))), degrade.draw(RNG((1, 2, 4)))
    assert np.array_equal(one, other) == (recipe == different) == (preset == "x2")  # which has no levels
    assert np.array_equal(frame, scene())  # the clean one is left alone


def drawn(preset: Preset) -> list[Recipe]:
    return [Optical(preset).draw(RNG(seed)) for seed in range(300)]


def test_denoise_keeps_the_brightness_and_deblur_always_blurs() -> None:
    for recipe in drawn("denoise"):
        light, sensor = recipe.steps
        assert isinstance(light, Illumination)
        assert isinstance(sensor, SensorNoise)
        assert 1.5 <= light.stops == sensor.gain_stops <= 6
    for recipe in drawn("deblur"):
        blurs = [step for step in recipe.steps if isinstance(step, (Defocus, Motion))]
        assert len(blurs) in (1, 2)
        assert any(isinstance(step, SensorNoise) for step in recipe.steps)


def test_low_light_is_darker_than_it_should_be() -> None:
    for recipe in drawn("low-light"):
        light, sensor = recipe.steps
        assert isinstance(light, Illumination)
        assert isinstance(sensor, SensorNoise)
        assert 0.5 <= light.stops - sensor.gain_stops <= 2.5
        assert math.isfinite(light.reach)


def test_mixed_holds_every_kind_and_is_never_empty() -> None:
    recipes = drawn("mixed")
    assert all(recipe.steps for recipe in recipes)
    kinds = {type(step) for recipe in recipes for step in recipe.steps}
    assert kinds == {
        *(Haze, Defocus, Motion, Illumination, SensorNoise),
        *(Specular, Downsampling, ChromaLoss, Jpeg),
    }


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(RbsError, match="there is no preset 'denoize'; name one of denoise, deblur,"):
        Optical("denoize")  # type: ignore[arg-type]

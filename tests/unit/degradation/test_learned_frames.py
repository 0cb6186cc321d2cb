"""Degraders of frames: the contract of `Degrader`, their files, and what they can express."""

import numpy as np
import pytest
import torch

from rbs.degradation.diffusion_frames import FrameDiffusion
from rbs.degradation.frames import FrameDegrader, encoded, light_of, load_frame_degrader, noise_of
from rbs.degradation.learned import load_degrader, save_degrader
from rbs.degradation.munit import Munit
from rbs.degradation.munit_frames import FrameMunit
from rbs.degradation.noise_filter import WHITE
from rbs.endoscopy.colour import to_linear, to_srgb
from rbs.errors import CheckpointError, FrameError


def scene(seed, rows=48, columns=62):
    """A smooth frame with an edge, float32 (3, rows, columns)."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    frame = 0.5 + 3 * gaussian_filter(rng.normal(size=(3, rows, columns)), (0, 5, 5))
    frame[:, :, columns // 2 :] *= 0.7
    return np.round(255 * np.clip(frame, 0.05, 0.95)).astype(np.float32) / np.float32(255)


def small(kind):
    torch.manual_seed(0)
    model = FrameMunit(channels=8)
    if kind is FrameDiffusion:
        model = FrameDiffusion(channels=(8, 16), steps=2, depth=500, tile=(32, 32))
    model.prepare(np.float32([[0.2, 0.1, 0.02], [0.3, 0.15, 0.05]]), 64)
    return model.eval()


@pytest.fixture(params=[FrameMunit, FrameDiffusion], ids=["munit", "diffusion"])
def degrader(request):
    return FrameDegrader(small(request.param), "a degrader")


def test_a_degraded_frame_is_a_frame_drawn_by_its_rng(degrader):
    frame = scene(1)
    before = frame.copy()
    one, again, other = (degrader(frame, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(frame, before)
    assert (one.shape, one.dtype) == (frame.shape, np.float32)
    assert 0 <= one.min() <= one.max() <= 1
    np.testing.assert_allclose(255 * one, np.round(255 * one), atol=1e-3)
    assert np.abs(one - other).max() > 0.01


def test_borders_and_text_are_left_as_they_are(degrader):
    frame, field = scene(2), np.zeros((48, 62), bool)
    field[8:40, 8:50] = True
    frame[:, ~field] = 0
    made = degrader.within(field)(frame, np.random.default_rng(0))
    assert not made[:, ~field].any()
    assert np.abs(made - frame)[:, field].max() > 0.01


@pytest.mark.parametrize(
    ("image", "fault"),
    [
        (np.full((3, 8, 8), 1.5), r"degrades values of 0 to 1, not 1\.5 to 1\.5"),
        (np.full((3, 8, 8), np.nan), "degrades values of 0 to 1, not nan to nan"),
        (np.full((2, 8, 8), 0.5), r"degrades frames \(3, H, W\), not \(2, 8, 8\)"),
        (np.full((8, 8), 0.5), r"degrades frames \(3, H, W\), not \(8, 8\)"),
    ],
)
def test_what_is_no_frame_is_refused(degrader, image, fault):
    with pytest.raises(FrameError, match=fault):
        degrader(image, np.random.default_rng(0))


@pytest.mark.parametrize("kind", [FrameMunit, FrameDiffusion])
def test_files_hold_all_of_a_degrader(kind, tmp_path):
    model = small(kind)
    save_degrader(tmp_path / "d.safetensors", model, {"steps": 3})
    loaded = load_frame_degrader(tmp_path / "d.safetensors")
    assert (loaded.longest_side, loaded.provenance["steps"]) == (64, 3)
    own = FrameDegrader(model, "own")(scene(1), np.random.default_rng(0))
    np.testing.assert_array_equal(loaded(scene(1), np.random.default_rng(0)), own)


def test_degraders_of_other_images_and_untrained_ones_are_refused(tmp_path):
    save_degrader(tmp_path / "frames.safetensors", small(FrameMunit), {})
    with pytest.raises(CheckpointError, match="it degrades frames, not scans"):
        load_degrader(tmp_path / "frames.safetensors")
    scans = Munit(channels=8)
    scans.prepare([], [2.0], (4.0, 4.0), WHITE)
    save_degrader(tmp_path / "scans.safetensors", scans, {})
    with pytest.raises(CheckpointError, match="it degrades scans, not frames"):
        load_frame_degrader(tmp_path / "scans.safetensors")
    save_degrader(tmp_path / "new.safetensors", FrameMunit(channels=8), {})
    with pytest.raises(CheckpointError, match="was not trained on frames"):
        load_frame_degrader(tmp_path / "new.safetensors")


@pytest.mark.parametrize("kind", [FrameMunit, FrameDiffusion])
def test_every_trained_weight_gets_a_finite_gradient(kind):
    model = small(kind).train()
    good, poor = (torch.from_numpy(np.stack([scene(k, 48, 48) for k in seeds])) for seeds in ((0, 1), (2, 3)))
    terms = model.losses(good, 0.4 * poor, torch.tensor([[0.0, 0.2, 0.5, 0.7]] * 2))
    torch.testing.assert_close(terms["total"], sum(v for name, v in terms.items() if name != "total"))
    terms["total"].backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    assert not [name for name, gradient in gradients.items() if gradient is None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


def test_light_is_that_of_frames():
    frame = scene(4)
    torch.testing.assert_close(light_of(torch.from_numpy(frame)), torch.from_numpy(to_linear(frame)))
    light = to_linear(frame) * 1.3
    torch.testing.assert_close(
        encoded(torch.from_numpy(light)), torch.from_numpy(to_srgb(light)), atol=1e-5, rtol=1e-5
    )


def told(model, **parts):
    """Make a model say the same to every style: parts of what its styles decode to."""
    names = ("kernel", "gain", "field", "haze", "shot", "read")
    last = model.common[-1]
    torch.nn.init.zeros_(last.weight)
    values = {"read": [-99.0], "shot": [-99.0], "haze": [-99.0] * 3, **parts}
    ends = np.cumsum([0, *model.parts])
    for name, start, stop in zip(names, ends, ends[1:], strict=False):
        if name in values:
            last.bias.data[start:stop] = torch.tensor(values[name]) / 4
    return model


def degraded(model, frame):
    field = torch.ones(frame.shape[1:], dtype=torch.bool)
    return model.degrade(torch.from_numpy(frame)[None], torch.Generator().manual_seed(0), field)[0].numpy()


def test_munit_can_leave_a_frame_and_darken_colour_veil_and_blur_it():
    frame, nothing = scene(5), [99.0] + [0.0] * 11
    with torch.no_grad():
        same = degraded(told(small(FrameMunit), kernel=nothing), frame)
        np.testing.assert_allclose(same, frame, atol=0.02)
        made = degraded(told(small(FrameMunit), kernel=nothing, gain=[-1.0, -1.5, -2.0]), frame)
        wanted = to_srgb(to_linear(frame) * np.exp([-1.4, -1.5, -1.6])[:, None, None])
        np.testing.assert_allclose(made, wanted, atol=0.02)
        veiled = degraded(told(small(FrameMunit), kernel=nothing, haze=[4.0] * 3), frame)
        assert (veiled - same).min() > 0.02
        wide = [0.0, 0, 0, 99.0] + [0.0] * 8
        blurred = degraded(told(small(FrameMunit), kernel=wide), frame)
        assert np.abs(np.diff(blurred)).max() < 0.5 * np.abs(np.diff(frame)).max()


def test_light_falls_off_with_the_place_in_the_frame_not_in_the_crop():
    frame = np.full((3, 32, 32), 0.5, np.float32)
    model = told(small(FrameMunit), kernel=[99.0] + [0.0] * 11, field=[0.0, 0, -1, -1, 0])
    model.local.bias.data.zero_()
    style = torch.zeros(2, model.style)
    places = torch.tensor([[0.0, 0, 1, 1], [0.25, 0.25, 0.75, 0.75]])
    with torch.no_grad():
        whole, middle = model.expected(torch.from_numpy(np.stack([frame] * 2)), style, places)[0]
    assert float(whole[0, 0, 0]) < 0.3 * float(whole[0, 16, 16])
    assert float(middle[0, 0, 0]) == pytest.approx(float(whole[0, 8, 8]), rel=0.07)


def test_noise_is_as_its_variance_says():
    frame = np.full((3, 64, 64), 0.5, np.float32)
    model = told(small(FrameMunit), kernel=[99.0] + [0.0] * 11, shot=[1.0])
    with torch.no_grad():
        made = degraded(model, frame)
        light, variance = model.expected(
            torch.from_numpy(frame)[None], torch.zeros(1, model.style), torch.tensor([[0.0, 0, 1, 1]])
        )
    assert float(to_linear(made).var()) == pytest.approx(float(variance.mean()), rel=0.1)
    assert float(variance.mean()) == pytest.approx(np.exp(-6.0) * float(light.mean()), rel=0.05)


def test_brightness_contrast_and_noise_of_the_bridge_are_those_of_a_poor_frame():
    model = small(FrameDiffusion)
    model.moments.copy_(torch.tensor([0.25, 0.08, 0.03]))
    frame, field = torch.from_numpy(scene(3, 96, 96))[None], torch.ones(96, 96, dtype=torch.bool)
    field[:, :24] = False
    frame[..., :24] = frame[..., 24:25]
    with torch.inference_mode():
        made = model.degrade(frame, torch.Generator().manual_seed(0), field)[..., field]
    assert float(made.mean()) == pytest.approx(0.25, abs=0.005)
    assert float(made.std(dim=2).mean()) == pytest.approx(0.08, rel=0.05)
    shown = made[0].unflatten(1, (96, 72)).numpy()
    assert noise_of(shown, np.ones((96, 72), bool)) == pytest.approx(0.03, rel=0.15)
    shares = [of.mean(dim=2)[0] / of.mean() for of in (made, frame[..., field])]
    torch.testing.assert_close(*shares, atol=0.02, rtol=0.02)


def test_noise_is_measured_within_the_field():
    rng, field = np.random.default_rng(0), np.zeros((96, 128), bool)
    field[:, 40:] = True
    frame = np.where(field, 0.5 + 0.05 * rng.normal(size=(3, 96, 128)), 0.01 * rng.random((3, 96, 128)))
    assert noise_of(frame, field) == pytest.approx(0.05, rel=0.05)
    assert noise_of(frame, np.ones_like(field)) < 0.04


def test_long_kernels_have_directions():
    bank = small(FrameMunit).bank
    torch.testing.assert_close(bank.sum(dim=(1, 2)), torch.ones(len(bank)))
    reach = bank.shape[-1] // 2
    offsets = torch.arange(-reach, reach + 1.0) ** 2
    along, down = ((bank[-4] * grid).sum().sqrt() for grid in (offsets, offsets[:, None]))
    assert float(along) == pytest.approx(4, rel=0.1)
    assert float(down) == pytest.approx(0.5, abs=0.1)

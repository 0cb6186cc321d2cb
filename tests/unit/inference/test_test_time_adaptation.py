"""Fitting a restorer to a scan: it comes nearer to a truth nobody shows it, and leaves the weights alone."""

import copy

import numpy as np
import pytest
import torch

from rbs.errors import CheckpointError
from rbs.inference import test_time_adaptation as adapt
from rbs.inference.test_time_adaptation import AdaptingRestorer, Fit, FittedRestorer, fit_to_scan
from rbs.restorers.checkpoint import LoadedRestorer
from rbs.restorers.dncnn import DnCNN


def loaded(**arguments) -> LoadedRestorer:
    torch.manual_seed(0)
    return LoadedRestorer(DnCNN(depth=3, width=8, **arguments), "DnCNN restorer.safetensors", "1", "0" * 64)


def ladder(rows: int = 160, columns: int = 96) -> np.ndarray:
    """Expected counts of a standard scan of stripes, finer than the filter that restorers start from."""
    y, x = np.mgrid[:rows, :columns]
    return np.stack([30 + 25 * np.sign(np.sin(y / 1.2)), 30 + 25 * np.sign(np.sin(x / 1.2))])


@pytest.fixture(scope="module")
def scan():
    truth = ladder()
    return truth, np.random.default_rng(1).poisson(truth / 2).astype(np.float32)


def error(estimate, truth):
    return float(((estimate - truth) ** 2).mean())


@pytest.fixture
def quick(monkeypatch):
    """Steps that move eight channels which were never trained."""
    monkeypatch.setattr(adapt, "CROP", 48)
    monkeypatch.setattr(adapt, "LEARNING_RATE", 5e-3)


def test_a_scan_unlike_the_training_is_restored_better(scan, quick):
    truth, rapid = scan
    before = loaded()
    weights = copy.deepcopy(before.restorer.state_dict())
    own = AdaptingRestorer.of(before)
    after = own.restore(rapid, 0.5)
    assert error(after, truth) < 0.9 * error(before.restore(rapid, 0.5), truth)
    assert after.shape == rapid.shape
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.restorer.state_dict().items())
    np.testing.assert_array_equal(after, own.restore(rapid, 0.5))
    fitted = own.fitted(rapid, 0.5)
    assert fitted.fit.steps in range(adapt.JUDGED, adapt.STEPS + 1, adapt.JUDGED)
    assert fitted.fit.gain > 10
    assert fitted.name == (
        f"DnCNN restorer.safetensors, fitted to the scan in {fitted.fit.steps} steps, "
        f"log-likelihood of held-out counts {fitted.fit.gain:+.1f}"
    )
    assert own.sha256 == fitted.sha256 == before.sha256
    assert own.provenance["adapted"]["steps"] == adapt.STEPS


@pytest.mark.parametrize("rate", [-2e-3, 1e3, float("nan")])
def test_a_fit_that_does_harm_is_not_used(scan, quick, monkeypatch, rate):
    """Uphill, far too large, and not a number."""
    monkeypatch.setattr(adapt, "STEPS", 6)
    monkeypatch.setattr(adapt, "JUDGED", 3)

    def descent(parameters, lr):
        return torch.optim.SGD(parameters, lr=abs(rate), maximize=rate < 0)

    monkeypatch.setattr(torch.optim, "Adam", descent)
    rapid, plain = scan[1], loaded()
    torch.nn.init.normal_(plain.restorer.head.weight, std=0.1)
    own = AdaptingRestorer.of(plain)
    np.testing.assert_array_equal(own.restore(rapid, 0.5), plain.restore(rapid, 0.5))
    fitted = own.fitted(rapid, 0.5)
    assert fitted.restorer is plain.restorer
    assert fitted.name.endswith(", not fitted to the scan: its held-out counts became hardly likelier")


def test_the_fit_ends_when_held_out_counts_say_so(quick, monkeypatch):
    """Far too many steps on a few counts learn them by heart; those that are used do not."""
    rapid = np.random.default_rng(3).poisson(ladder(64, 48) / 20).astype(np.float32)
    monkeypatch.setattr(adapt, "LEARNING_RATE", 2e-2)
    monkeypatch.setattr(adapt, "STEPS", 400)
    steps = fit_to_scan(loaded().restorer, rapid, 0.05).steps
    assert 0 < steps < 300


def test_a_fit_that_was_kept_is_used_only_where_it_helps(scan, quick):
    rapid, restorer = scan[1], loaded().restorer
    kept = fit_to_scan(restorer, rapid, 0.5).restorer
    again = np.random.default_rng(7).poisson(scan[0] / 2).astype(np.float32)
    used = fit_to_scan(restorer, again, 0.5, kept)
    assert used.restorer is kept
    assert used.gain > adapt.MARGIN
    assert used.steps == 0
    blank = np.random.default_rng(8).poisson(15.0, rapid.shape).astype(np.float32)
    other = fit_to_scan(restorer, blank, 0.5, kept)
    assert other.restorer is not kept


@pytest.mark.parametrize(("gain", "used"), [(1.9, False), (2.1, True)])
def test_a_gain_that_chance_may_give_is_none(scan, monkeypatch, gain, used):
    monkeypatch.setattr(adapt, "STEPS", 1)
    monkeypatch.setattr(adapt.Judge, "gain", lambda self, candidate: gain)
    rapid, restorer, kept = scan[1], loaded().restorer, loaded().restorer
    assert (fit_to_scan(restorer, rapid, 0.5).restorer is not restorer) == used
    assert (fit_to_scan(restorer, rapid, 0.5, kept).restorer is kept) == used
    assert fit_to_scan(restorer, rapid, 0.5).gain == (gain if used else 0)


def test_a_mirrored_scan_gives_the_mirrored_answer(scan):
    plain = loaded()
    torch.nn.init.normal_(plain.restorer.head.weight, std=0.1)
    own = FittedRestorer(plain.restorer, "", "1", "0" * 64, fit=Fit(plain.restorer, 1.0, 8))
    rapid = scan[1][:, :64, :64]
    whole = own.restore(rapid, 0.5)
    for axes in (-1, -2, (-1, -2)):
        np.testing.assert_allclose(
            own.restore(np.flip(rapid, axes), 0.5), np.flip(whole, axes), rtol=1e-4, atol=1e-3
        )
    assert not np.allclose(plain.restore(rapid, 0.5), whole, rtol=1e-3)


@pytest.mark.parametrize("shape", [(1, 40, 30), (2, 12, 200)])
def test_one_view_and_small_scans_adapt(shape, monkeypatch):
    monkeypatch.setattr(adapt, "STEPS", 2)
    rapid = np.random.default_rng(2).poisson(3.0, shape).astype(np.float32)
    restored = AdaptingRestorer.of(loaded()).restore(rapid, 0.5)
    assert restored.shape == shape
    assert restored.sum() == pytest.approx(2 * rapid.sum(), rel=0.02)


def test_an_empty_scan_stays_empty():
    assert not AdaptingRestorer.of(loaded()).restore(np.zeros((2, 64, 32), np.float32), 0.5).any()


def test_what_it_learns_does_not_hang_on_what_was_drawn_before(scan, quick):
    """Whoever restores a folder gets for every scan what it gets alone."""
    crop = scan[1][:, :64, :64]
    restorer = loaded().restorer
    first = fit_to_scan(restorer, crop, 0.5).restorer.state_dict()
    torch.rand(3), np.random.default_rng(5).random(2)
    second = fit_to_scan(restorer, crop, 0.5).restorer.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_frames_have_no_counts():
    with pytest.raises(CheckpointError, match="restores frames, not scans"):
        AdaptingRestorer.of(loaded(domain="colours")).restore(np.zeros((1, 8, 8), np.float32), 1.0)

"""Fitting a restorer to a scan: it comes nearer to a truth nobody shows it, and leaves the weights alone."""

import copy

import numpy as np
import pytest
import torch

from rbs.errors import CheckpointError
from rbs.inference import test_time_adaptation as adapt
from rbs.inference.test_time_adaptation import AdaptingRestorer, adapted
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


def test_a_scan_unlike_the_training_is_restored_better(scan, monkeypatch):
    monkeypatch.setattr(adapt, "CROP", 48)
    monkeypatch.setattr(adapt, "LEARNING_RATE", 2e-3)  # eight channels that were never trained
    truth, rapid = scan
    before = loaded()
    kept = copy.deepcopy(before.restorer.state_dict())
    own = AdaptingRestorer.of(before)
    after = own.restore(rapid, 0.5)
    assert error(after, truth) < 0.9 * error(before.restore(rapid, 0.5), truth)
    assert after.shape == rapid.shape
    assert all(torch.equal(kept[name], tensor) for name, tensor in before.restorer.state_dict().items())
    np.testing.assert_array_equal(after, own.restore(rapid, 0.5))
    assert own.name == "DnCNN restorer.safetensors, adapted to each scan"
    assert own.sha256 == before.sha256
    assert own.provenance["adapted"]["steps"] == adapt.STEPS


def test_a_mirrored_scan_gives_the_mirrored_answer(scan, monkeypatch):
    monkeypatch.setattr(adapt, "adapted", lambda restorer, rapid, exposure: restorer)
    restorer = loaded()
    torch.nn.init.normal_(restorer.restorer.head.weight, std=0.1)
    own = AdaptingRestorer.of(restorer)
    rapid = scan[1][:, :64, :64]
    whole = own.restore(rapid, 0.5)
    for axes in (-1, -2, (-1, -2)):
        np.testing.assert_allclose(
            own.restore(np.flip(rapid, axes), 0.5), np.flip(whole, axes), rtol=1e-4, atol=1e-3
        )
    assert not np.allclose(restorer.restore(rapid, 0.5), whole, rtol=1e-3)


@pytest.mark.parametrize("shape", [(1, 40, 30), (2, 12, 200)])
def test_one_view_and_small_scans_adapt(shape, monkeypatch):
    monkeypatch.setattr(adapt, "STEPS", 2)
    rapid = np.random.default_rng(2).poisson(3.0, shape).astype(np.float32)
    restored = AdaptingRestorer.of(loaded()).restore(rapid, 0.5)
    assert restored.shape == shape
    assert restored.sum() == pytest.approx(2 * rapid.sum(), rel=0.02)


def test_an_empty_scan_stays_empty():
    assert not AdaptingRestorer.of(loaded()).restore(np.zeros((2, 64, 32), np.float32), 0.5).any()


def test_what_it_learns_does_not_hang_on_what_was_drawn_before(scan):
    """Whoever restores a folder gets for every scan what it gets alone."""
    crop = scan[1][:, :64, :64]
    restorer = loaded().restorer
    first = adapted(restorer, crop, 0.5).state_dict()
    torch.rand(3), np.random.default_rng(5).random(2)
    second = adapted(restorer, crop, 0.5).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_frames_have_no_counts():
    with pytest.raises(CheckpointError, match="restores frames, not scans"):
        AdaptingRestorer.of(loaded(domain="colours")).restore(np.zeros((1, 8, 8), np.float32), 1.0)

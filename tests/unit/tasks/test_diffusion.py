"""DiffusionTask: it learns the clean scan at every noise level, and takes no noisy one for clean."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rbs.errors import RbsError
from rbs.restorers.diffusion import DELTA_SCALE, Diffusion
from rbs.tasks.diffusion import DiffusionTask

HALF = torch.full((4,), 0.5)


def net(**kw):
    return Diffusion(channels=[8, 16], groups=4, steps=4, tile=32, **kw)


def bars(rows=32, columns=32):
    truth = torch.full((1, 2, rows, columns), 2.0)
    truth[..., 4::8, :] = 12.0
    return truth


def test_training_restores_better_than_the_gaussian_it_starts_from():
    torch.manual_seed(0)
    truth, restorer = bars().expand(4, -1, -1, -1), net()
    optimizer = torch.optim.Adam(restorer.parameters(), lr=3e-3)
    rapid = torch.poisson(0.5 * truth) / 0.5
    with torch.no_grad():
        before = ((restorer(rapid, HALF) - truth) ** 2).mean()
    for _ in range(80):
        optimizer.zero_grad()
        restorer.denoising_error(torch.poisson(0.5 * truth) / 0.5, HALF, truth).backward()
        optimizer.step()
    with torch.no_grad():
        after = ((restorer(rapid, HALF) - truth) ** 2).mean()
    assert after < 0.5 * before


def test_untrained_its_error_is_the_power_of_what_it_shall_draw():
    """u, the correction of the Gaussian in square-root counts over 0.15: nothing is predicted yet."""
    truth = bars()
    restorer = net(sigma_px=0.0)
    error = restorer.denoising_error(4 * truth, HALF[:1], truth)
    # From 4 lambda to lambda: u = -sqrt(lambda) / 0.15, whose mean square is mean(lambda) / 0.15².
    assert error.item() == pytest.approx(truth.mean().item() / DELTA_SCALE**2, rel=1e-3)


def test_a_scan_larger_than_a_tile_is_restored_and_always_alike():
    torch.manual_seed(1)
    restorer = net().eval()
    torch.nn.init.normal_(restorer.head.weight, std=0.01)
    x = torch.poisson(bars(80, 48)) / 0.5
    with torch.no_grad():
        first, again = restorer(x, HALF[:1]), restorer(x, HALF[:1])
    assert first.shape == x.shape
    assert torch.equal(first, again)


def test_what_the_last_step_predicts_is_the_restoration():
    """A network that knows the clean scan draws it, whatever noise it begins with."""
    restorer = net().eval()
    x, truth = torch.full((1, 2, 16, 16), 4.0), 9.0
    with torch.no_grad():
        restorer.head.bias.fill_(np.sqrt(truth) - 2.0)
        restored = restorer(x, HALF[:1])
    torch.testing.assert_close(restored, torch.full_like(x, truth), rtol=1e-3, atol=1e-3)


def test_noisy_targets_are_refused(monkeypatch):
    monkeypatch.setattr(DiffusionTask, "datamodule", SimpleNamespace(pairs="split"))
    with pytest.raises(RbsError, match=r"noisy targets.*--data\.pairs expectation"):
        DiffusionTask(net()).on_fit_start()

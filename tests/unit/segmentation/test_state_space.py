"""Selective state spaces and the wavelet-Mamba block."""

import numpy as np
import pytest
import pywt
import torch

from rbs.segmentation.state_space import SelectiveScan, WaveletMamba, haar, inverse_haar, selective_scan


def step_by_step(x, log_decay, enter, leave):
    """The recurrence as it is written."""
    *lead, heads, steps, size = x.shape
    state = torch.zeros(*lead, heads, enter.shape[-1], size, dtype=x.dtype)
    found = []
    for t in range(steps):
        decay = log_decay[..., t].exp()[..., None, None]
        put = enter[..., None, t, :, None] * x[..., t, None, :]
        state = decay * state + put
        found.append((leave[..., None, t, :, None] * state).sum(dim=-2))
    return torch.stack(found, dim=-2)


def sequences(steps, decay, dtype=torch.float64):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, steps, 5, dtype=dtype)
    return x, -decay * torch.rand(2, 3, 4, steps, dtype=dtype), *torch.randn(2, 2, 3, steps, 6, dtype=dtype)


@pytest.mark.parametrize("steps", [1, 2, 7, 64])
@pytest.mark.parametrize("decay", [0.0, 0.1, 5.0])
def test_all_steps_at_once_are_the_recurrence(steps, decay):
    given = sequences(steps, decay)
    torch.testing.assert_close(selective_scan(*given), step_by_step(*given))


def test_a_constant_decay_is_a_geometric_series():
    steps, decay = 12, 0.7
    x = torch.ones(1, steps, 1).double()
    ones = torch.ones(steps, 1).double()
    found = selective_scan(x, torch.full((1, steps), decay).double().log(), ones, ones)
    n = torch.arange(1, steps + 1).double()
    torch.testing.assert_close(found[0, :, 0], (1 - decay**n) / (1 - decay))


def test_strong_decays_over_long_sequences_lose_nothing_in_single_precision():
    """The product of all decays is below the smallest float, and its inverse above the largest."""
    given = sequences(300, 20.0)
    assert given[1].sum(dim=-1).min() < -2000
    found = selective_scan(*(g.float() for g in given))
    torch.testing.assert_close(found.double(), step_by_step(*given), rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_the_recurrence():
    given = [g.requires_grad_() for g in sequences(9, 1.0)]
    ours = torch.autograd.grad(selective_scan(*given).square().sum(), given)
    theirs = torch.autograd.grad(step_by_step(*given).square().sum(), given)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_a_scan_looks_back_and_never_ahead():
    torch.manual_seed(0)
    scan, x = SelectiveScan(8), torch.randn(1, 20, 8)
    changed = x.clone()
    changed[:, 10] += 1
    apart = (scan(changed) - scan(x)).abs().amax(dim=(0, 2))
    assert apart[:10].max() == 0
    assert apart[10:].min() > 0


def test_channels_are_shared_by_heads():
    with pytest.raises(ValueError, match="6 channels are no multiple of 4 heads"):
        SelectiveScan(6)


def test_the_haar_transform_is_that_of_pywavelets_and_is_undone():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 12, 10)
    bands = haar(x)
    low, details = pywt.dwt2(x.numpy(), "haar")
    down, across, both = details  # differences of rows, of columns, of both
    expected = np.stack([low, across, down, both], axis=2)
    np.testing.assert_allclose(bands.numpy(), expected, atol=1e-6)
    torch.testing.assert_close(bands.square().sum(), x.square().sum())
    torch.testing.assert_close(inverse_haar(bands), x)


def trained(channels=8):
    torch.manual_seed(0)
    block = WaveletMamba(channels).eval()
    with torch.no_grad():
        for weight in block.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return block


def test_an_untrained_block_changes_nothing():
    x = torch.randn(1, 8, 12, 10)
    assert torch.equal(WaveletMamba(8)(x), x)


def test_a_pixel_reaches_the_whole_of_its_row_and_of_its_column():
    block, x = trained(), torch.zeros(1, 8, 40, 24)
    changed = x.clone()
    changed[:, :, 20, 12] += 5
    block.norm = torch.nn.Identity()  # which sees all pixels
    apart = (block(changed) - block(x)).abs().amax(dim=(0, 1))
    assert apart[20].min() > 0
    assert apart[:, 12].min() > 0
    assert apart[0, 0] == 0


def test_rows_and_columns_are_scanned_in_both_directions():
    """Without the normalisation, turned weights of a turned image give the turned answer."""
    block, x = trained(), torch.randn(1, 8, 12, 12)
    turned = trained()
    for last in (turned.near, turned.detail):
        last.weight.data = last.weight.data.transpose(2, 3)
    # Differences of columns become those of rows.
    for name in ("weight", "bias"):
        bands = getattr(turned.detail, name).data.unflatten(0, (3, -1))
        getattr(turned.detail, name).data = bands[[1, 0, 2]].flatten(0, 1)
    turned.scans = torch.nn.ModuleList(turned.scans[n] for n in (2, 3, 0, 1))
    torch.testing.assert_close(turned(x.transpose(2, 3)), block(x).transpose(2, 3), rtol=1e-4, atol=1e-4)
    mirrored = trained()
    for last in (mirrored.near, mirrored.detail):
        last.weight.data = last.weight.data.flip(3)
    sign = torch.tensor([-1.0, 1.0, -1.0]).repeat_interleave(8)
    mirrored.detail.bias.data = mirrored.detail.bias.data * sign
    mirrored.scans = torch.nn.ModuleList(mirrored.scans[n] for n in (1, 0, 2, 3))
    torch.testing.assert_close(mirrored(x.flip(3)), block(x).flip(3), rtol=1e-4, atol=1e-4)

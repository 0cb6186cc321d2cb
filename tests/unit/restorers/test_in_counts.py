"""The ablated domain: counts as they are. Not under the restorers' contract, which asks for square roots."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from rbs.restorers.in_counts import NAFNetInCounts
from rbs.restorers.nafnet import NAFNet
from rbs.weights import load_restorer, save_restorer

SMALL = {"width": 4, "enc_blocks": [1, 1], "middle_blocks": 1, "dec_blocks": [1, 1]}
HALF = torch.tensor([0.5])


def scan(rows=40, columns=31):
    return torch.poisson(torch.full((1, 2, rows, columns), 3.0), generator=torch.Generator().manual_seed(0))


def test_untrained_it_too_is_the_gaussian_filter():
    found = NAFNetInCounts(**SMALL, sigma_px=1.3)(scan(), HALF).detach().numpy()
    wanted = gaussian_filter(scan().numpy().astype(np.float64), (0, 0, 1.3, 1.3), mode="nearest")
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_it_sees_as_many_channels_and_has_as_many_parameters():
    counts, roots = NAFNetInCounts(**SMALL), NAFNet(**SMALL)
    assert counts.see(scan(), HALF.reshape(1, 1, 1, 1))[0].shape == (1, 5, 40, 31)
    assert sum(p.numel() for p in counts.parameters()) == sum(p.numel() for p in roots.parameters())


def test_what_it_sees_of_the_scan_is_linear_in_counts():
    see = NAFNetInCounts(**SMALL).see
    p = HALF.reshape(1, 1, 1, 1)
    torch.testing.assert_close(see(2 * scan(), p)[0][:, :4], 2 * see(scan(), p)[0][:, :4])


def test_counts_stay_above_zero_and_it_learns():
    torch.manual_seed(0)
    restorer = NAFNetInCounts(**SMALL)
    optimizer = torch.optim.Adam(restorer.parameters(), 1e-2)
    target = torch.full((1, 2, 40, 31), 9.0)  # the filter says 3: something is there to be learnt
    losses = []
    for _ in range(30):
        out = restorer(scan(), HALF)
        assert (out >= 0).all()
        losses.append(((out - target) ** 2).mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("views", [1, 2])
def test_it_is_written_and_read_as_itself(tmp_path, views):
    restorer = NAFNetInCounts(**SMALL).eval()
    save_restorer(tmp_path / "f1.safetensors", restorer, {})
    again = load_restorer(tmp_path / "f1.safetensors").restorer
    assert type(again) is NAFNetInCounts
    torch.testing.assert_close(again(scan()[:, :views], HALF), restorer(scan()[:, :views], HALF))

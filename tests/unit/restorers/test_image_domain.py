"""Image domains: their transforms. That restorers keep them is held by tests/contract."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.restorers.image_domain import DOMAINS
from rbs.restorers.nafnet import NAFNet

SMALL = {"width": 4, "enc_blocks": [1, 1], "middle_blocks": 1, "dec_blocks": [1, 1]}
HALF = torch.tensor([0.5])
P = HALF.reshape(1, 1, 1, 1)


def scan(rows=40, columns=31):
    return torch.poisson(torch.full((1, 2, rows, columns), 3.0), generator=torch.Generator().manual_seed(0))


def image(domain, value=0.4):
    return torch.full((2, DOMAINS[domain].channels, 6, 5), value)


@pytest.mark.parametrize("name", DOMAINS)
def test_network_input_has_the_stated_channels(name):
    domain = DOMAINS[name]
    given, start = domain.network_input(image(name), P.expand(2, -1, -1, -1), 1.5)
    assert given.shape == (2, domain.input_channels, 6, 5)
    assert start.shape == image(name).shape


@pytest.mark.parametrize("name", DOMAINS)
def test_the_inverse_gives_the_image_back(name):
    domain = DOMAINS[name]
    torch.testing.assert_close(domain.inverse(domain.forward(image(name))), image(name))


@pytest.mark.parametrize(
    ("name", "channels"), [("roots", {1, 2}), ("counts", {1, 2}), ("colours", {3})], ids=str
)
def test_what_fits(name, channels):
    assert {c for c in range(1, 8) if DOMAINS[name].fits(torch.zeros(1, c, 4, 4))} == channels
    assert not DOMAINS[name].fits(torch.zeros(max(channels), 4, 4))


def test_views_of_scans_are_channels_and_a_frame_is_one_view():
    x = torch.arange(2 * 2 * 3).reshape(2, 2, 3, 1)
    assert torch.equal(DOMAINS["roots"].views(x), x.reshape(4, 1, 3, 1))
    y = torch.rand(2, 3, 4, 4)
    assert torch.equal(DOMAINS["colours"].views(y), y)


# --- counts as they are, the ablated domain


def test_counts_untrained_are_the_gaussian_filter_too():
    found = NAFNet(**SMALL, sigma_px=1.3, domain="counts")(scan(), HALF).detach().numpy()
    wanted = gaussian_filter(scan().numpy().astype(np.float64), (0, 0, 1.3, 1.3), mode="nearest")
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_counts_take_as_many_parameters():
    counts, roots = NAFNet(**SMALL, domain="counts"), NAFNet(**SMALL)
    assert sum(p.numel() for p in counts.parameters()) == sum(p.numel() for p in roots.parameters())


def test_network_input_of_counts_is_linear_in_them():
    of = DOMAINS["counts"].network_input
    torch.testing.assert_close(of(2 * scan(), P, 1.5)[0][:, :4], 2 * of(scan(), P, 1.5)[0][:, :4])


def test_counts_stay_above_zero_and_it_learns():
    torch.manual_seed(0)
    restorer = NAFNet(**SMALL, domain="counts")
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


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_domain_is_written_and_read_with_the_weights(tmp_path, domain):
    restorer = NAFNet(**SMALL, domain=domain).eval()
    torch.nn.init.normal_(restorer.head.weight, std=0.1)
    save_restorer(tmp_path / "restorer.safetensors", restorer, {})
    again = load_restorer(tmp_path / "restorer.safetensors").restorer
    assert again.images is DOMAINS[domain]
    x, p = image(domain), HALF.expand(2)
    assert torch.equal(again(x, p), restorer(x, p))

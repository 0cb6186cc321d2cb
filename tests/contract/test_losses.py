"""The contract of `rbs.losses.Loss`, and closed forms. A new loss: add a line to LOSSES."""

import numpy as np
import pytest
import torch
from scipy.stats import poisson

from rbs.distillation.cascade import Cascade, CascadeOutput
from rbs.distillation.objective import cascade_losses
from rbs.losses import Charbonnier, Loss, PoissonDeviance, RootCharbonnier, SquaredError
from rbs.restorers.dncnn import DnCNN
from rbs.scans.registration import Motion
from rbs.scans.registration import warp as warp_by_splines
from rbs.utils.image_ops import warp

LOSSES = [
    PoissonDeviance(weight=0.5),
    RootCharbonnier(weight=2.0),
    SquaredError(weight=0.1),
    Charbonnier(0.3),
]
ONE, HALF = torch.ones(1), torch.tensor([0.5])


@pytest.fixture(params=LOSSES, ids=lambda loss: type(loss).__name__)
def loss(request):
    return request.param


def test_a_scalar_with_finite_gradients_even_where_nothing_is_expected(loss):
    estimate = torch.zeros(2, 2, 8, 8, requires_grad=True)
    target = torch.poisson(torch.ones(2, 2, 8, 8))
    value = loss(estimate, target, HALF.expand(2))
    value.backward()
    assert value.shape == ()
    assert value > 0
    assert torch.isfinite(estimate.grad).all()


def test_it_is_least_where_the_estimate_predicts_the_target(loss):
    target = torch.full((1, 1, 4, 4), 6.0)
    values = [loss(target / 0.5 * factor, target, HALF) for factor in (0.8, 1.0, 1.25)]
    assert values[1] < min(values[0], values[2])


def test_spec_builds_it_again(loss):
    spec = loss.spec()
    assert type(loss)(**spec["init_args"]).spec() == spec


def test_every_loss_of_the_package_is_under_contract():
    assert set(Loss.__subclasses__()) == {type(loss) for loss in LOSSES}


def test_half_deviance_is_the_likelihood_ratio_of_scipy():
    rng = np.random.default_rng(0)
    estimate = rng.uniform(0.5, 30, (1, 2, 16, 16))
    target = rng.poisson(0.7 * estimate)
    expected = np.mean(poisson.logpmf(target, target) - poisson.logpmf(target, 0.7 * estimate))
    ours = PoissonDeviance(epsilon=1e-9)(
        torch.tensor(estimate), torch.tensor(target).double(), torch.tensor([0.7])
    )
    assert ours.item() == pytest.approx(expected, rel=1e-6)
    usual = PoissonDeviance()(torch.tensor(estimate), torch.tensor(target).double(), torch.tensor([0.7]))
    assert usual.item() == pytest.approx(expected, rel=0.01)


def test_half_deviance_of_a_perfect_estimate_is_zero_not_nan():
    target = torch.tensor([0.0, 0.0, 1.0, 500.0]).view(1, 1, 2, 2)
    assert PoissonDeviance()(target / 0.5, target, HALF).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("expectation", [0.02, 3.0])
def test_the_deviance_is_least_in_expectation_at_the_truth(expectation):
    """Averaged over all outcomes by their probability: the expectation, not shifted by epsilon."""
    outcomes = np.arange(40)
    weights = torch.tensor(poisson.pmf(outcomes, 0.5 * expectation))
    grid = torch.linspace(0.5, 1.5, 201).double() * expectation
    curve = [
        sum(
            w
            * PoissonDeviance()(
                i.view(1, 1, 1, 1), torch.tensor(float(n)).double().view(1, 1, 1, 1), HALF.double()
            )
            for n, w in zip(outcomes, weights, strict=True)
        )
        for i in grid
    ]
    assert grid[int(torch.stack(curve).argmin())].item() == pytest.approx(expectation, rel=0.006)


def test_squared_error_is_numpys_at_standard_scale():
    rng = np.random.default_rng(1)
    estimate, target = rng.uniform(0.5, 30, (2, 1, 8, 8)), rng.poisson(3, (2, 1, 8, 8)).astype(float)
    q = np.array([0.25, 1.0])
    found = SquaredError()(*map(torch.from_numpy, (estimate, target, q)))
    assert found.item() == pytest.approx(np.mean((estimate - target / q[:, None, None, None]) ** 2))


def test_terms_are_named_and_sum_up_by_weight():
    torch.manual_seed(0)
    cascade = Cascade(DnCNN(2, 4), DnCNN(2, 4, sigma_px=0.0))
    x = torch.poisson(torch.full((1, 2, 8, 8), 4.0))
    out = cascade(x, HALF)
    terms = cascade_losses(cascade, out, x, ONE, losses=LOSSES, skd_weight=1, scm_weight=1)
    names = ("rec", "RootCharbonnier", "SquaredError", "Charbonnier")
    assert list(terms) == [*(f"{name}1" for name in names), *(f"{name}2" for name in names), "total"]
    by_hand = sum(loss.weight * (terms[f"{loss.name}1"] + terms[f"{loss.name}2"]) for loss in LOSSES)
    torch.testing.assert_close(terms["total"], by_hand)


def test_laying_an_estimate_on_its_target_moves_it_and_no_more():
    estimate = torch.rand(2, 2, 12, 10) + 0.1
    shift = torch.tensor([2.0, -3.0]).reshape(1, 2, 1, 1).expand(2, 2, 12, 10)  # what is at x lies at x + u
    moved = warp(estimate, shift)
    torch.testing.assert_close(moved[..., :-2, 3:], estimate[..., 2:, :-3], rtol=0, atol=1e-5)
    torch.testing.assert_close(warp(estimate, 0 * shift), estimate, rtol=0, atol=1e-5)


def test_it_agrees_with_the_spline_that_evaluation_uses():
    z, x = np.mgrid[:40, :30]
    image = 5 * np.exp(-(((z - 20) / 6.0) ** 2 + ((x - 14) / 4.0) ** 2) / 2)[None]
    motion = Motion("rigid", (1.3, -2.4), 0.05, (20.0, 15.0), np.zeros((2, 0, 0)), 0.1, (9.0, 0.0))
    u = torch.from_numpy(motion.field((40, 30), (1.0, 1.0)))[None]
    found = warp(torch.from_numpy(image)[None], u)[0].numpy()
    wanted = warp_by_splines(image, motion, (1.0, 1.0))
    np.testing.assert_allclose(found, wanted, atol=0.05)
    assert np.abs(image - wanted).max() > 1.5


@pytest.mark.parametrize("moved", [True, False])
def test_a_moved_target_is_met_by_the_estimate_of_where_it_was(moved):
    cascade = Cascade(DnCNN(depth=3, width=4))
    x = 20 * torch.rand(2, 2, 24, 20)
    estimate = x.clone().requires_grad_()
    out = CascadeOutput(estimate, x)
    target = torch.roll(x, (-3, 2), (-2, -1))
    u = torch.tensor([3.0, -2.0]).reshape(1, 2, 1, 1).expand(2, 2, 24, 20) if moved else None
    terms = cascade_losses(
        cascade,
        out,
        target,
        torch.ones(2),
        losses=[PoissonDeviance()],
        skd_weight=0,
        scm_weight=0,
        displacement=u,
    )
    terms["total"].backward()
    assert torch.isfinite(estimate.grad).all()
    if moved:
        assert terms["rec1"] < 1e-6
    else:
        assert terms["rec1"] > 1


def test_charbonnier_is_the_absolute_difference_but_for_its_softness():
    estimate, target = torch.rand(2, 2, 3, 8, 8)
    found = Charbonnier(softness=1e-6)(estimate, target, ONE.expand(2))
    torch.testing.assert_close(found, (estimate - target).abs().mean(), rtol=1e-4, atol=1e-6)
    assert Charbonnier(softness=0.3)(target, target, ONE.expand(2)).item() == pytest.approx(0.3)

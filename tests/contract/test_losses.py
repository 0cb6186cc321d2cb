"""The contract of `rbs.losses.Loss`, and closed forms. A new loss: add a line to LOSSES."""

import numpy as np
import pytest
import torch
from scipy.stats import poisson

from rbs.distillation.balance import GradientBalance
from rbs.distillation.cascade import Cascade, CascadeOutput
from rbs.distillation.objective import cascade_losses
from rbs.errors import RbsError
from rbs.losses import Charbonnier, Loss, PoissonDeviance, RootCharbonnier, SquaredError
from rbs.losses import observer as observers
from rbs.losses.observer import ObserverLoss
from rbs.losses.regional import LocalMaxima, LocalMeans, RegionDeviance
from rbs.restorers.dncnn import DnCNN
from rbs.scans.registration import Motion
from rbs.scans.registration import warp as warp_by_splines
from rbs.utils.image_ops import warp

LOSSES = [
    PoissonDeviance(weight=0.5),
    RootCharbonnier(weight=2.0),
    SquaredError(weight=0.1),
    Charbonnier(0.3),
    LocalMeans(0.2, sides=(2, 4)),
    LocalMaxima(0.7),
    RegionDeviance(0.4),
    ObserverLoss(1.5),
]
ONE, HALF = torch.ones(1), torch.tensor([0.5])


def facts_of(images):
    """Batch entries that losses use besides."""
    labels = torch.zeros(images.shape, dtype=torch.int64)
    labels[..., 1:3, :2] = 7
    return {
        "labels": labels,
        "places": torch.tensor([[2, 1, 1], [3, 3, 0], [-1, -1, -1]]).repeat(len(images), 1, 1),
    }


def value_of(loss, estimate, target, exposure):
    facts = facts_of(target)
    return loss(estimate, target, exposure, **{name: facts[name] for name in loss.uses if name in facts})


@pytest.fixture(params=LOSSES, ids=lambda loss: type(loss).__name__)
def loss(request):
    return request.param


def test_a_scalar_with_finite_gradients_even_where_nothing_is_expected(loss):
    estimate = torch.zeros(2, 2, 8, 8, requires_grad=True)
    target = torch.poisson(torch.ones(2, 2, 8, 8))
    value = value_of(loss, estimate, target, HALF.expand(2))
    value.backward()
    assert value.shape == ()
    assert value > 0
    assert torch.isfinite(estimate.grad).all()


def test_it_is_least_where_the_estimate_predicts_the_target(loss):
    target = torch.full((1, 1, 4, 4), 6.0)
    values = [value_of(loss, target / 0.5 * factor, target, HALF) for factor in (0.8, 1.0, 1.25)]
    assert values[1] < min(values[0], values[2])


def test_spec_builds_it_again(loss):
    spec = loss.spec()
    assert type(loss)(**spec["init_args"]).spec() == spec


def test_every_loss_of_the_package_is_under_contract():
    assert {loss for loss in Loss.__subclasses__() if loss.__module__.startswith("rbs.")} == {
        type(loss) for loss in LOSSES
    }


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
    terms = cascade_losses(
        cascade, out, x, ONE, losses=LOSSES, balance=GradientBalance({}), facts=facts_of(x)
    )
    names = ["rec", *(type(loss).__name__ for loss in LOSSES[1:])]
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
        losses=[PoissonDeviance(), RegionDeviance()],
        balance=GradientBalance({}),
        displacement=u,
        facts={"labels": torch.ones(target.shape, dtype=torch.int64)},
    )
    torch.testing.assert_close(terms["RegionDeviance1"], terms["rec1"])
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


@pytest.mark.parametrize("loss", [LocalMeans(sides=(4, 8)), RegionDeviance(), PoissonDeviance()], ids=str)
def test_noise_of_the_target_moves_no_minimum(loss):
    """Of a factor on the expectation, against many noisy targets at once."""
    rng = np.random.default_rng(3)
    truth = torch.from_numpy(rng.gamma(1.0, 2.0, (1, 1, 16, 16))).expand(300, 2, 16, 16)
    target = torch.poisson(0.5 * truth, generator=torch.Generator().manual_seed(0))
    factors = torch.linspace(0.9, 1.1, 21).tolist()
    curve = [float(value_of(loss, f * truth, target, HALF.double().expand(300))) for f in factors]
    assert factors[int(np.argmin(curve))] == pytest.approx(1, abs=0.011)


def test_local_means_are_of_blocks_and_see_no_order_within():
    rng = np.random.default_rng(4)
    estimate, target = rng.uniform(0.5, 9, (1, 1, 12, 8)), rng.poisson(3, (1, 1, 12, 8)).astype(float)
    blocks = [(slice(0, 8), slice(0, 8)), (slice(8, 12), slice(0, 8))]  # the second is cut off
    sums = [[image[0, 0][block].sum() for block in blocks] for image in (0.5 * estimate, target)]
    wanted = np.mean([m - t + t * np.log(t / m) for m, t in zip(*sums, strict=True)])
    loss = LocalMeans(sides=(8,), epsilon=1e-9)
    tensors = [torch.from_numpy(image) for image in (estimate, target)]
    assert loss(*tensors, HALF.double()).item() == pytest.approx(wanted, rel=1e-5)
    shuffled = tensors[0].clone()
    shuffled[..., :8, :] = shuffled[..., :8, :].flip(-1, -2)
    torch.testing.assert_close(loss(shuffled, tensors[1], HALF.double()), loss(*tensors, HALF.double()))


def test_local_maxima_see_the_brightest_pixel_of_a_block_alone():
    estimate = torch.full((1, 1, 16, 8), 2.0)
    estimate[0, 0, 3, 3] = 5.0
    estimate[0, 0, 12, 4] = 4.0
    target = estimate.clone()
    target[0, 0, 3, 3] = 9.0
    estimate.requires_grad_()
    value = LocalMaxima(sides=(8,))(estimate, target, ONE)
    value.backward()
    assert value.item() == pytest.approx((9.375**0.5 - 5.375**0.5) / 2)
    assert estimate.grad.nonzero().tolist() == [[0, 0, 3, 3]]
    assert estimate.grad[0, 0, 3, 3] < 0
    torch.testing.assert_close(LocalMaxima(sides=(8,))(estimate, target / 2, HALF), value)


def test_a_small_region_weighs_as_much_as_a_large_one():
    rng = np.random.default_rng(5)
    estimate, target = rng.uniform(0.5, 9, (2, 1, 8, 8)), rng.poisson(3, (2, 1, 8, 8)).astype(float)
    labels = np.zeros((2, 1, 8, 8), int)
    labels[0, 0, 2, 2:5], labels[1, 0, 5:, :] = 7, 3
    pixels = [
        PoissonDeviance()(*(torch.tensor(a).view(1, 1, 1, 1) for a in pair), ONE.double()).item()
        for pair in zip(estimate.ravel(), target.ravel(), strict=True)
    ]
    wanted = np.mean([np.mean(np.array(pixels)[labels.ravel() == label]) for label in (0, 3, 7)])
    given = [torch.from_numpy(array) for array in (estimate, target, np.ones(2))]
    found = RegionDeviance()(*given, labels=torch.from_numpy(labels))
    assert found.item() == pytest.approx(wanted)


def test_a_region_of_a_cut_target_is_censored():
    target, labels, cut = (
        torch.zeros(1, 1, 4, 4),
        torch.zeros(1, 1, 4, 4, dtype=torch.int64),
        torch.tensor([2]),
    )
    found = RegionDeviance()(target + 1, target, ONE, cut=cut, labels=labels)
    torch.testing.assert_close(found, PoissonDeviance()(target + 1, target, ONE, cut=cut))


def test_channel_outputs_are_numpys():
    rng = np.random.default_rng(6)
    estimate, target = rng.uniform(0, 9, (2, 2, 40, 48)), rng.uniform(0, 9, (2, 2, 40, 48))
    places = np.array([[[20, 24, 1], [3, 47, 0], [-1, -1, -1]], [[39, 0, 1], [17, 30, 0], [25, 20, 0]]])
    loss, half = ObserverLoss(), observers.WINDOW // 2
    channels = loss.channels.double().numpy()
    difference = np.sqrt(estimate + 0.375) - np.sqrt(target + 0.375)
    difference = np.pad(difference, ((0, 0), (0, 0), (half, half), (half, half)))
    squares = []
    for sample, row, column in [(s, r, c) for s in range(2) for r, c, known in places[s] if known >= 0]:
        windows = difference[sample, :, row : row + 2 * half + 1, column : column + 2 * half + 1]
        squares += [((channels @ window.ravel()) ** 2).sum() for window in windows]
    given = [torch.from_numpy(array) for array in (estimate, target, np.ones(2), places)]
    assert len(squares) == 10
    assert loss(*given).item() == pytest.approx(np.mean(squares))
    nowhere = torch.full((2, 3, 3), -1)
    assert loss(*given[:3], places=nowhere).item() == 0


def test_a_step_down_the_observers_loss_raises_a_flattened_focus():
    y, x = np.mgrid[:96, :96]
    focus = torch.from_numpy(np.exp(-((y - 40) ** 2 + (x - 50) ** 2) / (2 * 2.0**2))).float()[None, None]
    target = 5 + 4 * focus
    estimate = (5 + 1 * focus).requires_grad_()
    loss, places = ObserverLoss(), torch.tensor([[[40, 50, 1], [70, 20, 0]]])
    value = loss(estimate, target, ONE, places=places)
    (gradient,) = torch.autograd.grad(value, estimate)
    assert -gradient[0, 0, 40, 50] == (-gradient).max() > 0
    assert gradient[0, 0, 60:80, 10:30].abs().max() == 0, "an empty place that is right stays as it is"
    assert loss(estimate - 0.5 * gradient / gradient.abs().max(), target, ONE, places=places) < value


@pytest.mark.parametrize(
    ("loss", "match"), [(RegionDeviance(), "labelled regions"), (ObserverLoss(), "needs places")]
)
def test_what_a_loss_needs_and_a_batch_lacks_is_said(loss, match):
    with pytest.raises(RbsError, match=match):
        loss(ONE.view(1, 1, 1, 1), ONE.view(1, 1, 1, 1), ONE)

import pytest
import torch

from rbs.distillation.cascade import Cascade
from rbs.distillation.objective import cascade_losses
from rbs.distillation.scm import SCM
from rbs.distillation.skd import SKD
from rbs.distillation.spi import SPI
from rbs.losses import PoissonDeviance
from rbs.restorers.dncnn import DnCNN
from rbs.segmentation.prior import SemanticPrior

X, HALF = torch.poisson(torch.full((2, 2, 32, 16), 3.0)), torch.tensor([0.5, 0.5])
PRIOR = SemanticPrior(torch.randn(2, 2, 6, 4, 2), torch.rand(2, 2, 9, 16, 8), 8, 2)


def make(**parts):
    torch.manual_seed(0)
    cascade = Cascade(DnCNN(2, 4), DnCNN(2, 6, sigma_px=0.0), **parts)
    for restorer in (cascade.f1, cascade.f2):
        torch.nn.init.normal_(restorer.head.weight, std=0.05)
    return cascade


def losses(cascade, out, **weights):
    weights = {"skd_weight": 1.0, "scm_weight": 1.0} | weights
    pooled = torch.nn.AvgPool3d((1, 8, 8))
    analyser = lambda counts: torch.stack([pooled(counts), pooled(counts**2)], dim=2)  # noqa: E731
    return cascade_losses(
        cascade, out, X, torch.ones(2), losses=[PoissonDeviance()], analyser=analyser, **weights
    )


def test_alone_it_is_its_first_restorer():
    cascade = Cascade(DnCNN(2, 4))
    out = cascade(X, HALF)
    assert torch.equal(out.i1, cascade.f1(X, HALF))
    assert out.i2 is None
    assert set(losses(cascade, out)) == {"rec1", "total"}


def test_without_spi_the_second_restores_the_first_and_needs_no_prior():
    cascade = make()
    out = cascade(X, HALF)
    assert torch.equal(out.i2, cascade.f2(cascade.f1(X, HALF), HALF))


def test_an_untrained_cascade_adds_nothing_to_the_first():
    cascade = Cascade(DnCNN(2, 4), DnCNN(2, 4, sigma_px=0.0), spi=SPI(6))
    out = cascade(X, HALF, PRIOR)
    torch.testing.assert_close(out.i2, out.i1, atol=1e-5, rtol=1e-5)


def test_off_is_absent_and_costs_nothing():
    out = make()(X, HALF)
    terms = losses(make(), out)
    assert set(terms) == {"rec1", "rec2", "total"}
    torch.testing.assert_close(terms["total"], terms["rec1"] + terms["rec2"])


@pytest.mark.parametrize("name", ["skd", "scm"])
def test_weights_scale_the_terms(name):
    cascade = make(skd=SKD(4, 6), scm=SCM())
    out = cascade(X, HALF, PRIOR)
    zero, two = (losses(cascade, out, **{f"{name}_weight": w}) for w in (0.0, 2.0))
    assert zero[name] > 0
    torch.testing.assert_close(two["total"] - zero["total"], 2 * zero[name])


def test_a_prior_may_be_made_from_the_first_restoration():
    cascade, seen = make(spi=SPI(6)), []
    out = cascade(X, HALF, lambda i1: seen.append(i1) or PRIOR)
    assert torch.equal(seen[0], out.i1)
    assert not seen[0].requires_grad
    assert out.prior is PRIOR


def test_spi_without_a_prior_is_refused():
    with pytest.raises(ValueError, match="needs a prior"):
        make(spi=SPI(6))(X, HALF)


def test_the_second_likelihood_teaches_the_first_restorer():
    cascade = make()
    losses(cascade, cascade(X, HALF))["rec2"].backward()
    assert all(p.grad.abs().sum() > 0 for p in cascade.f1.parameters())


@pytest.mark.parametrize(
    "parts", [{}, {"spi"}, {"skd"}, {"scm"}, {"spi", "skd", "scm"}], ids=lambda parts: "+".join(sorted(parts))
)
def test_every_parameter_is_used_whatever_is_off(parts):
    """Unused parameters stop distributed training."""
    modules = {"spi": SPI(6), "skd": SKD(4, 6), "scm": SCM()}
    cascade = make(**{name: modules[name] for name in parts})
    losses(cascade, cascade(X, HALF, PRIOR))["total"].backward()
    assert [n for n, p in cascade.named_parameters() if p.grad is None] == []

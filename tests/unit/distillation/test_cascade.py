"""What each part of the cascade can change, and which gradients reach it when."""

import pytest
import torch

from rbs.distillation.balance import GradientBalance
from rbs.distillation.cascade import Cascade, load_cascade, save_cascade, second_restorer
from rbs.distillation.objective import cascade_losses
from rbs.distillation.scm import SCM
from rbs.distillation.skd import SKD
from rbs.distillation.spi import SPI
from rbs.errors import CheckpointError, RbsError
from rbs.losses import PoissonDeviance
from rbs.restorers.dncnn import DnCNN
from rbs.segmentation.prior import SemanticPrior

X, HALF = torch.poisson(torch.full((2, 2, 32, 16), 3.0)), torch.tensor([0.5, 0.5])
PRIOR = SemanticPrior(torch.randn(2, 2, 6, 4, 2), torch.rand(2, 2, 9, 16, 8), 8, 2)
OTHER = SemanticPrior(PRIOR.embedding, 1 - PRIOR.masks, 8, 2)


def trained():
    torch.manual_seed(0)
    f1 = DnCNN(3, 4)
    torch.nn.init.normal_(f1.head.weight, std=0.05)
    return f1


def make(spi=None, sees="i1", **parts):
    """A cascade as stage 2 begins it: f2 from the weights of a trained f1."""
    f1 = trained()
    f2 = second_restorer(f1, spi, sees)
    f2.start_from(f1, head=sees != "i1")
    return Cascade(f1, f2, spi, sees=sees, **parts)


def losses(cascade, out, **shares):
    pooled = torch.nn.AvgPool3d((1, 8, 8))
    analyser = lambda counts: torch.stack([pooled(counts), pooled(counts**2)], dim=2)  # noqa: E731
    balance = GradientBalance({"skd": 1.0, "scm": 1.0} | shares)
    return cascade_losses(
        cascade, out, X, torch.ones(2), losses=[PoissonDeviance()], analyser=analyser, balance=balance
    )


def gradients(module):
    return {n for n, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_alone_it_is_its_first_restorer():
    cascade = Cascade(trained())
    out = cascade(X, HALF)
    assert torch.equal(out.i1, cascade.f1(X, HALF))
    assert out.i2 is None
    assert set(losses(cascade, out)) == {"rec1", "total"}


@pytest.mark.parametrize("sees", ["i1", "rapid"])
@pytest.mark.parametrize("dim", [None, 0, 6])
def test_it_begins_with_nothing_to_add_to_the_first(sees, dim):
    out = make(None if dim is None else SPI(dim), sees)(X, HALF, PRIOR)
    torch.testing.assert_close(out.i2, out.i1, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("sees", "steps"), [("rapid", 1), ("i1", 2)])
def test_a_mask_changes_the_second_restoration_after_so_many_steps(sees, steps):
    """The head of an f2 of I1 starts at zero, and lets masks through after the first step only."""
    cascade = make(SPI(0), sees, trains="f2")
    optimizer = torch.optim.SGD(cascade.f2.parameters(), lr=0.5)
    changed = []
    for _ in range(steps + 1):
        with torch.no_grad():
            a, b = (cascade(X, HALF, prior).i2 for prior in (PRIOR, OTHER))
        changed.append(not torch.equal(a, b))
        optimizer.zero_grad()
        losses(cascade, cascade(X, HALF, PRIOR))["total"].backward()
        optimizer.step()
    assert changed == [False] * steps + [True]


@pytest.mark.parametrize(("sees", "branch", "steps"), [
    ("rapid", "f2", 1), ("rapid", "spi", 2), ("i1", "f2", 2), ("i1", "spi", 3),
])  # fmt: skip
def test_a_gradient_reaches_each_branch_at_this_step(sees, branch, steps):
    """Columns of the condition in f2's first convolution, and the projection of the embedding."""
    cascade = make(SPI(6), sees, trains="f2")
    optimizer = torch.optim.SGD([p for p in cascade.parameters() if p.requires_grad], lr=0.5)
    reached = 0
    for step in range(1, 5):
        optimizer.zero_grad()
        losses(cascade, cascade(X, HALF, PRIOR))["total"].backward()
        columns = cascade.f2.backbone.in_conv.weight.grad[:, -cascade.spi.channels :]
        gradient = {"f2": columns, "spi": cascade.spi.embedding.weight.grad}[branch]
        if gradient.abs().sum() > 0:
            reached = step
            break
        optimizer.step()
    assert reached == steps


def test_without_spi_the_second_restores_the_first_and_needs_no_prior():
    cascade = make()
    out = cascade(X, HALF)
    assert torch.equal(out.i2, cascade.f2(cascade.f1(X, HALF), HALF))


def test_off_is_absent_and_costs_nothing():
    cascade = make()
    terms = losses(cascade, cascade(X, HALF))
    assert set(terms) == {"rec1", "rec2", "total"}
    torch.testing.assert_close(terms["total"], terms["rec1"] + terms["rec2"])


@pytest.mark.parametrize("name", ["skd", "scm"])
def test_shares_scale_the_terms(name):
    cascade = make(SPI(6), skd=SKD(4, 4), scm=SCM())
    torch.nn.init.normal_(cascade.f2.head.weight, std=0.05)
    out = cascade(X, HALF, PRIOR)
    zero, one, two = (losses(cascade, out, **{name: share})["total"] for share in (0.0, 1.0, 2.0))
    assert one != zero
    torch.testing.assert_close(two - zero, 2 * (one - zero))


def test_a_prior_may_be_made_from_the_first_restoration():
    cascade, seen = make(SPI(6)), []
    out = cascade(X, HALF, lambda i1: seen.append(i1) or PRIOR)
    assert torch.equal(seen[0], out.i1)
    assert not seen[0].requires_grad
    assert out.prior is PRIOR


def test_spi_without_a_prior_is_refused():
    with pytest.raises(ValueError, match="needs a prior"):
        make(SPI(6))(X, HALF)


def test_trained_together_the_second_likelihood_teaches_the_first_restorer():
    cascade = make()
    losses(cascade, cascade(X, HALF))["rec2"].backward()
    assert gradients(cascade.f1)


@pytest.mark.parametrize(("trains", "moved", "frozen"), [("f2", "f2", "f1"), ("f1", "f1", "f2")])
def test_the_frozen_restorer_gets_no_gradient(trains, moved, frozen):
    parts = {"skd": SKD(4, 4), "scm": SCM()} if trains == "f1" else {}
    cascade = make(SPI(6), "rapid", trains=trains, **parts)
    terms = losses(cascade, cascade(X, HALF, PRIOR))
    terms["total"].backward()
    assert gradients(getattr(cascade, moved))
    assert not gradients(getattr(cascade, frozen))
    assert {"rec1", "rec2"} & set(terms) == {f"rec{moved[1]}"}


def test_a_second_restorer_of_the_standard_scan_is_the_first_one_with_more_counts():
    cascade = make(sees="standard", trains="f1", skd=SKD(4, 4))
    standard, one = torch.poisson(torch.full((2, 2, 32, 16), 3.0)), torch.ones(2)
    out = cascade(X, HALF, None, (standard, one))
    assert torch.equal(out.i2, cascade.f1(standard, one))
    assert cascade(X, HALF).i2 is None


@pytest.mark.parametrize(
    "parts", [{}, {"spi"}, {"skd"}, {"scm"}, {"spi", "skd", "scm"}], ids=lambda parts: "+".join(sorted(parts))
)
@pytest.mark.parametrize("sees", ["i1", "rapid"])
def test_every_parameter_is_used_whatever_is_off(parts, sees):
    """Unused parameters stop distributed training."""
    modules = {"spi": SPI(6), "skd": SKD(4, 4), "scm": SCM()}
    cascade = make(sees=sees, **{name: modules[name] for name in parts})
    losses(cascade, cascade(X, HALF, PRIOR))["total"].backward()
    assert [n for n, p in cascade.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("sees", ["i1", "rapid"])
def test_a_file_restores_the_same(sees, tmp_path):
    cascade = make(SPI(6), sees)
    torch.nn.init.normal_(cascade.f2.head.weight, std=0.05)
    save_cascade(tmp_path / "cascade.safetensors", cascade, {"steps": 3})
    again, provenance = load_cascade(tmp_path / "cascade.safetensors", cascade.f1)
    assert provenance == {"steps": 3}
    assert torch.equal(again(X, HALF, PRIOR).i2, cascade.eval()(X, HALF, PRIOR).i2)


def test_a_restorer_that_takes_no_condition_is_named():
    class Plain(DnCNN):
        def __init__(self, depth: int = 2, width: int = 4) -> None:
            super().__init__(depth, width)

    assert second_restorer(Plain(), None, "standard").spec() == Plain().spec()
    with pytest.raises(RbsError, match=r"Plain has no argument condition_channels, .* --model\.spi false"):
        second_restorer(trained(), SPI(0), "i1", Plain())


def test_a_file_whose_condition_nothing_makes_is_refused(tmp_path):
    cascade = make(SPI(6))
    cascade.spi = None
    save_cascade(tmp_path / "cascade.safetensors", cascade, {})
    with pytest.raises(CheckpointError, match="a condition of 34 channels, which nothing makes"):
        load_cascade(tmp_path / "cascade.safetensors", cascade.f1)

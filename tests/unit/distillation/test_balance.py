import pytest
import torch

from rbs.distillation import balance as module
from rbs.distillation.balance import GradientBalance, gradient_norm
from rbs.errors import RbsError

FEATURES = torch.zeros(1, 4, 5, 5, requires_grad=True)


def loss(slope):
    """Of gradient `slope` everywhere: its norm is 10 slope."""
    return slope * FEATURES.sum()


def test_each_gradient_gets_its_share_of_the_reconstructions():
    balance = GradientBalance({"skd": 0.5, "scm": 0.1})
    terms = {"skd": loss(4.0), "scm": loss(0.1)}
    weights = balance(terms, loss(2.0), FEATURES)
    assert {name: w.item() for name, w in weights.items()} == pytest.approx({"skd": 0.25, "scm": 2.0})
    assert {k: v.item() for k, v in balance.norms().items()} == pytest.approx(
        {"rec": 20, "skd": 40, "scm": 1}
    )
    for name, share in (("skd", 0.5), ("scm", 0.1)):
        assert gradient_norm(weights[name] * terms[name], FEATURES).item() == pytest.approx(share * 20)
    assert not any(weight.requires_grad for weight in weights.values())


def test_norms_are_averaged_over_measurements_and_measured_every_few_steps():
    balance = GradientBalance({"skd": 1.0}, every=2, decay=0.9)
    for slope in (1.0, 50.0, 2.0, 50.0):
        balance({"skd": loss(slope)}, loss(1.0), FEATURES)
    assert balance.norms()["skd"].item() == pytest.approx(0.9 * 10 + 0.1 * 20)
    balance.eval()({"skd": loss(7.0)}, loss(1.0), FEATURES)
    assert balance.norms()["skd"].item() == pytest.approx(11)
    assert balance.steps.item() == 4


def test_a_term_without_gradient_has_no_weight_and_later_a_limited_one():
    balance = GradientBalance({"skd": 0.5, "scm": 0.5}, every=1)
    terms = {"skd": loss(0.0), "scm": torch.zeros(())}
    assert [w.item() for w in balance(terms, loss(1.0), FEATURES).values()] == [0, 0]
    assert balance({"skd": loss(1e-6)}, loss(1.0), FEATURES)["skd"].item() == pytest.approx(500)
    balance({"skd": loss(float("nan"))}, loss(1.0), FEATURES)
    assert balance.norms()["skd"].item() == pytest.approx(1e-5)


def test_a_training_goes_on_with_its_weights_from_a_checkpoint():
    first, second = (GradientBalance({"skd": 0.5}) for _ in range(2))
    expected = first({"skd": loss(4.0)}, loss(2.0), FEATURES)
    second.load_state_dict(first.state_dict())
    assert second({"skd": loss(9.0)}, loss(1.0), FEATURES) == expected


def test_all_ranks_use_the_root_mean_square_of_their_norms(monkeypatch):
    """The other of two ranks has gradients of three times the norm."""
    monkeypatch.setattr(module.torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(module.torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(module.torch.distributed, "all_reduce", lambda squares: squares.mul_(1 + 3**2))
    balance = GradientBalance({"skd": 1.0})
    balance({"skd": loss(3.0)}, loss(1.0), FEATURES)
    assert balance.norms()["skd"].item() == pytest.approx(30 * ((1 + 3**2) / 2) ** 0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_gradients_are_measured_in_half_precision(dtype):
    features = torch.ones(2, 8, 64, 64, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        small = 1e-4 * (features.float() ** 2).mean()
    expected = 2e-4 * features.numel() ** -0.5
    assert gradient_norm(small, features).item() == pytest.approx(expected, rel=0.01)
    small.backward()  # the graph is still there


def test_arguments_out_of_range_are_refused():
    for arguments in ({"shares": {"skd": -1.0}}, {"shares": {}, "every": 0}, {"shares": {}, "decay": 1.0}):
        with pytest.raises(RbsError, match="share of"):
            GradientBalance(**arguments)

"""NAFNet x2 with semantics: each part has an effect of its own, and facts are never guessed."""

import pytest
import torch

from rbs.errors import CheckpointError
from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.restorers.dynamic_convolution import DynamicConvolution
from rbs.restorers.polarised_attention import PolarisedAttention
from rbs.restorers.semantic_features import SemanticNetwork, save_semantic_network
from rbs.restorers.semantic_nafnet import SemanticNAFNet
from rbs.restorers.semantic_transfer import SemanticTransfer
from rbs.scans.facts import Facts

SEMANTIC = {"channels": [4, 6, 8], "blocks": [1, 1, 1]}
SIZES = {"width": 4, "enc_blocks": [1, 1], "middle_blocks": 1, "dec_blocks": [1, 1]}
PARTS = ("transfer", "dynamic", "attention")
HALF = torch.tensor([0.5])


def net(*parts: str, semantic=SEMANTIC) -> SemanticNAFNet:
    """A restorer of random weights that all matter."""
    torch.manual_seed(0)
    toggles = {part: part in parts for part in PARTS}
    restorer = SemanticNAFNet(semantic, **toggles, **SIZES)
    for parameter in restorer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return restorer.eval()


def scan(batch: int = 1) -> torch.Tensor:
    return (
        torch.poisson(torch.full((batch, 2, 21, 14), 4.0), generator=torch.Generator().manual_seed(1)) / 0.5
    )


def facts(**known: float) -> torch.Tensor:
    return torch.from_numpy(Facts(**known).numbers())[None]


@pytest.mark.parametrize("part", PARTS)
def test_each_part_has_parameters_and_gradients_of_its_own(part):
    own = {"transfer": "transferred", "dynamic": "mixed", "attention": "attending"}
    restorer = net(part).train()
    restorer(scan(), HALF).square().sum().backward()
    names = {name.partition(".")[0] for name, _ in restorer.named_parameters()}
    assert names & set(own.values()) == {own[part]}
    moved = {n for n, p in restorer.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {n for n, _ in restorer.named_parameters() if n.startswith(own[part])} <= moved
    assert not any(name.startswith("network") for name in moved)


def test_the_semantic_network_is_frozen_and_only_there_where_it_is_read():
    assert net("attention").network is None
    restorer = net(*PARTS).train()
    assert not restorer.network.training
    assert not any(p.requires_grad for p in restorer.network.parameters())
    before = {n: t.clone() for n, t in restorer.network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in restorer.parameters() if p.requires_grad], lr=0.1)
    restorer(scan(), HALF).mean().backward()
    optimizer.step()
    assert all(torch.equal(t, before[n]) for n, t in restorer.network.state_dict().items())


def test_what_the_semantic_network_sees_changes_the_restoration():
    for part in ("transfer", "dynamic"):
        restorer = net(part)
        before = restorer(scan(), HALF)
        for parameter in restorer.network.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        assert not torch.allclose(before, restorer(scan(), HALF))


def test_facts_change_the_restoration_only_through_the_dynamic_convolution():
    young, old = facts(age_y=1.0), facts(age_y=16.0)
    for parts, reads in ((("dynamic",), True), (("transfer", "attention"), False)):
        restorer = net(*parts)
        assert restorer.reads_facts == reads
        assert torch.equal(restorer(scan(), HALF, young), restorer(scan(), HALF, old)) != reads
    restorer = net("dynamic")
    # Unknown is a state of its own, not a typical child.
    torch.testing.assert_close(restorer(scan(), HALF), restorer(scan(), HALF, facts()))
    assert not torch.equal(restorer(scan(), HALF), restorer(scan(), HALF, facts(age_y=7.0)))
    with pytest.raises(ValueError, match="facts must be"):
        restorer(scan(), HALF, young[:, :3])


def test_the_velocity_is_told_by_the_exposure():
    mixed = net("dynamic").mixed
    told = torch.randn(2, mixed.mixing[0].in_features)
    told[1] = told[0]
    told[1, -1] += 1
    assert not torch.allclose(*mixed.shares(told))


def test_children_of_a_batch_have_kernels_of_their_own():
    torch.manual_seed(1)
    layer = DynamicConvolution(4, 3)
    x, told = torch.randn(2, 4, 7, 5), 5 * torch.randn(2, 3)
    alone = torch.cat([layer(x[i : i + 1], told[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(layer(x, told), alone)
    shares = layer.shares(told)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2))
    kernel = torch.einsum("k,koihw->oihw", shares[0], layer.kernels)
    padded = torch.nn.functional.pad(x[:1], (1, 1, 1, 1), mode="replicate")
    torch.testing.assert_close(layer(x, told)[:1], x[:1] + torch.nn.functional.conv2d(padded, kernel))


def test_attention_starts_without_effect_and_then_weighs_channels_and_pixels():
    torch.manual_seed(1)
    attention, x = PolarisedAttention(6), torch.rand(2, 6, 9, 7) + 1
    torch.testing.assert_close(attention(x), x)
    torch.nn.init.normal_(attention.norm.weight)
    gates = attention(x) / x
    assert gates.std(dim=(2, 3)).max() < 1e-5  # of channels alone
    assert gates.std(dim=1).min() > 0.01
    torch.nn.init.zeros_(attention.norm.weight)
    torch.nn.init.constant_(attention.gain, 3.0)
    gates = attention(x) / x
    assert gates.std(dim=1).max() < 1e-5  # of pixels alone
    assert gates.std(dim=(2, 3)).min() > 1e-3
    assert (gates > 0).all()
    assert (gates < 2).all()


def test_transferred_features_lie_where_their_cells_are():
    transfer = SemanticTransfer(3, 2)
    cells = torch.zeros(1, 3, 3, 2)
    cells[0, :, 2, 0] = 5
    plain = transfer(torch.zeros_like(cells), (21, 14))
    change = (transfer(cells, (21, 14)) - plain).abs().sum(dim=1)[0]
    assert change.shape == (21, 14)
    assert change[20, 0] == change.max()
    assert not change[:12].any()


def test_weights_hold_the_semantic_network_and_no_path(tmp_path):
    torch.manual_seed(4)
    save_semantic_network(tmp_path / "semantic.safetensors", SemanticNetwork(**SEMANTIC), {})
    restorer = net(*PARTS, semantic=tmp_path / "semantic.safetensors")
    assert restorer.spec()["init_args"]["semantic"] == SEMANTIC
    save_restorer(tmp_path / "x2.safetensors", restorer, {})
    (tmp_path / "semantic.safetensors").unlink()
    loaded = load_restorer(tmp_path / "x2.safetensors", scale=2)
    rapid, child = (0.5 * scan()[0]).numpy(), Facts(age_y=3.0)
    given = torch.from_numpy(child.numbers())[None]
    torch.testing.assert_close(
        torch.from_numpy(loaded.of_child(child).restore(rapid, 0.5)),
        restorer(scan(), HALF, given)[0].detach(),
    )
    assert (loaded.restore(rapid, 0.5) != loaded.of_child(child).restore(rapid, 0.5)).any()


def test_what_is_missing_is_said(tmp_path):
    for part in ("transfer", "dynamic"):
        with pytest.raises(ValueError, match="read a semantic network, but none is given"):
            net(part, semantic=None)
    with pytest.raises(CheckpointError, match="no such weight file"):
        net(*PARTS, semantic=tmp_path / "none.safetensors")

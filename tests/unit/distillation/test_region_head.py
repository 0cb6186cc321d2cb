import pytest
import torch

from rbs.distillation.region_head import RegionHead

torch.manual_seed(0)
LABELS = torch.randint(0, 10, (2, 2, 16, 16))


def test_regions_that_features_show_are_learned_and_features_are_moved():
    shown = torch.nn.functional.one_hot(LABELS, 10).movedim(-1, 2).flatten(1, 2).float()
    features = shown.clone().requires_grad_()
    head = RegionHead(20)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        loss = head(features, LABELS)
        loss.backward()
        optimiser.step()
    assert loss < 0.2
    assert features.grad.abs().sum() > 0
    assert head(torch.zeros_like(features), LABELS) > 1


def test_one_view_is_read_from_the_mean_of_two():
    head, features = RegionHead(6).eval(), torch.randn(2, 6, 16, 16)
    with torch.no_grad():
        one = head(features, LABELS[:, :1])
        head.logits.weight.copy_(head.logits.weight.view(2, 10, 6, 1, 1).mean(0).repeat(2, 1, 1, 1))
        head.logits.bias.copy_(head.logits.bias.view(2, 10).mean(0).repeat(2))
        assert one.item() == pytest.approx(head(features, LABELS[:, :1].expand(-1, 2, -1, -1)).item())


def test_frames_have_one_view():
    assert RegionHead(6, "colours")(torch.randn(2, 6, 16, 16), LABELS[:, :1] % 2).isfinite()

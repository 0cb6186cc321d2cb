"""NAFNet's backbone computes what spandrel's does."""

from __future__ import annotations

import pytest
import torch
from spandrel.architectures.NAFNet import NAFNet as Theirs
from torch import nn

from rbs.restorers.nafnet import ChannelNorm, NAFNet


@pytest.fixture
def ours() -> NAFNet:
    torch.manual_seed(0)
    net = NAFNet(width=8, enc_blocks=(1, 2), middle_blocks=1, dec_blocks=(1, 1))
    for parameter in net.parameters():  # at the start its blocks add nothing
        nn.init.normal_(parameter, std=0.2)
    return net


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_features_and_gradients_are_those_of_the_published_blocks(
    ours: NAFNet, memory: torch.memory_format
) -> None:
    theirs = Theirs(img_channel=5, width=8, middle_blk_num=1, enc_blk_nums=[1, 2], dec_blk_nums=[1, 1])
    theirs.ending = nn.Identity()
    theirs.load_state_dict(ours.backbone.state_dict())
    x = torch.randn(2, 5, 32, 24).contiguous(memory_format=memory)
    seen = []
    theirs.decoders[-1].register_forward_hook(lambda *args: seen.append(args[2]))
    with pytest.raises(RuntimeError):  # its last step adds five channels to eight; what comes before is seen
        theirs(x)
    (expected,) = seen
    found = ours.features(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    found.square().mean().backward()
    expected.square().mean().backward()
    gradients = dict(ours.backbone.named_parameters())
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-3, atol=1e-5)


def test_all_normalisations_are_the_quick_ones(ours: NAFNet) -> None:
    kinds = {type(m) for m in ours.modules() if "Norm" in type(m).__name__}
    assert kinds == {ChannelNorm}

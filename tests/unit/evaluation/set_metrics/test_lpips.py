"""LPIPS from a folder equals the lpips package's own, and is left out without weights."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from rbs.errors import CheckpointError
from rbs.evaluation.scans.metrics import Target
from rbs.evaluation.set_metrics.lpips import display_grey, load_lpips, lpips_of_scans
from rbs.weights.external import ALEXNET


def weights():
    file = Path(os.environ.get("RBS_WEIGHTS", "")) / ALEXNET[0]
    if not file.is_file():
        pytest.skip("no LPIPS weights in RBS_WEIGHTS")
    return file


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_is_the_lpips_package_on_the_inverse_grey_picture():
    import lpips
    import torchvision

    alexnet = torchvision.models.alexnet(weights=None)
    alexnet.features.load_state_dict(
        {
            key.removeprefix("features."): value
            for key, value in torch.load(weights(), map_location="cpu", weights_only=True).items()
        }
    )
    oracle = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    for index, layer in enumerate(alexnet.features):
        for part in (getattr(oracle.net, f"slice{k}") for k in range(1, 6)):
            if str(index) in dict(part.named_children()):
                setattr(part, str(index), layer)
    rng = np.random.default_rng(0)
    target = Target(rng.poisson(4.0, (1, 96, 64)), 1.0, (2.3, 2.3))
    estimate = rng.poisson(4.0, (1, 96, 64))
    pictures = [
        torch.from_numpy(1 - 2 * np.clip(x / target.peak, 0, 1)).float().repeat(1, 3, 1, 1)
        for x in (estimate, target.counts)
    ]
    with torch.no_grad():
        expected = oracle(*pictures).item()
    assert expected > 0.01
    assert lpips_of_scans().compute(estimate, target) == pytest.approx(expected, rel=1e-5)


def test_without_weights_there_is_no_figure(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("RBS_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert lpips_of_scans() is None
    assert len(caplog.records) == 1
    assert ALEXNET[0] in caplog.text


def test_a_file_that_is_no_alexnet_is_refused(tmp_path):
    file = tmp_path / ALEXNET[0]
    torch.save({"features.0.weight": torch.zeros(3)}, file)
    with pytest.raises(CheckpointError, match=ALEXNET[0]):
        load_lpips(file)
    for content in (b"", b"hello, I am no checkpoint"):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=ALEXNET[0]):
            load_lpips(file)


def test_display_is_inverse_grey():
    np.testing.assert_allclose(display_grey(np.array([0.0, 5.0, 10.0, 99.0]), 10.0), [1, 0, -1, -1])

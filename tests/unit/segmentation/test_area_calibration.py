"""Biases that give regions the right size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rbs.scans.scan import REGIONS
from rbs.segmentation.calibration import HOT, add_biases, area_biases
from rbs.segmentation.dynunet import DynUNet

CLASSES = 1 + len(REGIONS)


def drawn(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (1, classes, 60, 60), and labels drawn from them."""
    logits = rng.normal(0, 1.5, (1, CLASSES, 60, 60))
    logits[:, HOT] -= 3
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) < rng.random((1, 1, 60, 60))).sum(axis=1)
    return p, np.minimum(labels, CLASSES - 1)


def biased(p: np.ndarray, biases: np.ndarray) -> np.ndarray:
    q = p * np.exp(biases)[:, None, None]
    return q / q.sum(axis=1, keepdims=True)


def test_known_biases_are_undone() -> None:
    rng = np.random.default_rng(0)
    added = np.array([0.0, 0.5, 1.0, 1.5, 1.0, 0.8, 1.2, 2.0, 0.3, 1.0])
    scans = [(biased(p, added), labels) for p, labels in (drawn(rng) for _ in range(6))]
    found = area_biases(scans)
    np.testing.assert_allclose(found[:HOT], -added[:HOT], atol=0.15)
    for label in range(HOT):
        area = sum(float(biased(p, found)[:, label].sum()) for p, _ in scans)
        assert area == pytest.approx(sum((labels == label).sum() for _, labels in scans), rel=0.02)
    assert -1.5 < found[HOT] < -0.5, "as bones have it, however few hot spots there are"


def test_a_segmenter_takes_them_into_its_last_layer() -> None:
    torch.manual_seed(0)
    net = DynUNet(filters=(4, 4, 4, 4)).eval()
    given = torch.rand(1, 2, 64, 64), torch.ones(1), torch.full((1, 2), 2.26)
    biases = np.linspace(-1, 1, CLASSES)
    with torch.no_grad():
        before = net.logits(*given)
        add_biases(net, biases)
        after = net.logits(*given)
    expected = before + torch.tensor(biases, dtype=torch.float32)[:, None, None]
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4)

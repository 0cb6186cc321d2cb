"""The shipped restorer keeps its figures on an unseen child: seed 1; it was trained on 2026."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rbs.restorers.checkpoint import load_restorer
from rbs.synthetic.cohort import make_patient
from rbs.utils.image_ops import gaussian

GOLDEN = {"restored": 0.03639, "gaussian": 0.10334, "bias": 0.00091}


def test_the_shipped_restorer_keeps_its_figures() -> None:
    patient = make_patient(1, seed=1)
    flip = np.s_[:, ::-1]  # posterior views are shown mirrored to networks
    truth, counts = patient.phantom.expectation.astype(np.float32), patient.rapid.astype(np.float32)
    truth, counts = (np.stack([a[0], a[1][flip]]) for a in (truth, counts))
    x = torch.from_numpy(counts)[None] / 0.5
    with torch.inference_mode():
        restored = load_restorer().restorer(x, torch.tensor([0.5]))[0].numpy()
        smoothed = gaussian(x, 3.0 / 2.26)[0].numpy()  # the tuned Gaussian, 3 mm
    found = {
        "restored": float(np.mean((restored - truth) ** 2)),
        "gaussian": float(np.mean((smoothed - truth) ** 2)),
        "bias": float(restored.sum() / truth.sum() - 1),
    }
    assert found == pytest.approx(GOLDEN, rel=0.02, abs=1e-3), found
    assert found["restored"] < 0.5 * found["gaussian"]

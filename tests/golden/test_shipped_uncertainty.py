"""The shipped uncertainty holds for an unseen child: seed 5; trained on seed 1, f1 on 2026."""

from __future__ import annotations

import numpy as np
import pytest

from rbs.evaluation.observers.calibration import calibration_by_truth, coverage
from rbs.restorers.checkpoint import load_restorer
from rbs.restorers.uncertainty import head_file, load_uncertainty
from rbs.scans.body import body_mask
from rbs.synthetic.cohort import make_patient
from rbs.weights.shipped import SHIPPED

GOLDEN = {0.5: 0.574, 0.683: 0.749, 0.9: 0.918, 0.954: 0.956}
"""Share of the body's pixels that is covered. Claimed are the keys: bounds are stated below."""


def test_intervals_of_a_fresh_child_cover_what_they_claim() -> None:
    patient = make_patient(2, seed=5)
    flip = np.s_[:, ::-1]  # posterior views are shown mirrored to networks
    truth, rapid, standard = (
        np.stack([a[0], a[1][flip]])
        for a in (patient.phantom.expectation.astype(np.float64), patient.rapid, patient.standard)
    )
    loaded = load_restorer()
    restored = loaded.restore(rapid, 0.5)
    stated = load_uncertainty(loaded, head_file(SHIPPED)).deviation(rapid, 0.5)
    mask = body_mask(standard, (2.26, 2.26))
    found = coverage(restored, stated, truth, mask)
    covered = {level: np.mean([e.covered for e in found if e.level == level]) for level in GOLDEN}
    assert covered == pytest.approx(GOLDEN, abs=0.01), covered
    for level, share in covered.items():
        assert abs(share - level) < 0.08
    by_tenths = [entry.covered for entry in found if entry.level == 0.9]
    assert min(by_tenths) > 0.8, by_tenths
    # Errors of neighbours go together: a block is far less sure than independent pixels would be.
    assert calibration_by_truth(restored, stated, truth, mask, 16) > 3

"""A phantom of a fixed seed keeps its numbers: training sets and shipped weights rest on them.

For an intended change raise `rbs.synthetic.cohort.FORMAT` and take over the numbers the failing
test prints. They are statistics, no checksum, because the last digits of a filter differ between
versions of NumPy and SciPy.
"""

from __future__ import annotations

import numpy as np
import pytest

from rbs.synthetic.cohort import make_patient

GOLDEN = {
    1: {
        "age": 2.6487,
        "weight": 11.2693,
        "anterior": 219035.7385,
        "posterior": 225594.8628,
        "row": 263.6168,
        "column": 124.8952,
        "sharpness": 27673.869,
        "labelled": 32582.0,
        "lesions": 0.0,
        "rapid": 222140.0,
        "standard": 445468.0,
    },
    2: {
        "age": 9.7496,
        "weight": 38.8838,
        "anterior": 424272.4648,
        "posterior": 430929.3667,
        "row": 345.6806,
        "column": 128.6748,
        "sharpness": 41706.4393,
        "labelled": 74414.0,
        "lesions": 2.0,
        "rapid": 426607.0,
        "standard": 854955.0,
    },
}


def numbers(patient: int) -> dict[str, float]:
    drawn = make_patient(patient, seed=1)
    phantom, rapid, standard = drawn.phantom, drawn.rapid, drawn.standard
    anterior, posterior = phantom.expectation.astype(float)
    rows, columns = np.indices(anterior.shape)
    return {
        "age": phantom.child.age_y,
        "weight": phantom.child.weight_kg,
        "anterior": anterior.sum(),
        "posterior": posterior.sum(),
        "row": float((rows * anterior).sum() / anterior.sum()),
        "column": float((columns * anterior).sum() / anterior.sum()),
        "sharpness": float(np.hypot(*np.gradient(anterior)).sum()),
        "labelled": float((phantom.labels > 0).sum()),
        "lesions": float(len(phantom.lesions)),
        "rapid": float(rapid.sum()),
        "standard": float(standard.sum()),
    }


@pytest.mark.parametrize("patient", sorted(GOLDEN))
def test_a_seed_keeps_its_child(patient: int) -> None:
    found = numbers(patient)
    drawn = {"rapid", "standard"}  # a Poisson draw may take another path after a change in the last digit
    for name, value in GOLDEN[patient].items():
        assert found[name] == pytest.approx(value, rel=5e-3 if name in drawn else 2e-4), found

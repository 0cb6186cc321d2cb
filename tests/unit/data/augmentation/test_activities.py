"""Activities: whole crops of more and of less counts, whose noise is Poisson all the same."""

from __future__ import annotations

import numpy as np
import pytest
from training_crops import assert_poisson, training_batch

from rbs.data.bone_scans import RBSDataModule
from rbs.errors import RbsError

KNOWN = {"pairs": "expectation", "exposures": (0.5, 0.5)}


def test_crops_have_the_activities_and_their_counts_are_poisson(tiny_cohort) -> None:
    plain = training_batch(tiny_cohort, 64, **KNOWN)
    varied = training_batch(tiny_cohort, 64, activities=(0.5, 4.0), **KNOWN)
    # Flips differ with the numbers that counts were drawn from; the total does not.
    factors = (varied["target"].sum(dim=(1, 2, 3)) / plain["target"].sum(dim=(1, 2, 3))).numpy()
    assert factors.min() >= 0.5 - 1e-5
    assert factors.max() <= 4 + 1e-4
    # The logarithm is uniform: its mean is in the middle, its standard deviation width / √12.
    logs = np.log(factors)
    assert logs.mean() == pytest.approx(np.log(2) / 2, abs=4 * np.log(8) / np.sqrt(12 * 64))
    assert logs.std() == pytest.approx(np.log(8) / np.sqrt(12), rel=0.25)
    assert (varied["exposure"] == 0.5).all()
    assert_poisson(varied["rapid"], 0.5 * varied["target"])


def test_one_activity_is_a_factor(tiny_cohort) -> None:
    plain, double = (training_batch(tiny_cohort, 8, activities=(a, a), **KNOWN) for a in (1.0, 2.0))
    np.testing.assert_allclose(double["target"].sum(), 2 * plain["target"].sum(), rtol=1e-5)


def test_training_ranges_span_them(tiny_cohort) -> None:
    plain, varied = (
        RBSDataModule(tiny_cohort, num_workers=0, crop=(64, 48), activities=a, **KNOWN)
        for a in ((1.0, 1.0), (0.5, 4.0))
    )
    for data in (plain, varied):
        data.setup("fit")
    low, high = plain.training_ranges()["counts_per_pixel"]
    assert varied.training_ranges()["counts_per_pixel"] == pytest.approx([0.5 * low, 4 * high], rel=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"activities": (0.0, 4.0)},
        {"activities": (4.0, 0.5)},
        {"activities": (0.5, 4.0), "pairs": "split"},
        {"activities": (0.5, 4.0), "realisations": 4},
    ],
)
def test_where_they_cannot_go_they_are_refused(settings) -> None:
    with pytest.raises(RbsError, match=r"activities .* do not go together; give factors above 0"):
        RBSDataModule("manifest.csv", **{"pairs": "expectation"} | settings)

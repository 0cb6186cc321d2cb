import numpy as np
import pytest

from rbs.description.coarse import coarse_counts
from rbs.errors import ScanError
from rbs.scans.scan import Scan, View


def scan(mm: float) -> Scan:
    counts = np.random.default_rng(0).poisson(3.0, (2, 40, 20)).astype(np.uint16)
    return Scan(counts, (View.ANTERIOR, View.POSTERIOR), (mm, mm), 40.0)


def test_fine_pixels_are_summed_up_and_coarse_ones_left() -> None:
    fine, coarse = coarse_counts(scan(2.26)), coarse_counts(scan(4.52))
    assert fine.shape == (2, 20, 10)
    assert fine.sum() == scan(2.26).counts.sum()
    assert np.array_equal(coarse, scan(4.52).aligned())


@pytest.mark.parametrize("mm", [1.0, 3.2, 9.6])
def test_other_pixels_are_refused(mm: float) -> None:
    with pytest.raises(
        ScanError, match=rf"its pixels are {mm:.3g} x {mm:.3g} mm, and scans of 2.05 to 2.5 mm"
    ):
        coarse_counts(scan(mm))

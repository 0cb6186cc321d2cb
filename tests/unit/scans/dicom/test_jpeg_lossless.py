"""JPEG Lossless: every predictor bit for bit, and no damage that does more than raise ValueError."""

import numpy as np
import pytest
from vendor_files import jpeg_lossless

from rbs.scans.dicom.jpeg_lossless import decode, parse


def frame() -> np.ndarray:
    """Counts of a scan with a row of the largest and the smallest differences."""
    values = np.random.default_rng(0).poisson(3.0, (24, 17)).astype(np.uint16)
    values[5, ::2] = 65535
    values[7, 3:6] = 0, 32768, 0
    return values


@pytest.mark.parametrize("predictor", range(1, 8))
def test_every_predictor_gives_the_counts_back(predictor: int) -> None:
    stream = parse(jpeg_lossless(frame(), predictor))
    assert (stream.rows, stream.columns, stream.precision, stream.point_transform) == (24, 17, 16, 0)
    assert decode(stream).dtype == np.uint16
    np.testing.assert_array_equal(decode(stream), frame())


def test_damage_is_a_value_error_or_other_counts_of_the_same_shape() -> None:
    whole = np.frombuffer(jpeg_lossless(frame()), np.uint8)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(400):
        damaged = whole.copy()
        reach = 60 if rng.random() < 0.5 else len(whole)
        damaged[rng.integers(0, reach, 2)] = rng.integers(0, 256, 2)
        cut = rng.integers(1, len(whole)) if rng.random() < 0.2 else len(whole)
        try:
            stream = parse(damaged[:cut].tobytes())
            if stream.rows * stream.columns <= 1000:  # of others the reader says that they do not fit
                assert decode(stream).shape == (stream.rows, stream.columns)
        except ValueError:
            refused += 1
    assert 100 < refused < 400

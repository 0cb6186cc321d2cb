"""The one augmentation function permutes pixels, alike in all arrays, reproducibly."""

from collections import Counter

import numpy as np
import pytest

from rbs.data.augmentation.geometric import flip_alike


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float32])
def test_all_arrays_are_flipped_as_reported(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 200, (views, 6, 4)).astype(dtype) for name, views in (("a", 2), ("b", 1))}
    flipped, (left_right, up_down) = flip_alike(arrays, seed)
    for name, array in arrays.items():
        expected = array[:, ::-1] if up_down else array
        expected = expected[..., ::-1] if left_right else expected
        np.testing.assert_array_equal(flipped[name], expected)
        assert flipped[name].dtype == dtype


def test_counts_beyond_what_float32_resolves_survive() -> None:
    array = np.full((1, 4, 4), 2**40 + 1, np.int64)
    for seed in range(4):
        assert (flip_alike({"a": array}, seed)[0]["a"] == 2**40 + 1).all()


def test_the_two_flips_are_independent_and_even() -> None:
    array = {"a": np.zeros((1, 2, 2))}
    seen = Counter(flip_alike(array, seed)[1] for seed in range(1000))
    # Binomial, mean 250, standard deviation 14; one seed for both flips would leave two of the four
    # out.
    assert all(180 < seen[a, b] < 320 for a in (False, True) for b in (False, True)), seen


def test_a_seed_decides_whatever_came_before() -> None:
    array = {"a": np.arange(12).reshape(1, 3, 4)}
    alone = [flip_alike(array, seed)[1] for seed in range(20)]
    backwards = [flip_alike(array, seed)[1] for seed in reversed(range(20))]
    assert alone == backwards[::-1]
    assert len(set(alone)) == 4

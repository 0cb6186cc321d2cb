"""Scans that share counts are told from independent ones of the same patient."""

from collections.abc import Iterator

import numpy as np
import pytest
from moving_body import passes, rigid

from rbs.data.residuals import alike, correlated, residual_of, sketch_of


def _expectation(seed: int, rows: int = 320, columns: int = 160, level: float = 4.0) -> np.ndarray:
    """Expected counts (1, rows, columns): a body, and blobs as wide as a camera blurs a point."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns]
    found = np.exp(-(((x - columns / 2) / (columns / 3)) ** 6) - ((y - rows / 2) / (rows / 2.2)) ** 8)
    for _ in range(40):
        at, peak = rng.uniform(0.2, 0.8, 2) * (rows, columns), rng.uniform(0, 20)
        found += peak * np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / (2 * rng.uniform(1.8, 5) ** 2))
    return level * (found[None] + 0.02)


def _pairs(number: int) -> Iterator[tuple[np.random.Generator, np.ndarray]]:
    for seed in range(number):
        yield np.random.default_rng(seed), _expectation(seed)


def test_residuals_of_poisson_counts_are_white_and_of_variance_one() -> None:
    for rng, expectation in _pairs(5):
        residual = residual_of(rng.poisson(expectation)[0])
        assert (residual.z**2).sum() / residual.pixels == pytest.approx(1, abs=0.06)
        other = residual_of(rng.poisson(expectation)[0])
        covariance = (residual.z * other.z).sum() / residual.pixels
        assert abs(covariance) < 4 / residual.independent**0.5


@pytest.mark.parametrize("exposure", [0.1, 0.5])
def test_two_passes_over_one_patient_are_independent(exposure: float) -> None:
    """Still, moved, and with pixels so coarse that anatomy has the frequencies of noise."""
    for rng, expectation in _pairs(20):
        rapid = exposure * expectation
        assert not correlated(rng.poisson(rapid), rng.poisson(expectation))
        moved = np.roll(rapid, (2, 1), axis=(1, 2)) * 1.03
        assert not correlated(rng.poisson(moved), rng.poisson(expectation))
        coarse = expectation.reshape(1, 80, 4, 40, 4).sum(axis=(2, 4))
        assert not correlated(rng.poisson(exposure * coarse), rng.poisson(coarse))


def test_passes_of_a_body_that_bends_are_independent() -> None:
    for seed in range(5):
        standard, rapid = passes(rigid(3.0, -2.0), seed=seed)
        assert not correlated(rapid, standard)


def test_halves_of_counts_that_are_not_quite_poisson_are_independent() -> None:
    """What recovery from pictures adds to the variance is in both halves, and in their variances."""
    for rng, expectation in _pairs(10):
        source = np.maximum(rng.poisson(expectation) + rng.integers(-1, 2, expectation.shape), 0)
        half = rng.binomial(source, 0.5)
        assert not correlated(half, source - half)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.25])
def test_a_share_of_the_counts_is_seen(share: float) -> None:
    """The rapid scan holds half the counts; of these a share is in the standard scan."""
    for rng, expectation in _pairs(5):
        rapid = rng.poisson(expectation / 2)
        shared = rng.binomial(rapid, share)
        standard = shared + rng.poisson(expectation * (1 - share / 2))
        assert correlated(rapid, standard)
        assert correlated(np.roll(rapid, (3, -2), axis=(1, 2)), standard)


@pytest.mark.parametrize("thinned", [1.0, 0.5, 0.1])
def test_a_copy_is_seen_however_it_lies(thinned: float) -> None:
    for rng, expectation in _pairs(3):
        counts = rng.poisson(expectation)
        copy = rng.binomial(counts, thinned)
        copy[0, 100, 80] += 1
        assert correlated(copy, counts)
        assert correlated(np.roll(copy, 1, axis=1), counts)
        assert correlated(copy[:, 20:], counts)
        if thinned > 0.3:
            assert correlated(copy[:, :, ::-1], counts)
            assert correlated(copy[:, ::-1], counts)
            assert correlated(copy[:, ::-1, ::-1], counts)


def test_a_scan_without_counts_shares_none() -> None:
    empty = np.zeros((1, 64, 48), int)
    assert not correlated(empty, empty)
    assert sketch_of(empty[0]).digest == ""
    assert alike([sketch_of(empty[0])] * 3) == []
    assert alike([]) == []


def test_sketches_know_a_scan_among_others() -> None:
    rng = np.random.default_rng(0)
    frames = [rng.poisson(_expectation(seed))[0] for seed in (*range(8), *range(8))]
    assert alike([sketch_of(frame) for frame in frames]) == []
    one = frames[2]
    copies = [np.roll(one, 2, axis=0), one[:, ::-1], one[::-1, 10:], rng.binomial(one, 0.5)]
    sketches = [sketch_of(frame) for frame in (*frames, *copies)]
    found = alike(sketches)
    assert {(2, len(frames) + place) for place in range(len(copies))} <= set(found)
    assert all(first == 2 or first >= len(frames) for first, _ in found)


def test_a_digest_is_that_of_the_counts_however_they_lie() -> None:
    counts = np.random.default_rng(0).poisson(_expectation(0))[0]
    wanted = sketch_of(counts).digest
    for again in (counts[::-1], counts[:, ::-1], counts.T, np.pad(counts, ((0, 64), (32, 0)))):
        assert sketch_of(again.astype(np.uint16)).digest == wanted
    other = counts.copy()
    other[100, 80] += 1
    assert sketch_of(other).digest != wanted

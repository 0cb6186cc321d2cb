"""The test of raw counts: its spread against simulation, what passes it and what does not."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pictures_of import counts_of_a_body
from scipy.ndimage import gaussian_filter

from rbs.scans.noise import Noise, examine, lowest_level
from rbs.scans.scan import Box
from rbs.synthetic.skeleton import make_child


@pytest.fixture(scope="module")
def expectation() -> np.ndarray:
    """A child of 8 years, both views, at 20 cm/min."""
    return make_child(8.0, "F", np.random.default_rng(3)).expectation.astype(float)


@pytest.fixture(scope="module")
def counts(expectation: np.ndarray) -> np.ndarray:
    return np.random.default_rng(3).poisson(expectation[0])


def smoothed(counts: np.ndarray, sigma: float | tuple[float, float], scale: float = 1.0) -> np.ndarray:
    return np.rint(scale * gaussian_filter(counts.astype(float), sigma)).astype(int)


@pytest.mark.parametrize("mean", [0.3, 3.0, 30.0])
def test_the_index_of_raw_counts_is_1_with_the_error_stated(mean: float) -> None:
    rng = np.random.default_rng(0)
    found = [examine(rng.poisson(mean, (96, 96))) for _ in range(150)]
    z = np.array([(noise.dispersion - 1) / noise.error for noise in found])
    assert abs(z.mean()) < 0.25
    assert 0.75 < z.std() < 1.1  # the bound of 9/8 is not reached
    assert not any(noise.fault for noise in found)


@pytest.mark.parametrize("age_y", [0.3, 3.0, 16.0])
def test_drawn_children_are_raw_at_every_velocity(age_y: float) -> None:
    rng = np.random.default_rng(int(10 * age_y))
    child = make_child(age_y, "M", rng)
    for exposure in (2.0, 1.0, 0.5, 0.25):
        for view in child.expectation:
            assert examine(rng.poisson(exposure * view.astype(float))).fault == "", exposure


def test_steep_edges_are_no_fault() -> None:
    for level in (3.0, 12.0, 60.0):
        assert examine(counts_of_a_body(level=level)).fault == ""


def test_acquired_scans_are_raw(real_scan: Path, real_adult: Path) -> None:
    for path in (real_scan, real_adult, real_adult.with_name(real_adult.name.replace("_d_", "_b_"))):
        for frame in np.atleast_3d(pydicom.dcmread(path).pixel_array.T).T:
            noise = examine(frame)
            assert (noise.fault, noise.excess) == ("", ())
            assert noise.dispersion == pytest.approx(1, abs=0.03)
            assert examine(smoothed(frame, 0.45, 2.54)).fault
            assert examine(smoothed(frame, 0.35)).fault


@pytest.mark.parametrize(
    "change",
    [
        lambda c: smoothed(c, 0.45, 2.54),
        lambda c: smoothed(c, 0.6, 13.23),
        lambda c: smoothed(c, 0.35, 1.22),
        lambda c: smoothed(c, 0.5, 2.9),
        lambda c: smoothed(c, (0, 0.45), 1.6),
        lambda c: smoothed(c, 1.0, 20.0),
        lambda c: np.rint(1.05 * c).astype(int),
        lambda c: np.rint(0.9 * c).astype(int),
        lambda c: 2 * c,
        lambda c: c + 1,
        lambda c: np.maximum(c - 1, 0),
        lambda c: np.rint(20 * (c / 20) ** 0.8).astype(int),
        lambda c: np.rint(20 * (c / 20) ** 1.1).astype(int),
        lambda c: np.rint(20 * np.sqrt(c)).astype(int),
        lambda c: np.repeat(c, 2, axis=0),
        lambda c: c[np.sort(np.r_[: len(c), : len(c) : 10])],
        lambda c: c[:-1] + c[1:],
    ],
    ids=[
        *(
            "0.45 x 2.54",
            "0.6 x 13.23",
            "0.35 x 1.22",
            "0.5 x 2.9",
            "rows",
            "1 x 20",
            "x 1.05",
            "x 0.9",
            "x 2",
        ),
        *(
            "offset",
            "window",
            "gamma 0.8",
            "gamma 1.1",
            "root",
            "rows twice",
            "some rows twice",
            "mean of rows",
        ),
    ],
)
@pytest.mark.parametrize("exposure", [0.5, 3.0])
def test_what_is_no_raw_count_is_found(expectation: np.ndarray, exposure: float, change) -> None:
    counts = np.random.default_rng(4).poisson(exposure * expectation[1])
    assert examine(counts).fault == ""
    assert examine(change(counts)).fault


def test_smoothing_that_leaves_pixels_their_noise_shows_in_sums() -> None:
    """Raw counts of a level so high that whole numbers hide nothing: only the sums can tell."""
    counts = np.random.default_rng(0).poisson(np.full((256, 256), 300.0))
    found = examine(smoothed(counts, 0.45, 1 / examine(smoothed(counts, 0.45)).dispersion))
    assert found.dispersion == pytest.approx(1, abs=0.03)
    assert "neighbouring pixels share noise" in found.fault


def test_weak_smoothing_shows_from_two_counts_on() -> None:
    body = gaussian_filter(np.pad(np.full((300, 120), 12.0), 20), 2.0)
    counts = np.random.default_rng(5).poisson(body)
    assert examine(counts).fault == ""
    assert "times its mean" in examine(smoothed(counts, 0.35)).fault


def test_too_few_counts_tell_nothing() -> None:
    rng = np.random.default_rng(0)
    assert examine(np.zeros((200, 200), int)).unknown
    assert examine(np.full((10, 10), 500)).unknown
    assert examine(rng.poisson(0.01, (256, 256))).unknown
    assert examine(rng.poisson(10, (60, 60)), cut=9).unknown


@pytest.mark.parametrize(("row", "column"), [(400, 128), (60, 5)], ids=["body", "air"])
@pytest.mark.parametrize("hot", [200, 20_000])
def test_a_hot_pixel_is_located(counts: np.ndarray, row: int, column: int, hot: int) -> None:
    counts = counts.copy()
    counts[row, column] = hot
    noise = examine(counts)
    assert noise.fault == ""
    assert noise.excess == (Box((row - 1, row + 2), (column - 1, column + 2)),)
    assert noise.dispersion == pytest.approx(1, abs=0.03)
    assert str(noise.excess[0]) == f"rows {row - 1}-{row + 1}, columns {column - 1}-{column + 1}"


def test_an_injection_site_is_located(counts: np.ndarray) -> None:
    y, x = np.mgrid[: counts.shape[0], : counts.shape[1]]
    site = np.exp(-((y - 420) ** 2 + (x - 20) ** 2) / 2 / 1.2**2)
    noise = examine(counts + np.random.default_rng(0).poisson(20_000 * site / site.sum()))
    assert noise.fault == ""
    (region,) = noise.excess
    assert region.rows[0] < 420 < region.rows[1]
    assert region.columns[0] < 20 < region.columns[1]


def test_a_hot_pixel_does_not_excuse_the_rest(counts: np.ndarray) -> None:
    image = smoothed(counts, 0.45, 2.54)
    image[400, 128] = 500
    assert examine(image).fault


@pytest.mark.parametrize("cut", [1, 2, 4, 9])
def test_where_a_cut_does_not_reach(cut: int) -> None:
    """The dispersion of cut Poisson counts by simulation, at the lowest level that is judged."""
    rng = np.random.default_rng(cut)
    drawn = rng.poisson(lowest_level(cut), 400_000)
    drawn[drawn <= cut] = 0
    assert drawn.var() / drawn.mean() == pytest.approx(1.03, abs=0.015)
    assert lowest_level(0) == 0


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_cut_counts_are_raw_where_the_cut_is_known(expectation: np.ndarray, cut: int) -> None:
    counts = np.random.default_rng(cut).poisson(4 * expectation[0])
    counts[counts <= cut] = 0
    assert examine(counts, cut=cut).fault == ""
    assert examine(counts).fault
    assert examine(smoothed(counts, 0.45, 2.54), cut=cut).fault


def test_a_blanked_area_is_no_noise() -> None:
    counts = np.random.default_rng(0).poisson(12.0, (200, 100))
    for row in range(60, 140):  # a slanted, jagged border
        counts[row, row // 2 - 20 + 3 * (row % 2) : row // 2 + 10] = 0
    noise = examine(counts, recovered=True)
    assert noise.fault == ""
    assert noise.dispersion == pytest.approx(1, abs=4 * noise.error)


def test_saturation_is_no_fault() -> None:
    """An area at the largest count that can be stored has no noise, whatever it was counted by."""
    level = gaussian_filter(np.pad(np.full((200, 100), 30.0), 40), 3.0)
    level[100:140, 60:90] += 400
    counts = np.random.default_rng(0).poisson(gaussian_filter(level, 2.0))
    assert examine(np.minimum(counts, 255)).fault == ""


def test_huge_counts_take_no_memory() -> None:
    counts = np.random.default_rng(0).poisson(5.0, (64, 64)).astype(np.int64)
    counts[30, 30] = 2**31 - 1
    assert isinstance(examine(counts), Noise)

"""Counts from pictures: exact where the picture is a scaled count, refused otherwise."""

from pathlib import Path

import numpy as np
import pytest
from pictures_of import counts_of_a_body, exported, through_jpeg
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import poisson

from rbs.errors import ScanError
from rbs.scans.dicom.reader import read_nm
from rbs.scans.pictures.counts import read_picture, recover
from rbs.scans.pictures.grey_levels import fit_grey_levels, greys_of_counts
from rbs.scans.scan import View
from rbs.synthetic.skeleton import make_child


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    return counts_of_a_body(level=12.0)


@pytest.fixture(scope="module")
def child() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.poisson(make_child(8.0, "F", rng).expectation[0].astype(np.float64))


def test_greys_of_counts_are_the_rounded_multiples() -> None:
    assert greys_of_counts(2.6)[:5].tolist() == [0, 3, 5, 8, 10]
    assert greys_of_counts(0.8)[:6].tolist() == [0, 1, 2, 2, 3, 4]
    assert greys_of_counts(3.7).max() <= 255


@pytest.mark.parametrize("scale", [0.8, 1.33, 1.5, 2.0, 4.0])
def test_scales_that_alias_on_the_integers_are_told_apart(scale: float) -> None:
    """0.8, 1.333 and 4 have gaps of one period; 2 and 4 are multiples. Expected histogram."""
    c = np.arange(200)
    share = poisson.pmf(c[:, None], np.array([0.5, 3.0, 8.0, 20.0])) @ np.array([0.5, 0.3, 0.15, 0.05])
    grey = np.rint(scale * c).astype(int)
    histogram = np.bincount(grey[grey < 256], np.rint(1e5 * share)[grey < 256], 256)
    levels = fit_grey_levels(histogram)
    assert levels.scale == pytest.approx(scale, rel=0.01)
    assert levels.confidence > 10


@pytest.mark.parametrize("scale", [1.0, 1.07, 1.3, 1.5, 1.83, 2.6, 3.9])
def test_a_png_gives_every_count_back(child: np.ndarray, scale: float) -> None:
    found = recover(exported(child, scale))
    assert found.fault == ""
    unclipped = scale * child < 254.5
    assert unclipped.mean() > 0.995
    np.testing.assert_array_equal(found.counts[unclipped], child[unclipped])
    assert found.scale == pytest.approx(scale, abs=4 * found.standard_error + 0.01)
    assert found.dispersion == pytest.approx(1, abs=0.05)
    assert found.cut == 0


@pytest.mark.parametrize(("scale", "exact"), [(1.0, 0.9), (1.3, 0.94), (2.6, 0.98), (3.7, 0.998)])
def test_a_jpeg_of_quality_100_gives_nearly_every_count_back(child, scale: float, exact: float) -> None:
    found = recover(exported(child, scale, 100))
    assert found.fault == ""
    assert found.scale == pytest.approx(scale, rel=0.01)
    assert (found.counts == child).mean() > exact
    assert np.abs(found.counts - child)[scale * child < 250].max() <= 2
    assert found.counts.sum() == pytest.approx(child.sum(), rel=0.02)


def test_below_1_greys_that_stand_for_two_counts_are_drawn(counts: np.ndarray) -> None:
    grey = exported(counts, 0.8)
    found = recover(grey)
    assert found.fault == ""
    assert found.scale == pytest.approx(0.8, rel=0.005)
    # 2 of 5 counts share a grey at 0.8, all others are certain.
    shared = np.isin(counts % 5, (2, 3)) & (counts > 0)
    assert found.ambiguous == pytest.approx(shared.sum() / (grey > 0).sum(), abs=0.02)
    np.testing.assert_array_equal(found.counts[~shared], counts[~shared])
    assert np.abs(found.counts - counts).max() == 1
    assert found.counts.sum() == pytest.approx(counts.sum(), rel=0.005)
    np.testing.assert_array_equal(recover(grey).counts, found.counts)


def test_what_was_cut_or_blanked_stays_lost_and_is_told(counts: np.ndarray) -> None:
    level = gaussian_filter(np.pad(np.full((400, 150), 20.0), 40), 2.0)
    bright = np.random.default_rng(0).poisson(level)  # few places where a cut takes much
    cut = np.where(bright <= 1, 0, bright)
    found = recover(exported(cut, 1.7))
    assert (found.fault, found.cut) == ("", 1)
    np.testing.assert_array_equal(found.counts[1.7 * cut < 254], cut[1.7 * cut < 254])
    cropped = counts.copy()
    for row in range(100, 180):  # a slanted region, as where a name was removed
        cropped[row, row - 60 : row] = 0
    np.testing.assert_array_equal(recover(exported(cropped, 2.3)).counts, cropped)


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("scale", [1.0, 1.4, 2.3])
def test_a_masked_crop_with_its_lowest_counts_cut_is_recovered(cut: int, scale: float) -> None:
    """As the public collections are: greys below a threshold are 0, and the crop has a slanted border."""
    level = gaussian_filter(np.pad(np.full((180, 70), 14.0), ((0, 0), (0, 30))), 3.0)
    level[60:120:12, 10:50] += 12
    counts = np.random.default_rng(cut).poisson(gaussian_filter(level, 1.5))
    counts[np.arange(180)[:, None] < 60 - np.arange(100)] = 0
    counts[counts <= cut] = 0
    found = recover(exported(counts, scale, 100))
    assert (found.fault, found.cut) == ("", cut)
    assert found.scale == pytest.approx(scale, rel=0.01)
    assert found.dispersion == pytest.approx(1, abs=0.15)
    assert not ((found.counts > 0) & (found.counts <= cut)).any()
    assert (found.counts == counts).mean() > 0.9


def test_public_crops_are_recovered(public_crops: list[Path]) -> None:
    found = [recover(read_picture(path)) for path in public_crops[::8]]
    assert np.mean([one.counts is not None for one in found]) >= 0.9  # of all 352: 0.95
    assert sum(one.cut > 0 for one in found) > 0.9 * len(found)


def test_an_inverted_picture_needs_the_option(counts: np.ndarray) -> None:
    inverted = 255 - exported(counts, 2.2)
    assert "--inverted" in recover(inverted).fault
    np.testing.assert_array_equal(recover(inverted, inverted=True).counts, counts)


def resized(grey: np.ndarray, factor: float, how: Image.Resampling = Image.Resampling.BICUBIC) -> np.ndarray:
    size = round(grey.shape[1] * factor), round(grey.shape[0] * factor)
    return np.asarray(Image.fromarray(grey).resize(size, how))


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        (lambda c: exported(c, 1.7, 95), "grey levels"),
        (lambda c: exported(c, 1.7, 90), "."),
        (lambda c: exported(c - 1, 2.3), "noise"),
        (lambda c: exported(c - 1.3, 2.3), "."),
        (lambda c: exported(c, 2.3) // 2 + 40, "."),
        (lambda c: exported(c, 255 / np.percentile(c[c > 0], 95)), "white"),
        (lambda c: exported(20 * (c / 20) ** 0.8, 2.3), "."),
        (lambda c: exported(20 * (c / 20) ** 1.2, 2.3), "."),
        (lambda c: exported(20 * np.sqrt(c), 1.0), "."),
        (lambda c: resized(exported(c, 2.3), 0.9), "."),
        (lambda c: resized(exported(c, 2.3), 1.1), "."),
        (lambda c: resized(exported(c, 2.3), 1.1, Image.Resampling.NEAREST), "neighbouring|noise"),
        (lambda c: np.asarray(Image.fromarray(exported(c, 2.3)).rotate(2, Image.Resampling.BICUBIC)), "."),
        (lambda c: np.zeros_like(c, dtype=np.uint8), "blank"),
        (lambda c: np.full_like(c, 255, dtype=np.uint8), "bright"),
    ],
    ids=[
        *(
            "jpeg 95",
            "jpeg 90",
            "one count taken off",
            "1.3 counts taken off",
            "offset",
            "saturated",
            "gamma 0.8",
        ),
        *("gamma 1.2", "square root", "smaller", "larger", "nearest", "turned", "blank", "white"),
    ],
)
@pytest.mark.parametrize("of", ["counts", "child"])
def test_anything_else_is_refused(request, of: str, how, fault: str) -> None:
    found = recover(how(request.getfixturevalue(of)))
    assert found.counts is None
    assert found.fault
    if fault != ".":
        assert any(word in found.fault for word in fault.split("|")), found.fault


def test_photographs_are_refused() -> None:
    from skimage import data

    for photo in (data.camera(), data.moon(), data.coins(), data.grass(), through_jpeg(data.brick(), 90)):
        assert recover(photo).counts is None


def test_pictures_are_read_as_they_are(tmp_path: Path) -> None:
    grey = exported(counts_of_a_body(), 2.0)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "rgb.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    for name in ("grey", "rgb", "palette"):
        np.testing.assert_array_equal(read_picture(tmp_path / f"{name}.png"), grey)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("colour.png", "in colour"),
        ("deep.png", "no 8-bit grey picture"),
        ("clear.png", "transparent"),
        ("text.png", "neither PNG nor JPEG"),
        ("half.jpg", "cannot be decoded"),
        ("none.png", "cannot be read"),
    ],
)
def test_pictures_that_are_not_8_bit_grey_are_refused(tmp_path: Path, name: str, fault: str) -> None:
    grey = exported(counts_of_a_body(), 2.0)
    colour = np.dstack([grey, grey, grey])
    colour[5, 5, 0] += 9
    Image.fromarray(colour).save(tmp_path / "colour.png")
    Image.fromarray(grey.astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([grey, np.full_like(grey, 9)]), "LA").save(tmp_path / "clear.png")
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(grey).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:3000])
    with pytest.raises(ScanError, match=fault) as caught:
        read_picture(tmp_path / name)
    assert caught.value.file == tmp_path / name
    assert caught.value.remedy


@pytest.mark.parametrize("quality", [None, 100])
def test_an_acquired_scan_survives_its_picture(real_scan: Path, quality: int | None) -> None:
    counts = read_nm(real_scan, views=(View.ANTERIOR,)).counts[0]
    scale = 1.37
    found = recover(exported(counts, scale, quality))
    assert found.fault == ""
    assert found.scale == pytest.approx(scale, rel=1e-3)
    shown = scale * counts < 250
    same = (found.counts == counts)[shown].mean()
    assert same == 1 if quality is None else same > 0.9
    assert 0.95 < found.dispersion < 1.13

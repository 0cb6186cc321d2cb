"""The page of `rbs segment`: its pictures hold exactly the colours of its legend."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from rbs.report.regions import ROWS, contours_png, shown, write_regions_page
from rbs.scans.regions import DESCRIBED, PALETTE
from rbs.scans.scan import REGIONS, Scan, View


def body(height=200, width=90):
    """A body left of the middle with a bright spot, and its labels (H, W)."""
    y, x = np.mgrid[:height, :width]
    inside = (np.abs(x - 30) < 18) & (np.abs(y - 110) < 70)
    counts = np.random.default_rng(0).poisson(np.where(inside, 9.0, 0.02))
    counts[100:104, 30:34] = 500
    labels = np.zeros((height, width), np.uint8)
    for value in range(1, len(REGIONS) + 1):
        labels[40 + 14 * value : 48 + 14 * value, 20:40] = value
    return counts, labels


def test_contours_have_the_colours_of_the_legend_and_inside_is_grey():
    counts, labels = body()
    picture = Image.open(io.BytesIO(contours_png(counts, labels)))
    scale = round(ROWS / len(counts))
    assert picture.size == (scale * counts.shape[1], scale * counts.shape[0])
    colours = np.asarray(picture.convert("RGB"))
    large = labels.repeat(scale, axis=0).repeat(scale, axis=1)
    for value in range(1, len(REGIONS) + 1):
        drawn = (colours == PALETTE[value]).all(axis=-1)
        assert drawn.any()
        assert (large[drawn] == value).all()  # no contour lies on a neighbour
        assert drawn.sum() < 0.6 * (large == value).sum()
    grey = (colours == colours[..., :1]).all(axis=-1)
    assert grey[large == 0].all()
    # Inverse grey: the spot is black, air white.
    assert colours[103 * scale - 1, 33 * scale - 1].tolist() == [0, 0, 0]
    assert colours[0, -1].tolist() == [255, 255, 255]


def test_views_are_as_the_camera_wrote_them_and_cut_to_the_body():
    counts, labels = body()
    both = np.stack([counts, counts[:, ::-1]])
    scan = Scan(both, (View.ANTERIOR, View.POSTERIOR), (2.0, 2.0), velocity=40.0)
    page = shown("a", scan, np.stack([labels, labels[:, ::-1]]), [], [])
    front, back = page.views
    assert (front.sides, back.sides) == (("R", "L"), ("L", "R"))
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(view.picture))).convert("RGB"))
        for view in page.views
    ]
    np.testing.assert_array_equal(pictures[1], pictures[0][:, ::-1])
    assert front.shape[0] < 0.95 * 2.0 * len(counts)
    assert page.about.endswith("counts; 40 cm/min")


@pytest.mark.parametrize("rows", [[], [{"view": "anterior", "region": "skull", "counts": "7 ± 3"}]])
def test_the_page_stands_alone_and_escapes_names(rows, tmp_path):
    counts, labels = body()
    scan = Scan(counts[None], (View.ANTERIOR,), (2.0, 2.0))
    page = shown("<script>x\x1b", scan, labels[None], rows, ["cut <off>"])
    write_regions_page([page], tmp_path / "index.html", segmenter="<b>net</b>")
    html = (tmp_path / "index.html").read_text()
    assert "<script" not in html
    assert "<b>net" not in html
    assert "&lt;script&gt;x\\x1b" in html
    assert "cut &lt;off&gt;" in html
    assert "http" not in html.replace("http-equiv", "")
    assert ("7 ± 3" in html) == bool(rows)
    for name in DESCRIBED:
        assert name in html

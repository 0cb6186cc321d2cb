"""The page of `rbs view`: the counts it holds, and what a reader can do with it in a browser."""

import base64
import json
import re
import zlib

import numpy as np
import pytest
from browser import acted

from rbs.errors import OutputError
from rbs.report.viewer import STEP, Image, Mark, geometry, packed, packed_scan, write_viewer_page
from rbs.scans.regions import HOT
from rbs.scans.scan import Scan, View

SHAPE = (120, 60)
BOTH = (View.ANTERIOR, View.POSTERIOR)


def decoded(image, shape=SHAPE):
    """Counts (views, rows, columns) of a packed image."""
    views = [np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u2") for text in image["values"]]
    return np.stack(views).reshape(-1, *shape) * image["step"]


def body(level=10.0):
    """Counts (2, rows, columns) of a rectangle that fills all but a margin, as cameras write it."""
    counts = np.zeros((2, *SHAPE), np.float32)
    counts[:, 20:100, 15:45] = level
    return counts


@pytest.mark.parametrize("largest", [3.0, 500.0, 60_000.0])
def test_counts_come_back_to_half_a_step(largest):
    counts = np.random.default_rng(0).uniform(0, largest, (2, *SHAPE)).astype(np.float32)
    image = packed(counts)
    assert image["step"] == pytest.approx(max(STEP, counts.max() / 65535))
    np.testing.assert_allclose(decoded(image), counts, atol=0.5001 * image["step"])


def test_whole_counts_up_to_a_thousand_come_back_exactly():
    counts = np.random.default_rng(0).poisson(300, (1, *SHAPE))
    np.testing.assert_array_equal(np.round(decoded(packed(counts)), 6), counts)


def test_geometry_is_that_of_the_aligned_views():
    counts = np.random.default_rng(0).poisson(body())
    counts[:, :, :15] = 0
    about = geometry(Scan(counts, BOTH, (2.0, 3.0)))
    assert [view["sides"] for view in about["views"]] == [("R", "L"), ("L", "R")]
    top, bottom, left, right = about["body"]
    assert top < 20 < 100 < bottom
    assert left < 15 < 45 < right
    assert (about["rows"], about["columns"], about["spacing"]) == (*SHAPE, [2.0, 3.0])


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A scan whose rapid image is uniform, and whose restorations have 4 and 9 counts in place of 10."""
    rapid = body()
    images = [
        Image("rapid scan", "rapid scan, 40 cm/min", rapid),
        Image("half", "<b>half", body(4.0), restored=True),
        Image("most", "most", body(9.0), restored=True),
        Image("standard scan", "standard scan", body(20.0)),
    ]
    labels = np.zeros((2, *SHAPE), np.uint8)
    labels[0, 40:60, 20:40] = HOT
    scan = packed_scan(
        Scan(rapid, BOTH, (2.0, 2.0), velocity=40.0),
        images,
        name="scan 1",
        about="about </script>",
        exposure=0.5,
        labels=labels,
        marks=[Mark(View.ANTERIOR, 50, 30, "1")],
        warnings=["it moves"],
    )
    path = tmp_path_factory.mktemp("page") / "page.html"
    other = {**scan, "name": "scan 2", "images": scan["images"][:2], "labels": None, "marks": []}
    write_viewer_page([scan, other], path, restorer="net")
    return path


def test_the_page_stands_alone_and_escapes_what_it_is_given(page):
    html = page.read_text()
    assert "about </script>" not in html
    assert "<b>half" not in html
    assert not re.search(r"https?:|src=|@import|url\(", html)
    assert "default-src 'none'" in html
    assert "Not for diagnostic use" in html
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html)[1])
    np.testing.assert_allclose(decoded(data["scans"][0]["images"][1]), body(4.0), atol=STEP / 2)


def test_a_page_is_not_replaced_unasked(page):
    before = page.read_text()
    with pytest.raises(OutputError, match="exists already"):
        write_viewer_page([], page, restorer="net")
    assert page.read_text() == before


@pytest.fixture(scope="module")
def found(page):
    """What a reader saw who tried all there is, in one visit of the browser."""
    begin = """await set("scan", 0); await ready(); await set("wipe", 0.5, "input");"""
    return acted(
        page,
        window="""
            const seen = [colour(0, 0.45, 0.5)];
            await press("ArrowUp"); seen.push(colour(0, 0.45, 0.5));
            await press("w"); seen.push(colour(0, 0.45, 0.5));
            await set("window", 1, "input"); seen.push(colour(0, 0.45, 0.5));
            return [JSON.parse(byId("data").textContent).scans[0].black, seen];
        """,
        wipe=begin
        + """
            await set("left", 1); await set("right", 3);
            const seen = [];
            for (const wipe of [0, 0.5, 1]) {
              await set("wipe", wipe, "input");
              seen.push([0, 1].map(n => [colour(n, 0.45, 0.5)[0], colour(n, 0.55, 0.5)[0]]));
            }
            return seen;
        """,
        keys=begin
        + """
            const both = () => [colour(0, 0.45, 0.5)[0], colour(0, 0.55, 0.5)[0]];
            await press("2", {code: "Digit2"}); await press("!", {code: "Digit1", shiftKey: true});
            const chosen = both();
            await press(" ");
            return [chosen, both()];
        """,
        blink=begin
        + """
            const seen = new Set(), still = new Set();
            await set("left", 1); await set("right", 3);
            await press("b");
            for (let n = 0; n < 30; n++) { seen.add(colour(0, 0.45, 0.5)[0]); await rest(140); }
            await press("b");
            for (let n = 0; n < 15; n++) { still.add(colour(0, 0.45, 0.5)[0]); await rest(140); }
            return [[...seen], [...still]];
        """,
        contours=begin
        + """
            const seen = [], red = n => {
              const data = pixels(n);
              let count = 0;
              for (let k = 0; k < data.length; k += 4) count += data[k] > data[k + 1] + 60;
              return count;
            };
            for (const key of ["0", "c", "c"]) { await press(key); seen.push([red(0), red(1)]); }
            await set("scan", 1); await ready();
            await press("c");
            return [...seen, [red(0), byId("contours").checked]];
        """,
        residual=begin
        + """
            await set("right", 2);
            await press("r");
            const canvas = document.querySelector("canvas"), box = canvas.getBoundingClientRect();
            canvas.dispatchEvent(new PointerEvent("pointermove",
              {clientX: box.left + box.width / 2 + 2, clientY: box.top + box.height / 2 - 2, bubbles: true}));
            const seen = [byId("under").value, colour(0, 0.5, 0.5), byId("of").textContent];
            await set("right", 0);
            seen.push(byId("of").textContent);
            await press("r");
            return seen;
        """,
        drag=begin
        + """
            await set("wipe", 1, "input");
            const edges = n => { // of the body, in shares of the width
              const dark = Array.from({length: 980}, (_, k) => colour(n, k / 1000, 0.5)[0] < 200);
              return [dark.indexOf(true) / 1000, dark.lastIndexOf(true) / 1000];
            };
            const seen = [[edges(0), edges(1)]];
            const canvas = document.querySelector("canvas"), box = canvas.getBoundingClientRect();
            canvas.setPointerCapture = () => {}; // the pointer is none of the browser's
            const event = (kind, x) => canvas.dispatchEvent(new PointerEvent(kind,
              {pointerId: 1, clientX: box.left + 100 + x, clientY: box.top + 100, bubbles: true}));
            event("pointerdown", 0); event("pointermove", 0.1 * box.width); event("pointerup", 0);
            await drawn();
            seen.push([edges(0), edges(1)]);
            await press("0");
            await press("+");
            seen.push([edges(0), edges(1)]);
            return seen;
        """,
        switched="""
            const own = planesOf;
            let wait = 300;
            planesOf = async (...given) => {
              const late = wait, planes = await own(...given);
              await rest(late);
              return planes;
            };
            const first = set("scan", 0);
            wait = 0;
            await set("scan", 1); await first; await rest(500);
            return [scan.name, images.length, byId("left").length, contours.length];
        """,
    )


def grey(value, black=30.0):
    return 255 - int(255 * min(value / black, 1) + 0.5)


def test_window_changes_the_grey_of_counts(found):
    black, seen = found["window"]
    assert black == pytest.approx(30.0), "1.5 times the largest"
    expected = [grey(10, level) for level in (30, 30 / 1.1, 30, 60)]
    assert seen == [[level, level, level, 255] for level in expected]


def test_wipe_divides_both_views_between_the_chosen_images(found):
    half, standard = grey(4), grey(20)
    assert found["wipe"] == [[[standard] * 2] * 2, [[half, standard]] * 2, [[half] * 2] * 2]


def test_keys_choose_and_swap_the_images(found):
    assert found["keys"] == [[grey(4), grey(10)], [grey(10), grey(4)]]


def test_blinking_shows_the_two_images_in_turn(found):
    seen, still = found["blink"]
    assert sorted(seen) == sorted([grey(4), grey(20)])
    assert still == [grey(4)]


def test_contours_are_drawn_on_the_view_they_belong_to(found):
    before, after, back, other = found["contours"]
    assert before == back == [0, 0]
    assert after[0] > 200
    assert after[1] == 0
    assert other == [0, False], "a scan without labels"


def test_residual_is_in_standard_deviations_of_smoothed_noise(found):
    under, (red, green, blue, _), of, of_none = found["residual"]
    # 10 - 9 counts; the variance 9 / 0.5 of white noise is divided by 4 pi (sigma / pixel)² pixels.
    z = 1 / np.sqrt(9 / 0.5 / (4 * np.pi * (4 / 2) ** 2))
    assert under == f"anterior, row 59, column 30: rapid scan 10.00, most 9.00 counts, residual {z:.1f} SD"
    assert green == pytest.approx(255 + (0x32 - 255) * z / 5, abs=2)
    assert red > blue > green - 10
    assert (of, of_none) == ('"most"', "a restored image: choose one")


def test_a_scan_that_is_unpacked_late_does_not_replace_the_one_chosen_after_it(found):
    assert found["switched"] == ["scan 2", 2, 2, 0]


def test_views_move_and_grow_together_and_mirrored(found):
    for front, back in found["drag"]:
        assert [1 - place for place in reversed(back)] == pytest.approx(front, abs=0.006)
    still, dragged, larger = (front for front, _ in found["drag"])
    assert np.subtract(dragged, still) == pytest.approx([0.1, 0.1], abs=0.006)
    assert larger[1] - larger[0] == pytest.approx(1.25 * (still[1] - still[0]), rel=0.03)

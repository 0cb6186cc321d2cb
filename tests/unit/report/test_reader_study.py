"""Reader studies: blinding, what the page gives, and sums that agree with scipy."""

import csv
import io
import json
import re

import numpy as np
import pytest
from browser import acted
from scipy.stats import binomtest, ttest_1samp

from rbs.errors import OutputError, RbsError
from rbs.report.reader_study import KEY, SCORES, design, summarise, write_study
from rbs.report.viewer import geometry, packed
from rbs.scans.scan import Scan, View

LEVELS = {"a": 5.0, "b": 10.0}
"""Counts by which the tests tell the images apart."""


def pairs(number):
    counts = np.zeros((2, 60, 30), np.float32)
    counts[:, 10:50, 8:22] = 1
    scan = Scan(counts, (View.ANTERIOR, View.POSTERIOR), (2.0, 2.0))
    return [
        {
            "name": f"Miller{n}",
            "files": {"a": f"restored/{n}.dcm", "b": f"standard/{n}.dcm"},
            "scan": {**geometry(scan), "black": 20.0},
            "images": {side: packed(level * counts + n * 0.02) for side, level in LEVELS.items()},
        }
        for n in range(number)
    ]


def test_every_pair_comes_once_some_twice_and_sides_are_balanced():
    for seed in range(20):
        trials = design(15, seed)
        first = [t for t in trials if not t.repeat]
        again = [t for t in trials if t.repeat]
        assert sorted(t.pair for t in first) == list(range(15))
        assert trials[15:] == again
        assert len(again) == 3
        assert {t.pair for t in again} <= {t.pair for t in first[:8]}, "long enough ago"
        assert sum(t.left == "a" for t in first) in (7, 8)
        assert all({t.left, t.right} == {"a", "b"} for t in trials)


def test_any_pair_may_come_anywhere_on_any_side():
    trials = [design(2, seed) for seed in range(60)]
    assert {(t[0].pair, t[0].left) for t in trials} == {(0, "a"), (0, "b"), (1, "a"), (1, "b")}
    assert {design(1, seed)[0].left for seed in range(20)} == {"a", "b"}
    again = [design(5, seed) for seed in range(60)]
    alike = [t.left == f.left for *first, t in again for f in first if f.pair == t.pair]
    assert 10 < sum(alike) < 50, "sides of the second time are drawn anew"
    assert design(9, 4) == design(9, 4) != design(9, 5)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A page of five pairs, and its key."""
    folder = tmp_path_factory.mktemp("study")
    key = write_study(pairs(5), folder / "study.html", seed=3)
    with key.open(newline="") as file:
        return folder / "study.html", list(csv.DictReader(file))


def data_of(page):
    text = page.read_text()
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1])


def test_the_page_tells_no_names_and_the_key_all(study):
    page, key = study
    text = page.read_text()
    for word in ("Miller", "restored", "standard", ".dcm", "_key", "repeat"):
        assert word not in text
    assert not re.search(r"https?:|src=|@import|url\(", text)
    assert page.with_name("study_key.csv").exists()
    assert [row["trial"] for row in key] == [str(n) for n in range(1, 7)]
    assert {row["study"] for row in key} == {data_of(page)["study"]}
    first = key[0]
    assert first["a"] == f"restored/{first['pair'][-1]}.dcm"


def test_numbers_of_images_do_not_tell_what_they_are(tmp_path):
    orders = set()
    for seed in range(8):
        page = tmp_path / f"{seed}.html"
        write_study(pairs(2), page, seed=seed)
        orders.add(tuple(image["values"][0] for image in data_of(page)["images"]))
    assert len(orders) > 3


def test_neither_file_is_left_or_replaced_where_one_cannot_be_written(tmp_path):
    (tmp_path / "study.html").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        write_study(pairs(1), tmp_path / "study.html", seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["study.html"]
    assert (tmp_path / "study.html").read_text() == "mine"


def test_the_key_of_a_study_is_never_replaced_by_that_of_another(tmp_path):
    page = tmp_path / "study.html"
    key = write_study(pairs(4), page, seed=0)
    before = key.read_text(), page.read_text()
    with pytest.raises(OutputError, match="key of another study") as refusal:
        write_study(pairs(4), page, seed=1, overwrite=True)
    assert refusal.value.file == key
    assert "another name" in refusal.value.remedy
    assert (key.read_text(), page.read_text()) == before
    page.write_text("half")
    write_study(pairs(4), page, seed=0, overwrite=True)
    assert key.read_text() == before[0]
    assert data_of(page)["study"] in before[0]


def test_a_page_that_cannot_be_written_takes_no_older_key_with_it(tmp_path, monkeypatch):
    page = tmp_path / "study.html"
    key = write_study(pairs(2), page, seed=0)
    before = key.read_text()

    def full(*_, **__):
        raise OutputError("the disk is full", file=page, remedy="make room")

    monkeypatch.setattr("rbs.report.reader_study.write_text", full)
    with pytest.raises(OutputError, match="full"):
        write_study(pairs(2), page, seed=0, overwrite=True)
    assert key.read_text() == before
    with pytest.raises(OutputError, match="full"):
        write_study(pairs(2), tmp_path / "new.html", seed=0)
    assert not (tmp_path / "new_key.csv").exists()


@pytest.fixture(scope="module")
def read(study):
    """What happened in a browser: all pairs looked at, two of them scored, another reader, and back."""
    page, _ = study
    choose = """
        const choose = async (name, value) => {
          document.querySelector(`input[name=${name}][value="${value}"]`).click(); await rest(20);
        };
        const saved = async () => {
          let blob;
          URL.createObjectURL = given => { blob = given; return "blob:none"; };
          HTMLAnchorElement.prototype.click = () => {};
          byId("download").click();
          return blob.text();
        };
    """
    return acted(
        page,
        images=choose
        + """
            const seen = [];
            for (;;) {
              seen.push([0, 2].map(n => colour(n, 0.5, 0.5)[0]));
              if (byId("next").disabled) break;
              byId("next").click(); await ready();
            }
            for (let n = 1; n < seen.length; n++) { byId("back").click(); await ready(); }
            return [seen, document.querySelector("fieldset").disabled];
        """,
        scores=choose
        + """
            await set("reader", "R,1");
            await choose("left_quality", 4); await choose("left_confidence", 5);
            await choose("right_quality", 2); await choose("right_confidence", 3);
            await choose("preference", "left");
            byId("comment").value = 'noisy, "grainy"\\nlegs';
            byId("comment").dispatchEvent(new Event("input"));
            byId("next").click(); await ready();
            const checked = document.querySelectorAll("input[type=radio]:checked").length;
            const empty = byId("comment").value + checked;
            await choose("preference", "none");
            return [await saved(), empty, byId("progress").value];
        """,
        others=choose
        + """
            await set("reader", "R2");
            const none = await saved();
            await set("reader", "R,1");
            const back = await saved();
            byId("back").click(); await ready();
            const quality = document.querySelector("input[name=left_quality]:checked").value;
            return [none, back, quality, byId("comment").value];
        """,
        early=choose
        + """
            byId("next").click();
            await choose("right_confidence", 1); await ready();
            return [await saved(), byId("where").value];
        """,
    )


def test_each_side_shows_what_the_key_says(study, read):
    _, key = study
    seen, closed = read["images"]
    assert closed, "nobody scores without a code"
    for row, (left, right) in zip(key, seen, strict=True):
        expected = {side: 255 - 255 * level / 20 for side, level in LEVELS.items()}
        assert left == pytest.approx(expected[row["left"]], abs=3)
        assert right == pytest.approx(expected[row["right"]], abs=3)


def test_scores_are_kept_as_entered_and_saved_as_csv(study, read):
    page, key = study
    text, empty, progress = read["scores"]
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert tuple(rows[0]) == SCORES
    assert (empty, progress) == ("0", "1 scored")
    first, second = rows
    assert (first["study"], first["reader"], first["trial"]) == (data_of(page)["study"], "R,1", "1")
    asked = ("left_quality", "left_confidence", "right_quality", "right_confidence", "preference")
    assert [first[name] for name in asked] == ["4", "5", "2", "3", "left"]
    assert first["comment"] == 'noisy, "grainy"\nlegs'
    assert [second[name] for name in asked] == ["", "", "", "", "none"]
    (summary,) = summarise(rows, key)
    side = key[0]["left"]
    assert summary.preferred == {"a": int(side == "a"), "b": int(side == "b"), "none": 1}
    assert getattr(summary.questions["quality"], side) == 4


def test_answers_while_images_load_are_to_the_pair_still_shown(read):
    text, where = read["early"]
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert where == "Pair 2 of 6"
    assert [row["right_confidence"] for row in rows] == ["1", ""]


def test_each_reader_has_scores_of_their_own(read):
    none, back, quality, comment = read["others"]
    assert none == ",".join(SCORES) + "\n"
    assert back == read["scores"][0]
    assert (quality, comment) == ("4", 'noisy, "grainy"\nlegs')


def scored(number=12, reader="R1", seed=0):
    """A key of `number` pairs, the first two of them twice, and random scores by a reader who likes b."""
    rng = np.random.default_rng(seed)
    places = [(n, "0") for n in range(number)] + [(0, "1"), (1, "1")]
    key, scores = [], []
    for trial, (pair, repeat) in enumerate(places, start=1):
        left, right = rng.permutation(["a", "b"])
        key.append(dict(zip(KEY, ("s", str(trial), f"p{pair}", left, right, repeat, "x", "y"), strict=True)))
        given = {"a": int(rng.integers(1, 4)), "b": int(rng.integers(2, 6))}
        liked = rng.choice(["a", "b", "none"], p=[0.2, 0.6, 0.2])
        preference = "none" if liked == "none" else "left" if left == liked else "right"
        values = given[left], 3, given[right], 4, preference, "", ""
        scores.append(dict(zip(SCORES, map(str, ("s", reader, trial, *values)), strict=True)))
    return scores, key


def test_sums_agree_with_scipy():
    scores, key = scored()
    (summary,) = summarise(scores, key)
    of = {row["trial"]: row for row in key}
    quality = {"a": [], "b": []}
    preferred = []
    for row in scores[:12]:
        for side in ("left", "right"):
            quality[of[row["trial"]][side]].append(int(row[f"{side}_quality"]))
        preferred.append(of[row["trial"]].get(row["preference"], "none"))
    one = summary.questions["quality"]
    assert (one.a, one.b) == (np.mean(quality["a"]), np.mean(quality["b"]))
    differences = np.subtract(quality["b"], quality["a"])
    assert (one.low, one.high) == pytest.approx(ttest_1samp(differences, 0).confidence_interval())
    a, b = preferred.count("a"), preferred.count("b")
    test = binomtest(b, a + b)
    assert summary.preferred == {"a": a, "b": b, "none": 12 - a - b}
    assert (summary.low, summary.high) == pytest.approx(test.proportion_ci(method="exact"))
    assert summary.p == pytest.approx(test.pvalue)
    assert (summary.pairs, summary.scored, summary.repeats) == (12, 12, 2)
    same = [of[s["trial"]].get(s["preference"], "none") for s in scores[12:]]
    assert summary.same_preference == sum(x == y for x, y in zip(same, preferred[:2], strict=True))
    assert f"b in {100 * b / (a + b):.0f} %" in str(summary)


def test_readers_are_summed_up_apart_and_gaps_are_left_out():
    scores, key = scored()
    more, _ = scored(reader="R2")
    gaps = [{**row, "left_quality": ""} for row in more[:3]]
    first, second = summarise([*gaps, *scores], key)
    assert (first.reader, second.reader) == ("R1", "R2")
    assert (second.scored, second.pairs, second.repeats) == (3, 12, 0)
    assert list(second.questions) == ["confidence"]
    assert "shown twice" not in str(second)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"study": "other"}, "the key has no trial 1 of study other"),
        ({"left_quality": "6"}, "quality is 6"),
        ({"preference": "b"}, "preference is b"),
        ({"trial": "2"}, "reader R1 scored trial 2 twice"),
    ],
)
def test_scores_that_do_not_fit_are_refused(changes, fault):
    scores, key = scored()
    with pytest.raises(RbsError, match=fault) as refusal:
        summarise([{**scores[0], **changes}, *scores[1:]], key)
    assert refusal.value.remedy

"""The report is one page that needs nothing else, and says what it must."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from itertools import product
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from rbs.errors import RbsError
from rbs.report import figures
from rbs.report.page import write_report
from rbs.report.pictures import choice
from rbs.report.tables import (
    difference_tables,
    headline_table,
    number,
    read_evaluation,
    score_tables,
    set_table,
    training_logs,
    verdict,
)

REFERENCES = {"ceiling": "Perfect restoration", "repeat": "Another standard scan"}
METHODS = {"rapid": "Rapid scan", "gaussian": "Gaussian, 3 mm", "nlm": "NLM <b>", "stage1": "Stage 1"}


@pytest.fixture
def evaluation(tmp_path):
    """A folder as `rbs evaluate` leaves it."""
    folder = tmp_path / "evaluation"
    folder.mkdir()
    metrics = [
        {"name": "nc_psnr", "label": "NC-PSNR", "unit": "dB", "higher_is_better": True, "pooled_from": "x"},
        {"name": "psnr", "label": "PSNR", "unit": "dB", "higher_is_better": True},
        {"name": "count_bias", "label": "Count bias", "unit": "%", "higher_is_better": None},
        {"name": "lpips", "label": "LPIPS", "unit": "", "higher_is_better": False},
        {"name": "psnr_truth", "label": "PSNR truth", "unit": "dB", "higher_is_better": True},
    ]
    for metric in metrics:
        metric |= {"reference": "a scan", "definition": f"formula of {metric['name']}", "printed": True}
        metric |= {"group": "Against the scan", "mask": "body", "peak": "P", "ideal": 0.0}
    metrics[0]["group"] = metrics[4]["group"] = "Against the truth"
    settings = {
        "command": "rbs evaluate m.csv",
        "manifest": "m.csv",
        "manifest_sha256": "0" * 64,
        "split": "test",
        "patients": 2,
        "scans": 2,
        "exposures": [0.5],
        "peak": "peak of the scan",
        "mask": "the mask of the body",
        "methods": [{"name": n, "label": label, "settings": {}} for n, label in METHODS.items()],
        "peers": ["rapid", "gaussian", "nlm"],
        "references": REFERENCES,
        "against": None,
        "metrics": metrics,
        "sets": [
            {"name": name, "label": name.upper(), "unit": "", "higher_is_better": False, "mask": "tiles"}
            | {"peak": "P", "definition": f"formula of {name}", "reference": "a set"}
            for name in ("fid", "kid")
        ],
        "tiles": "squares",
        "inception_sha256": "1" * 64,
        "pictures": [{"case": 0, "patient": "P1", "age_y": 7.26, "views": ["anterior", "posterior"]}],
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    rows = ["method,metric,patients,mean,low,high", "ceiling,psnr,2,28.765,28,29", "ceiling,lpips,2,0.4,,"]
    rows += ["ceiling,nc_psnr,2,31,,", "ceiling,psnr_truth,2,inf,,", "ceiling,count_bias,2,0.001,,"]
    rows += ["repeat,psnr,2,25.5,24,26"]
    for k, name in enumerate(METHODS):
        rows += [f"{name},nc_psnr,2,{30 + k},{29 + k},inf", f"{name},psnr,2,{25 + k / 10},24,26"]
        rows += [f"{name},count_bias,2,{2 - k},-3,3", f"{name},lpips,2,{0.1 + k},0.05,5"]
    (folder / "summary.csv").write_text("\n".join(rows))
    (folder / "differences.csv").write_text(
        "metric,method,against,patients,better,worse,difference,low,high,p,p_holm,p_least\n"
        "psnr,rapid,gaussian,8,0,8,-2.5,-3,-2,0.008,0.023,0.023\n"
        "psnr,nlm,gaussian,8,3,5,-0.1,-1,1,0.7,0.7,0.023\n"
        "psnr,stage1,gaussian,8,8,0,1.25,1,1.5,0.008,0.023,0.023\n"
        "lpips,stage1,rapid,5,1,4,0.3,0.2,0.4,,,0.0625\n"
    )
    (folder / "sets.csv").write_text(
        "method,metric,tiles,value\nceiling,fid,40,90\nrepeat,fid,40,20\nrapid,fid,40,30\nstage1,fid,40,95.25\n"
        "repeat,kid,40,-0.00012\nrapid,kid,40,0.1\nstage1,kid,40,0.2\n"
    )
    (folder / "regions.csv").write_text(
        "patient,case,method,region,bias_percent\n"
        "a,0,rapid,skull,1\na,1,rapid,skull,2\nb,2,rapid,skull,6.5\na,0,stage1,skull,-3\n"
    )
    y, x = np.mgrid[0:160, 0:48]
    body = 9.0 * ((np.abs(x - 24) < 12) & (np.abs(y - 80) < 70))
    truth = np.stack([body, body])
    arrays = dict.fromkeys((*METHODS, "standard"), truth + 0.1) | {"truth": truth, "peak": 9.0}
    arrays["spacing_mm"] = (2.0, 2.0)
    np.savez_compressed(folder / "pictures.npz", **{f"0/{k}": np.asarray(v) for k, v in arrays.items()})
    return folder


@pytest.fixture
def training(tmp_path):
    folder = tmp_path / "stage1"
    for version in (2, 10):
        (folder / f"version_{version}").mkdir(parents=True)
        (folder / f"version_{version}" / "metrics.csv").write_text(
            "epoch,step,train/total,val/nc_psnr\n0,0,3.5,\n0,10,2.5,\n0,10,,31.5\n1,20,2.0,\n1,20,,32.5\n"
        )
    return folder


class Loads(HTMLParser):
    """Collects all that a browser would fetch, and the text."""

    def __init__(self, html):
        super().__init__()
        self.fetched, self.text, self.tags = [], "", []
        self.unfolded = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")

    def handle_data(self, data):
        self.text += data
        if self.tags.count("details") == self.tags.count("/details"):
            self.unfolded += data


def test_page_is_self_contained_and_complete(evaluation, training, tmp_path):
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "dice.csv").write_text(
        "mode,level,skull,legs\nlora,rapid,0.9,\nlora,standard,0.92,0.8\n"
    )
    write_report([evaluation, training, tmp_path / "teacher"], tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    page = Loads(html)
    assert page.fetched
    assert all(source.startswith("data:image/png;base64,") for source in page.fetched)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert not re.search(r"url\(|@import", html)
    for text in (*METHODS.values(), *REFERENCES.values(), "28.77", "Research use only", "formula of nc_psnr"):
        assert text in page.text
    for text in (
        "+1.25",
        "better in 8 of 8 patients, p = 0.023",
        "the best mean among Rapid scan, Gaussian",
        "95.2",
    ):
        assert text in page.text
    assert "the mask of the body" in page.text
    assert "0.920" in page.text
    assert "version_10" in page.text
    assert "version_2" not in page.text
    assert page.fetched[0][22:].startswith("iVBOR")  # the PNG signature in base64
    assert len(page.fetched) == 1 + 3 + 1 + 1
    # Nothing of this is folded away; the rest is, but not on paper.
    assert page.tags.index("img") < page.tags.index("table") < page.tags.index("details")
    assert page.tags[: page.tags.index("details")].count("table") == 1
    assert "Bold: the best of the column" in page.unfolded
    assert "p = 0.023" not in page.unfolded
    print_rules = html[html.index("@media print") : html.index("</style>")]
    assert "details::details-content { content-visibility: visible" in print_rules


def test_names_of_folders_cannot_steer_the_page(evaluation, tmp_path):
    named = evaluation.rename(tmp_path / "caf\udce9\x1b[31m\u202e")
    write_report([named], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "caf\\udce9\\x1b[31m\\u202e" in page
    assert not set(page) & {"\x1b", "\u202e"}


def test_the_headline_table_has_five_columns_without_intervals(evaluation):
    metrics = ["NC-PSNR", "Count bias", "PSNR", "LPIPS"]  # PSNR truth has no value
    table = headline_table(read_evaluation(evaluation))
    assert [label for label, _ in table.columns] == metrics
    settings = json.loads((evaluation / "settings.json").read_text())
    for k in range(3):
        settings["metrics"].append(settings["metrics"][1] | {"name": f"m{k}", "label": f"M{k}"})
    (evaluation / "settings.json").write_text(json.dumps(settings))
    with open(evaluation / "summary.csv", "a") as file:
        file.writelines(f"\nrapid,m{k},2,1,," for k in range(3))
    table = headline_table(read_evaluation(evaluation))
    assert [label for label, _ in table.columns] == [*metrics, "M0"]
    assert not any(cell.interval for _, cells in table.rows for cell in cells)
    assert [label for label, cells in table.rows if cells[0].best] == ["Stage 1"]


def without_truth(evaluation, patients=1):
    """Turn it into the evaluation of real adults, of whom neither truth nor age is known."""
    settings = json.loads((evaluation / "settings.json").read_text())
    settings |= {"patients": patients, "scans": patients}
    settings["pictures"] = [
        {"case": 0, "patient": "adult", "age_y": None, "views": ["anterior", "posterior"]}
    ]
    (evaluation / "settings.json").write_text(json.dumps(settings))
    summary = pd.read_csv(evaluation / "summary.csv")
    real = (summary["method"] != "repeat") & (summary["metric"] != "psnr_truth")
    summary[real & ((summary["method"] != "ceiling") | (summary["metric"] == "psnr"))].to_csv(
        evaluation / "summary.csv", index=False
    )
    sets = pd.read_csv(evaluation / "sets.csv")
    sets[~sets["method"].isin(["ceiling", "repeat"])].to_csv(evaluation / "sets.csv", index=False)
    with np.load(evaluation / "pictures.npz") as arrays:
        kept = {name: array for name, array in arrays.items() if not name.endswith("/truth")}
    np.savez_compressed(evaluation / "pictures.npz", **kept)
    return evaluation


def test_the_page_of_a_real_adult_says_only_what_its_data_hold(evaluation, tmp_path):
    write_report([without_truth(evaluation)], tmp_path / "report.html")
    page = Loads((tmp_path / "report.html").read_text())
    for text in ("Against the truth", "rowth plates", "youngest", "hantom", "Another standard scan", "λ"):
        assert text not in page.text, text
    for text in ("1 scan of 1 patient,", "Patient adult", "Knees, enlarged", "restored minus standard scan"):
        assert text in page.text, text
    assert "Noise-corrected comparison with the standard scan" in page.text
    assert "Perfect restoration" in page.text


def test_the_page_of_phantoms_says_what_is_known_of_them(evaluation, tmp_path):
    settings = json.loads((evaluation / "settings.json").read_text())
    focus = {"row": 40, "column": 24, "fwhm_mm": 8.2, "contrast": 1.6, "region": "spine", "kind": "hot"}
    settings["pictures"][0]["foci"] = [focus, focus | {"contrast": 0.4, "kind": "cold", "region": "skull"}]
    (evaluation / "settings.json").write_text(json.dumps(settings))
    write_report([evaluation], tmp_path / "report.html")
    text = Loads((tmp_path / "report.html").read_text()).text
    for known in ("Against the truth", "Growth plates at the knees", "restored minus truth", "λ"):
        assert known in text
    assert "a focus (hot, 8 mm, spine, anterior view)" in text


@pytest.mark.parametrize(
    ("patients", "ages", "sentence"),
    [
        ("a", [7.0], ""),
        ("abc", [3.0, 7.0, 12.0], "the middle one by age, the youngest and the oldest of 9 scans"),
        ("abc", [None, 7.0, 12.0], "are 3 of 9 scans"),
        ("aaa", [3.0, 3.0, 3.0], "are 3 of 9 scans"),
    ],
)
def test_the_choice_of_cases_is_told_only_where_there_was_one(evaluation, patients, ages, sentence):
    settings = json.loads((evaluation / "settings.json").read_text())
    settings["pictures"] = [{"patient": p, "age_y": a} for p, a in zip(patients, ages, strict=True)]
    settings["scans"] = 9 if len(patients) > 1 else 1
    (evaluation / "settings.json").write_text(json.dumps(settings))
    told = choice(read_evaluation(evaluation))
    assert sentence in told
    assert bool(sentence) == bool(told)


def test_a_training_too_short_for_a_curve_is_named(evaluation, tmp_path, caplog):
    short = write_log(tmp_path / "short" / "version_0" / "metrics.csv", "step,train/x 10,1.0").parents[1]
    validated = write_log(tmp_path / "validated" / "metrics.csv", "step,val/x,train/x 0,30.5,").parent
    for run in (short, validated):
        with pytest.raises(RbsError, match=rf"{run.name}.*fewer than two points.*train for more steps"):
            write_report([run], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
    write_report([evaluation, short], tmp_path / "report.html")
    sentence = f"{short} (version_0): its training log has fewer than two points"
    assert sentence in Loads((tmp_path / "report.html").read_text()).text
    assert sentence in caplog.text


def test_score_table_marks_the_best_only_where_that_means_something(evaluation):
    tables = score_tables(read_evaluation(evaluation))
    assert [table.title for table in tables] == ["Against the truth", "Against the scan"]
    # PSNR to the truth is known for the ceiling alone, so it is no column.
    assert [[label for label, _ in t.columns] for t in tables] == [
        ["NC-PSNR"],
        ["PSNR", "Count bias", "LPIPS"],
    ]
    best = {
        column[0]: [label for label, cells in table.rows if cells[k].best]
        for table in tables
        for k, column in enumerate(table.columns)
    }
    # LPIPS finds the rapid scan better than the truth; the ceilings of the two others are zero but
    # for noise.
    assert best == {"NC-PSNR": ["Stage 1"], "PSNR": ["Stage 1"], "Count bias": ["NLM <b>"], "LPIPS": []}
    references = {label: [cell.text for cell in cells] for label, cells in tables[1].references}
    assert references == {
        "Perfect restoration": ["28.77", "0.00", "0.400"],
        "Another standard scan": ["25.50", "", ""],
    }
    assert [label for label, _ in tables[0].references] == ["Perfect restoration"]
    assert tables[0].rows[0][1][0].interval == "29.00 to not resolvable"


def test_methods_that_are_equally_good_are_all_marked(evaluation):
    summary = pd.read_csv(evaluation / "summary.csv")
    methods = set(read_evaluation(evaluation).labels)
    tied = summary["metric"].eq("psnr") & summary["method"].isin(methods)
    summary.loc[tied, "mean"] = 20.0
    summary.to_csv(evaluation / "summary.csv", index=False)
    table = score_tables(read_evaluation(evaluation))[1]
    assert len(methods) > 1
    assert all(cells[0].best for _, cells in table.rows)


def test_a_wide_group_is_printed_as_several_tables(evaluation):
    settings = json.loads((evaluation / "settings.json").read_text())
    for k in range(8):
        settings["metrics"].append(settings["metrics"][1] | {"name": f"m{k}", "label": f"M{k}"})
    (evaluation / "settings.json").write_text(json.dumps(settings))
    with open(evaluation / "summary.csv", "a") as file:
        file.writelines(f"\nrapid,m{k},2,1,," for k in range(8))
    tables = score_tables(read_evaluation(evaluation))
    assert [(t.title, len(t.columns)) for t in tables[1:]] == [
        ("Against the scan", 6),
        ("Against the scan", 5),
    ]


def test_differences_are_told_in_words(evaluation):
    (table,) = difference_tables(read_evaluation(evaluation))
    rows = dict(table.rows)
    assert table.columns[0] == ("PSNR", "dB, higher is better; against Gaussian, 3 mm")
    assert rows["Gaussian, 3 mm"][0].remark == "comparator"
    assert (rows["Stage 1"][0].text, rows["Stage 1"][0].interval) == ("+1.25", "1.00 to 1.50")
    assert [cells[0].best for _, cells in table.rows] == [False, False, False, True]
    assert rows["Rapid scan"][0].remark == "worse in 8 of 8 patients, p = 0.023"
    assert rows["NLM <b>"][0].remark == "no difference shown: better in 3 of 8 patients, p = 0.7"
    assert rows["Stage 1"][1].remark == "too few to test: better in 1 of 5 patients"
    assert rows["Rapid scan"][1].remark == "comparator"
    text = table.as_text().splitlines()
    assert text[1] == "PSNR (dB, higher is better; against Gaussian, 3 mm)"
    assert "  Gaussian, 3 mm                     –  comparator" in text


@pytest.mark.parametrize(
    ("higher", "difference", "better", "p", "least", "words"),
    [
        (True, 0.5, 7, 0.0004, 0.0001, "better in 7 of 8 patients, p < 0.001"),
        (False, 0.5, 1, 0.04, 0.03, "worse in 7 of 8 patients, p = 0.04"),
        (None, -0.5, 8, 0.04, 0.03, "better in 8 of 8 patients, p = 0.04"),
        (True, 0.5, 1, 0.04, 0.03, "better in 1 of 8 patients, p = 0.04, yet the mean says the opposite"),
        (
            *(True, 0.5, 8, 0.0625, 0.0625),
            "too few for so many methods (p at least 0.062): better in 8 of 8 patients",
        ),
    ],
)
def test_verdicts(higher, difference, better, p, least, words):
    row = {"patients": 8, "better": better, "worse": 8 - better, "difference": difference}
    assert verdict(row | {"p_holm": p, "p_least": least}, {"higher_is_better": higher}) == words


def test_set_figures_are_not_bold_where_perfection_is_passed(evaluation):
    table = set_table(read_evaluation(evaluation))
    assert [cell.text for cell in dict(table.rows)["Rapid scan"]] == ["30.0", "0.1000"]
    assert dict(table.references)["Another standard scan"][1].text == "\N{MINUS SIGN}0.0001"
    # By FID the rapid scan beats perfection; of KID no ceiling is known.
    assert [cell.best for cell in dict(table.rows)["Rapid scan"]] == [False, True]
    (evaluation / "sets.csv").write_text("method,metric,tiles,value\n")
    assert set_table(read_evaluation(evaluation)) is None


def test_every_figure_of_the_page_is_written_as_a_file(evaluation, training, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "VECTOR_DPI", 20)  # the test looks at no pixel, nor at the page
    monkeypatch.setattr(figures, "png", lambda figure: b"")
    folder = tmp_path / "figures"
    write_report([evaluation, training], tmp_path / "report.html", figure_folder=folder)
    names = ["differences", *(f"p1-{name}" for name in ("difference-to-the-truth", "knees", "overview"))]
    names.append("p1-whole-scan")
    names = [f"evaluation-{name}" for name in names]
    found = sorted(path.stem for path in folder.glob("*.svg"))
    assert found[:5] == names
    assert len(found) == 6
    assert found[5].startswith("training-")
    assert sorted(path.stem for path in folder.glob("*.pdf")) == found
    svg = ElementTree.parse(folder / "evaluation-differences.svg").getroot()
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    assert "Gaussian, 3 mm" in "".join(svg.itertext())
    for path in folder.glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF-")
        assert path.read_bytes().rstrip().endswith(b"%%EOF")
    # Two evaluations of one name keep apart; and the same results give the same files.
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = shutil.copytree(evaluation, tmp_path / "b" / "evaluation")
    settings = json.loads((other / "settings.json").read_text()) | {"pictures": []}
    (other / "settings.json").write_text(json.dumps(settings))
    write_report([evaluation, other], tmp_path / "report.html", figure_folder=folder)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"evaluation-differences-2.pdf", "evaluation-differences-2.svg"}


def test_many_methods_are_shown_in_several_rows(monkeypatch):
    counts = np.zeros((2, 64, 40))
    counts[:, 10:50, 4:20] = 5
    panels = {f"method {k}": counts for k in range(11)}
    figure = figures.views_figure(panels, ["anterior", "posterior"], 9.0, (2.0, 2.0))
    drawn = [axis for axis in figure.axes if axis.get_images()]
    assert len(drawn) == 22
    assert len(figure.axes) == 24
    titles = {axis.get_title(): axis.get_position().bounds for axis in drawn if axis.get_title()}
    assert len(titles) == 11
    # Six in the first row of columns, five below; all of one width, and no title on a picture above
    # it.
    tops = [titles[f"method {k}"][1] for k in range(11)]
    assert len(set(np.round(tops[:6], 6))) == len(set(np.round(tops[6:], 6))) == 1
    assert tops[0] > tops[6]


def test_region_table_weighs_patients(evaluation):
    from rbs.report.tables import region_table

    rows = dict(region_table(read_evaluation(evaluation)).rows)
    assert rows["Rapid scan"][0].text == "4.0"
    assert rows["Stage 1"][0].text == "\N{MINUS SIGN}3.0"
    assert rows["NLM <b>"][0].text == ""


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(RbsError, match=r"nothing to report"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(RbsError, match=r"missing.*no such folder"):
        write_report([tmp_path / "missing"], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


# Half a CSV is one, and without it the folder is no evaluation.
@pytest.mark.parametrize(
    ("broken", "rest"),
    [
        *product(("summary.csv", "differences.csv", "sets.csv"), (b"x", None)),
        *product(("settings.json", "pictures.npz"), (b"x", 0.5, None)),
    ],
)
def test_damaged_results_are_named(evaluation, tmp_path, broken, rest):
    file = evaluation / broken
    if rest is None:
        file.unlink()
    else:
        whole = file.read_bytes()
        file.write_bytes(rest if isinstance(rest, bytes) else whole[: int(rest * len(whole))])
    with pytest.raises(RbsError, match="evaluation"):
        write_report([evaluation], tmp_path / "report.html")


def test_contamination_below_the_feet_is_no_part_of_the_body():
    counts = np.zeros((2, 200, 60))
    counts[:, 20:150, 20:40] = 5
    counts[:, 180:184, 28:32] = 50
    rows, columns = figures.body_box({"a": counts})
    assert (rows.stop < 170, columns.start > 5) == (True, True)


def test_a_focus_is_cut_out_of_the_view_that_sees_it_best():
    truth = np.ones((2, 100, 80))
    truth[1, 98, 40] = 9
    cut = figures.around("focus", (98, 40), truth, (2.0, 2.5))
    # 100 mm a side, moved to lie within the image.
    assert cut.place == (1, slice(50, 100), slice(20, 60))


def test_the_posterior_view_is_shown_as_the_camera_saw_it(monkeypatch):
    shown = {}
    monkeypatch.setattr(figures, "_grid", lambda cuts, *_, **__: shown.update(cuts) or b"")
    counts = np.zeros((2, 64, 40))
    counts[:, 10:50, 4:20] = 5
    counts[:, 20:24, 4:8] = 50
    figures.views_figure({"a": counts}, ["anterior", "posterior"], 9.0, (2.0, 2.0))
    anterior, posterior = shown["a"]
    np.testing.assert_array_equal(posterior, anterior[:, ::-1])
    assert anterior.max() == 50
    assert anterior.shape[1] < 40


def write_log(file, text):
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(text.split()))
    return file


def test_the_versions_of_a_run_are_joined_by_step(tmp_path):
    """Resumed at step 20 and, as version 10, at step 30; version 2 came before version 10."""
    run, alone = tmp_path / "a", tmp_path / "b" / "metrics.csv"
    files = [
        write_log(run / "version_10" / "metrics.csv", "step,train/x,val/y 40,0.4,"),
        write_log(run / "version_0" / "metrics.csv", "step,train/x 10,1.0 20,0.8 30,9.0"),
        write_log(run / "version_2" / "metrics.csv", "step,train/x,val/y 30,0.6, 30,,5 40,9.0, 50,9.0,"),
        write_log(alone, "step,train/x 1,1.0 2,0.8"),
    ]
    logs = training_logs(files)
    assert [log.title for log in logs] == [f"{run} (version_0, version_2, version_10)", str(alone.parent)]
    points = logs[0].table[["step", "train/x"]].dropna().to_numpy().tolist()
    assert points == [[10, 1.0], [20, 0.8], [30, 0.6], [40, 0.4]]
    assert logs[0].table["val/y"].dropna().tolist() == [5]


def test_a_version_that_trained_nothing_hides_none_that_did(tmp_path):
    trained = write_log(tmp_path / "version_0" / "metrics.csv", "step,train/x 10,1.0 20,0.8")
    validated = write_log(tmp_path / "version_1" / "metrics.csv", "step,val/x,train/x 0,30.5,")
    (log,) = training_logs([trained, validated])
    assert log.table["step"].tolist() == [10, 20]
    (log,) = training_logs([validated])
    assert log.table.empty


def test_a_fresh_run_under_an_old_name_replaces_it(tmp_path):
    old = write_log(tmp_path / "version_0" / "metrics.csv", "step,train/x 10,1.0 20,0.8")
    new = write_log(tmp_path / "version_1" / "metrics.csv", "step,train/x 10,2.0")
    (log,) = training_logs([old, new])
    assert log.table["train/x"].tolist() == [2.0]


@pytest.mark.parametrize("text", ["", "step,train/x ten,1.0"])
def test_a_damaged_training_log_is_named(tmp_path, text):
    file = write_log(tmp_path / "version_0" / "metrics.csv", text)
    with pytest.raises(RbsError, match="no training log") as caught:
        training_logs([file])
    assert caught.value.file == file


@pytest.mark.parametrize(
    ("value", "text"),
    [(float("nan"), ""), (float("inf"), "∞"), (-1.234, "\N{MINUS SIGN}1.23"), (-0.004, "0.00")],
)
def test_numbers_in_print(value, text):
    assert number(value, 2) == text


def test_report_does_not_load_torch():
    import subprocess

    code = "import sys, rbs.report.page, rbs.report.figures; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

"""Ablations, sweeps and the costs of a benchmark on the page."""

import base64
import json

import pytest

from rbs.errors import RbsError
from rbs.report.page import write_report
from rbs.report.searches import ablation_figure, ablation_tables, cost_table, read_ablation, sweep_table

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def ablation(tmp_path):
    """A folder as `rbs ablation` leaves it, with one of its trainings."""
    folder = tmp_path / "ablation"
    (folder / "full" / "seed_1" / "version_0").mkdir(parents=True)
    (folder / "full" / "seed_1" / "version_0" / "metrics.csv").write_text("step,train/total\n1,2.0\n2,1.0\n")
    about = {
        "title": "Ablation of stage2",
        "what": "1 patient of the split `val`",
        "labels": {"full": "SPI + SKD + SCM", "stage1_goes_on": "stage 1 goes on"},
        "regimes": {"few": "16 children"},
        "images": {"val": "val split"},
        "metrics": [
            {"name": "psnr_truth", "label": "PSNR truth", "unit": "dB", "group": "Against the truth"},
            {"name": "ssim_truth", "label": "SSIM truth", "unit": "", "group": "Against the truth"},
            {"name": "psnr_spine", "label": "PSNR spine", "unit": "dB", "group": "By region"},
        ],
        "main": {"val": "psnr_truth"},
        "references": {"f1": ["stage1_goes_on"]},
        "words": ["**SPI does not help**: averaged over the other modules, nothing <of `note`>."],
    }
    (folder / "ablation.json").write_text(json.dumps(about))
    (folder / "ablation.csv").write_text(
        "images,regime,row,network,metric,unit,value,reference,difference,low,high,p,p_holm,verdict\n"
        "val,few,full,f1,psnr_truth,dB,33.912,stage1_goes_on,-0.0124,-0.03,0.01,0.2,0.4,no difference\n"
        "val,few,stage1_goes_on,f1,psnr_truth,dB,33.924,,,,,,,\n"
        "val,few,full,f1,ssim_truth,,0.91234,stage1_goes_on,0.0001,0,0.0002,0.0004,0.0004,better\n"
        "val,few,stage1_goes_on,f1,ssim_truth,,0.91224,,,,,,,\n"
        "val,few,full,f1,psnr_spine,dB,30.5,stage1_goes_on,0.5,0.4,0.6,0.01,0.02,better\n"
        "val,few,stage1_goes_on,f1,psnr_spine,dB,30,,,,,,,\n"
    )
    return folder


def test_rows_values_and_differences(ablation):
    table, regions = ablation_tables(read_ablation(ablation))
    assert table.title == "f1, 16 children, val split"
    assert table.columns == [
        ("PSNR truth", "dB"),
        ("SSIM truth", ""),
        ("PSNR truth", "minus stage 1 goes on"),
    ]
    full, control = (cells for _, cells in table.rows)
    assert [cell.text for cell in full] == ["33.91", "0.9123", "−0.012"]
    assert (full[2].interval, full[2].remark) == ("−0.030 to 0.010", "p = 0.4, no difference")
    assert [cell.text for cell in control] == ["33.92", "0.9122", ""]
    assert regions.columns == [("PSNR spine", "minus stage 1 goes on, dB")]
    assert [(label, cells[0].text) for label, cells in regions.rows] == [("SPI + SKD + SCM", "+0.500")]


def test_differences_are_drawn_where_they_lie(ablation):
    (axis,) = ablation_figure(read_ablation(ablation)).axes
    assert axis.containers[0].lines[0].get_xdata() == pytest.approx([-0.0124])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["SPI + SKD + SCM", "stage 1 goes on"]


def test_its_words_are_on_the_page_and_its_trainings_are_not(ablation, tmp_path):
    write_report([ablation], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<li><strong>SPI does not help</strong>: averaged" in page
    assert "nothing &lt;of <code>note</code>&gt;." in page
    assert "1 patient of the split <code>val</code>" in page
    assert "`" not in page
    assert "seed_1" not in page


def test_a_damaged_ablation_is_refused(ablation):
    (ablation / "ablation.json").write_text("{}")
    with pytest.raises(RbsError, match=r"incomplete or damaged.*run `rbs ablation` again"):
        read_ablation(ablation)


def test_a_sweep_is_listed_best_first_with_its_figure(tmp_path):
    (tmp_path / "sweep.csv").write_text(
        "run,state,val/nc_psnr,minutes,model.lr,model.f1\n0007,finished,33.51,4.2,0.00123,NAFNet\n"
        "0002,stopped,30.1,1.0,0.1,NAFNet\n"
    )
    (tmp_path / "sweep.png").write_bytes(PIXEL)
    table = sweep_table(tmp_path / "sweep.csv")
    assert [name for name, _ in table.rows] == ["0007, finished", "0002, stopped"]
    assert [cell.text for cell in table.rows[0][1]] == ["33.5", "4.2", "0.00123", "NAFNet"]
    assert table.rows[1][1][0].text == "30.1"
    write_report([tmp_path], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert base64.b64encode(PIXEL).decode() in page
    assert "0007, finished" in page


def test_runs_that_differ_in_the_csv_differ_in_the_table(tmp_path):
    (tmp_path / "sweep.csv").write_text(
        "run,state,psnr,lr,width\n1,finished,34.382,1e-3,8\n2,finished,34.381,2e-5,16\n3,failed,,1e-3,8\n"
    )
    columns = zip(*(cells for _, cells in sweep_table(tmp_path / "sweep.csv").rows), strict=True)
    assert [[cell.text for cell in column] for column in columns] == [
        ["34.382", "34.381", ""],
        ["0.001", "2e-05", "0.001"],
        ["8", "16", "8"],
    ]


def test_costs_of_a_benchmark(tmp_path):
    assert cost_table(tmp_path) is None
    (tmp_path / "benchmark.csv").write_text(
        "method,label,psnr,parameters,macs,seconds,memory_mb,sha256,command\n"
        "ceiling,Perfect,31,,,,,,\n"
        "nlm,NLM,30,,,0.61,1012,,\n"
        "stage1,Stage 1,33,972000,10.8e9,0.63,1210,abcdef,rbs fit --config c.yaml\n"
    )
    table = cost_table(tmp_path)
    assert [name for name, _ in table.rows] == ["NLM", "Stage 1"]
    texts = [[cell.text for cell in cells] for _, cells in table.rows]
    assert texts == [
        ["", "", "0.61", "1.01", "", ""],
        ["0.97", "11", "0.63", "1.21", "abcdef", "rbs fit --config c.yaml"],
    ]

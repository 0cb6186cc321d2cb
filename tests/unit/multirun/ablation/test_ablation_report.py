"""The files of an ablation, and its section on the page."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from rbs.evaluation.run import SCANS
from rbs.evaluation.scans.metrics import METRICS
from rbs.multirun.ablation.definition import Ablation
from rbs.multirun.ablation.report import write_report
from rbs.multirun.ablation.scores import Split
from rbs.multirun.runs import Run
from rbs.report import page
from rbs.restorers.checkpoint import save_restorer
from rbs.restorers.dncnn import DnCNN

GAIN_DB = 0.5


@pytest.fixture
def written(tmp_path):
    """Write the report of an ablation of stage 1 on so many patients; its text and the page's."""
    (tmp_path / "stage1.yaml").write_text(yaml.safe_dump({"model": {"init_args": {}}}))
    (tmp_path / "wider_net.yaml").write_text("model: {}\n")
    output = tmp_path / "ablation"
    manifest = SimpleNamespace(path=tmp_path / "cases.csv")
    overlays = (tmp_path / "wider_net.yaml",)
    ablation = Ablation(manifest, tmp_path / "stage1.yaml", overlays, (1,), output)
    runs = {(row.name, 1): Run(output / row.name / "seed_1", [], {}, "finished") for row in ablation.rows}
    for run in runs.values():
        version = run.folder / "version_0"
        version.mkdir(parents=True)
        save_restorer(run.folder / "restorer.safetensors", DnCNN(depth=3, width=4), {"steps": 7})
        (version / "config.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"batch_size": 3}}}))
    rng = np.random.default_rng(0)

    def write(patients):
        split = Split(SCANS, manifest.path, "test", patients, lambda place: None, METRICS)
        base = {metric.pooled_from or metric.name: rng.uniform(0.1, 0.9, patients) for metric in METRICS}
        rows = []
        for place in range(patients):
            scores = {name: values[place] for name, values in base.items()}
            case = {"seed": 1, "patient": f"P{place}", "case": place}
            better = {"nmse_truth": scores["nmse_truth"] / 10 ** (GAIN_DB / 10)}
            rows += [{"row": "full", **case, **scores}, {"row": "wider_net", **case, **scores, **better}]
        _, text = write_report(ablation, runs, split, pd.DataFrame(rows), output)
        page.write_report([output], tmp_path / "report.html")
        return text, (tmp_path / "report.html").read_text()

    return write


def test_one_patient_is_counted_as_one_and_the_page_holds_no_markdown(written):
    text, html = written(1)
    assert "1 patient of the test split, seed 1;" in text
    assert "With 1 patient the test cannot reach p < 0.05" in text
    section = html[html.index("Ablation of stage1.yaml") :]
    section = section[: section.index("</table>")]
    assert "1 patient of the test split" in section
    assert "1 patients" not in text + section
    assert not re.search(r"`|\*\*", section)


def test_rows_of_stage_1_are_compared_with_it_by_name(written):
    text, html = written(8)
    assert "full method" not in text + html
    assert "| stage1 unchanged | 7 | 21 |" in text
    gain = "wider net is better than stage1 unchanged: +0.500 dB PSNR truth (0.500 to 0.500), p = 0.0078."
    assert f"- {gain}\n" in text
    assert f"<li>{gain}</li>" in html
    assert "| PSNR truth, dB |" in text
    assert "| PSNR truth minus stage1 unchanged |" in text
    assert "+0.500 (0.500 to 0.500, p = 0.0078) |" in text
    assert "minus stage1 unchanged" in html

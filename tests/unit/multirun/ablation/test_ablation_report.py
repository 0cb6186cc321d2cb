"""The files of an ablation, its verdicts, and its section on the page."""

import re

import numpy as np
import pandas as pd
import pytest
import yaml

from rbs.evaluation.run import SCANS
from rbs.evaluation.scans.metrics import METRICS
from rbs.multirun.ablation import compare
from rbs.multirun.ablation.curves import COLUMNS
from rbs.multirun.ablation.definition import Ablation
from rbs.multirun.ablation.report import write_report
from rbs.multirun.ablation.scores import Images
from rbs.multirun.ablation.verdicts import Results
from rbs.multirun.runs import Run
from rbs.report import page
from rbs.restorers.checkpoint import save_restorer
from rbs.restorers.dncnn import DnCNN

GAINS = {
    ("control", "f1"): 0.1,
    ("none", "f2"): 0.1,
    ("truth", "f2"): 0.9,
    ("spi", "f2"): 0.1,
    ("spi", "f1"): 0.4,
}
"""PSNR above that of stage 1, dB."""


@pytest.fixture
def ablation(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "RESAMPLES", 200)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"model": {"init_args": {}}}))
    content = {
        "title": "Ablation of masks",
        "manifest": str(tmp_path / "cases.csv"),
        "experiment": str(tmp_path / "base.yaml"),
        "seeds": [1, 2],
        "stage1": {"experiment": str(tmp_path / "base.yaml")},
        "regimes": {"few": {"label": "few children"}},
        "references": {"f1": ["control", "stage1"], "f2": ["none", "stage1"]},
        "contrasts": {"SPI": [["spi", "control"]]},
        "rows": {
            "control": {"label": "stage 1 goes on"},
            "none": {"label": "f2 without prior"},
            "truth": {"label": "f2, true masks"},
            "spi": {"label": "SPI", "bound": "truth"},
        },
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return Ablation.read(tmp_path / "mine.yaml", tmp_path / "out")


@pytest.fixture
def written(ablation, tmp_path):
    """A function that writes the report of so many patients; the table, the text and the page."""
    runs = {key: Run(ablation.folder(key), [], {}, "finished") for key in ablation.keys}
    for run in runs.values():
        version = run.folder / "version_0"
        version.mkdir(parents=True)
        save_restorer(run.folder / "restorer.safetensors", DnCNN(depth=3, width=4), {"steps": 7})
        (version / "config.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"batch_size": 3}}}))

    def write(patients, gains=GAINS, rising=(), seeds=(1, 2)):
        rng, rows = np.random.default_rng(0), []
        object.__setattr__(ablation, "seeds", seeds)
        for place in range(patients):
            base = {m.pooled_from or m.name: rng.uniform(1e-4, 2e-4) for m in METRICS}
            for seed in seeds:
                for (row, network), gain in {("stage1", "f1"): 0.0, **gains}.items():
                    chance = gain and rng.normal(0, 0.01)
                    better = {name: value * 10 ** (-(gain + chance) / 10) for name, value in base.items()}
                    case = {"images": "test", "regime": "few", "row": row, "network": network}
                    case |= {"seed": seed, "patient": f"P{place}", "case": place}
                    truth = {"psnr_truth": 30 + 10 * base["ssim"] + gain + chance}
                    rows.append(case | better | truth)
        curves = [
            {"regime": "few", "row": row, "seed": seed, "network": network, "metric": "psnr_truth"}
            | {"step": step, "value": 30 + (step if (row, network) in rising else 0)}
            for (row, network) in gains
            for seed in seeds
            for step in (1, 3, 4)
        ]
        images = Images("test", "test split", SCANS, None, "", patients, lambda place: None, METRICS)
        results = Results(runs, (images,), pd.DataFrame(rows), pd.DataFrame(curves, columns=COLUMNS))
        table, text = write_report(ablation, results)
        page.write_report([ablation.output], tmp_path / "report.html")
        return table, text, (tmp_path / "report.html").read_text()

    return write


def verdict(table, row, network, metric="psnr_truth"):
    chosen = table[(table["row"] == row) & (table["network"] == network) & (table["metric"] == metric)]
    main = {"f1": "control", "f2": "none"}[network]
    return chosen.set_index("reference").loc[main, ["verdict", "why"]].tolist()


def test_rows_are_compared_with_the_reference_of_their_network(written):
    table, text, html = written(8)
    assert verdict(table, "truth", "f2") == ["better", ""]
    assert verdict(table, "spi", "f1") == ["better", ""]
    assert verdict(table, "spi", "f2") == ["no difference", ""]
    assert verdict(table, "stage1", "f1") == ["worse", ""]
    line = table[(table["row"] == "truth") & (table["metric"] == "psnr_truth")].set_index("reference")
    assert line.loc["none", "difference"] == pytest.approx(0.8, abs=0.02)
    assert line.loc["stage1", "difference"] == pytest.approx(0.9, abs=0.02)
    assert line.loc["none", "low"] < line.loc["none", "difference"] < line.loc["none", "high"]
    assert re.search(r"- f2, few children: f2, true masks is better than f2 without prior: \+0\.(79|8)", text)
    assert re.search(r"- f1, few children: SPI helps: \+0\.3", text)
    assert "SPI cannot be told from f2 without prior" in html
    assert "minus stage 1 goes on" in html
    assert "| few children | stage 1 goes on | 7 | 21 |" in text


def test_what_could_not_have_shown_is_not_tested(written):
    table, text, _ = written(8, rising=[("spi", "f2")])
    assert verdict(table, "spi", "f2") == ["not tested", "a learning curve is not flat"]
    assert verdict(table, "spi", "f1") == ["better", ""]
    assert "is **not tested** (a learning curve is not flat)" in text
    table, _, _ = written(8, gains=GAINS | {("truth", "f2"): 0.1})
    assert verdict(table, "spi", "f2") == ["not tested", "f2, true masks, its upper bound, shows no gain"]
    assert verdict(table, "truth", "f2")[0] == "no difference"


def test_few_patients_or_one_seed_show_nothing_at_all(written):
    table, text, html = written(1)
    assert set(table["verdict"]) == {"not tested"}
    unbounded = "1 patient; f2, true masks, its upper bound, shows no gain"
    assert verdict(table, "spi", "f1") == ["not tested", unbounded]
    assert "1 patient of the test split, seeds 1, 2." in text
    table, text, html = written(8, seeds=(1,))
    assert verdict(table, "truth", "f2") == ["not tested", "one seed"]
    section = html[html.index("Ablation of masks") :]
    section = section[: section.index("</table>")]
    assert not re.search(r"`|\*\*", section)


def test_scores_curves_and_figures_are_written(written, ablation):
    written(7)
    per_scan = pd.read_csv(ablation.output / "per_scan.csv")
    assert set(per_scan["row"]) == {"stage1", "control", "none", "truth", "spi"}
    assert (ablation.output / "ablation.svg").exists()
    assert (ablation.output / "curves.png").exists()
    assert len(pd.read_csv(ablation.output / "curves.csv")) == 5 * 2 * 3

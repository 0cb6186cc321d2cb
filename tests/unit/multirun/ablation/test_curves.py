"""Learning curves, and the rule by which they are flat."""

from types import SimpleNamespace

import pandas as pd
import pytest

from rbs.multirun.ablation.curves import COLUMNS, curves_figure, curves_of, last_gains
from rbs.multirun.ablation.definition import Key
from rbs.multirun.runs import Run


def curve(values, **place):
    named = {"regime": "few", "row": "a", "seed": 1, "network": "f1", "metric": "psnr_truth", **place}
    return pd.DataFrame(
        [{**named, "step": 100 * (n + 1), "value": value} for n, value in enumerate(values)], columns=COLUMNS
    )


@pytest.mark.parametrize(
    ("values", "gain", "flat"),
    [
        ([30, 35, 36, 36.04], 0.04, True),
        ([30, 35, 36, 36.06], 0.06, False),
        ([30, 36, 36.5, 36.4], -0.1, True),
        ([30, 32, 34, 36, 36.9, 36.95, 36.97, 36.98], 0.03, True),  # from step 600 of 800
    ],
)
def test_the_last_quarter_decides(values, gain, flat):
    (found,) = last_gains(curve(values)).to_dict("records")
    assert found["gain"] == pytest.approx(gain)
    assert found["flat"] == flat


def test_a_single_point_shows_nothing():
    (found,) = last_gains(curve([30])).to_dict("records")
    assert pd.isna(found["gain"])
    assert not found["flat"]


def test_curves_of_both_restorers_are_read_from_the_logs(tmp_path):
    version = tmp_path / "version_0"
    version.mkdir()
    (version / "metrics.csv").write_text(
        "step,train/total,val/nc_psnr,val/psnr_truth,val/psnr_truth_f2\n9,1.0,,,\n9,,33,36,37\n19,,34,36.5,37.5\n"
    )
    key = Key("few", "a", 1)
    rows = (SimpleNamespace(name="a", label="row a"),)
    regimes = (SimpleNamespace(name="few", label="few children"),)
    ablation = SimpleNamespace(keys=[key], rows=rows, regimes=regimes)
    curves = curves_of(ablation, {key: Run(tmp_path, [], {}, "finished")})
    assert list(curves.columns) == COLUMNS
    by_network = {network: list(part["value"]) for network, part in curves.groupby("network")}
    assert by_network == {"f1": [36, 36.5], "f2": [37, 37.5]}
    assert [axis.get_title() for axis in curves_figure(ablation, curves).axes] == [
        "few children: f1",
        "few children: f2",
    ]

"""Scores of both restorers of a run, from its folder alone."""

import math

import numpy as np
import pytest
import torch
import yaml

from rbs.data.manifest import Manifest
from rbs.distillation.cascade import Cascade, save_cascade
from rbs.evaluation.real.scans import read_scans
from rbs.multirun.ablation import scores
from rbs.multirun.ablation.scores import REAL_SPEED, images_of, real_images, score_run
from rbs.restorers.checkpoint import save_restorer
from rbs.restorers.dncnn import DnCNN
from rbs.scans.scan import REGIONS


@pytest.fixture(autouse=True)
def without_lpips(monkeypatch):
    monkeypatch.setattr("rbs.evaluation.set_metrics.lpips.find", lambda *names: None)


def brighter(by):
    """A restorer that returns its input, as the filter it starts from does, times a factor near 1."""
    restorer = DnCNN(depth=3, width=4, sigma_px=0.0)
    with torch.no_grad():
        restorer.head.bias.fill_(by)
    return restorer


@pytest.fixture
def make_run(tmp_path):
    """A function that writes the folder of a training of both restorers, the second one's as given."""

    def write(name="run", second=None, **settings):
        folder = tmp_path / name
        (folder / "version_0").mkdir(parents=True)
        save_restorer(folder / "restorer.safetensors", brighter(0.0), {})
        if second is not None:
            save_cascade(folder / "cascade.safetensors", Cascade(brighter(0.0), second), {})
        made = {"model": {"init_args": {"stage": 2, "spi": False, **settings}}, "data": {"init_args": {}}}
        (folder / "version_0" / "config.yaml").write_text(yaml.safe_dump(made))
        return folder

    return write


@pytest.fixture
def images(tiny_cohort):
    return images_of(None, {}, "test", Manifest.read(tiny_cohort), "test")


def test_both_restorers_are_scored_region_by_region(make_run, images):
    first, second = score_run(make_run(second=brighter(0.3)), images)
    assert (first["network"], second["network"]) == ("f1", "f2")
    pair = images.pair(0)
    x = pair.rapid / pair.exposure
    inside = pair.target.labels == REGIONS.index("spine") + 1
    error = ((x - pair.target.expectation)[inside] ** 2).mean() / pair.target.peak**2
    assert first["nmse_spine"] == pytest.approx(error, rel=1e-4)
    assert second["nmse_spine"] != pytest.approx(error, rel=1e-2)
    assert first["count_bias"] < second["count_bias"]
    assert math.isnan(first["lesion_recovery"])  # no foci are known of this cohort


def test_lpips_is_scored_and_printed_where_its_weights_are(
    make_run, tiny_cohort, metric_weights, monkeypatch
):
    monkeypatch.undo()
    images = images_of(None, {}, "test", Manifest.read(tiny_cohort), "test")
    assert "lpips" in [metric.name for metric in images.metrics if metric.printed]
    first, second = score_run(make_run(second=brighter(0.3)), images)
    assert 0 < first["lpips"] != second["lpips"] > 0


def test_a_frozen_first_restorer_is_not_scored_again(make_run, images):
    (only,) = score_run(make_run(second=brighter(0.3), trains="f2"), images)
    assert only["network"] == "f2"


def test_nothing_is_scored_twice_unless_its_weights_changed(make_run, images, monkeypatch):
    folder = make_run()
    before = score_run(folder, images)
    monkeypatch.setattr(scores, "networks_of", lambda folder: pytest.fail("it is scored again"))
    assert str(score_run(folder, images)) == str(before)
    monkeypatch.undo()
    monkeypatch.setattr("rbs.evaluation.set_metrics.lpips.find", lambda *names: None)
    save_restorer(folder / "restorer.safetensors", brighter(0.3), {})
    assert score_run(folder, images)[0]["count_bias"] > before[0]["count_bias"]


def test_real_scans_are_scored_by_what_they_have_left(make_run, tiny_cohort):
    standard = Manifest.read(tiny_cohort).split("test")[0].standard[0]
    found, _ = read_scans([standard], [REAL_SPEED])
    rows = score_run(make_run(), real_images(found))
    assert len(rows) == scores.REAL_DRAWS
    assert np.isfinite([row["nc_nmse"] for row in rows]).all()
    assert math.isnan(rows[0]["psnr_truth"])

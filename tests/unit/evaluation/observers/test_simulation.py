"""Studies of many draws on a made-up body, where the answers are known."""

import dataclasses
import math

import numpy as np
import pytest

from rbs.evaluation.methods import RAPID, Method
from rbs.evaluation.observers import simulation
from rbs.evaluation.observers.areas import bound
from rbs.evaluation.observers.observers import auc_of_snr, channelised_auc, ideal_snr
from rbs.evaluation.scans.classical import gaussian
from rbs.evaluation.scans.metrics import Target
from rbs.evaluation.scans.pairs import ScanPair
from rbs.scans.scan import REGIONS

SPACING = (2.26, 2.26)
GAUSSIAN = Method("gaussian", "Gaussian, 3 mm", lambda pair: gaussian(pair, 3.0))
RESTORERS = {"rapid": RAPID.restore, "gaussian": GAUSSIAN.restore}


@pytest.fixture(scope="module")
def pair():
    """A slab of 4 counts a pixel: bone above, soft tissue below, nothing beside it."""
    truth = np.full((2, 260, 200), 1e-6)
    truth[:, 5:255, 5:195] = 4.0
    truth[1] *= 0.5
    labels = np.zeros(truth.shape, np.uint8)
    labels[:, 5:170, 5:195] = REGIONS.index("spine") + 1
    standard = np.random.default_rng(0).poisson(truth)
    rapid = np.random.default_rng(1).poisson(truth / 2)
    return ScanPair("P1", rapid, 0.5, Target(standard, 1.0, SPACING, truth, labels))


def test_foci_are_in_bone_apart_and_as_strong_as_asked(pair):
    places = simulation.make_places(pair.target, np.random.default_rng(0))
    assert len(places) >= 6
    assert [place.size_mm for place in places[:4]] == [5.0, 10.0, 20.0, 5.0]
    for number, place in enumerate(places):
        background = pair.target.expectation[place.window]
        assert auc_of_snr(ideal_snr(background, place.signal)) == pytest.approx(
            simulation.STANDARD_AUC, abs=1e-4
        )
        assert (pair.target.labels[:, place.row, place.column] > 0).all()
        middle = simulation.WINDOW // 2
        np.testing.assert_allclose(place.signal[:, middle, middle], place.contrast * place.levels)
        assert place.levels[1] == pytest.approx(place.levels[0] / 2, rel=1e-3)
        for other in places[:number]:
            assert max(abs(place.row - other.row), abs(place.column - other.column)) >= simulation.APART
    small, large = places[0], places[2]
    assert small.contrast > large.contrast


@pytest.fixture(scope="module")
def detection(pair):
    knows_nothing = {"blind": lambda pair: pair.target.expectation.copy()}
    return simulation.detection_study(pair, RESTORERS | knows_nothing, 64, 1)


@pytest.mark.parametrize("channels", [simulation.DOG, simulation.LAGUERRE_GAUSS])
def test_no_channelised_observer_beats_the_ideal_one(detection, channels):
    """On a flat ground the channels hold nearly all of the signal; smoothing takes nothing away."""
    areas = {
        name: channelised_auc(outputs, detection.present[kind, name])
        for (kind, name), outputs in detection.absent.items()
        if kind == channels
    }
    for name in ("rapid", "gaussian"):
        assert 0.8 < areas[name].mean() < bound(0.5) + 0.02
    assert areas["rapid"].mean() + 0.03 < areas["standard"].mean() < bound(1.0) + 0.02
    assert areas["gaussian"].mean() == pytest.approx(areas["rapid"].mean(), abs=0.02)
    assert areas["blind"].mean() == 0.5


def test_every_place_is_seen_as_often_with_as_without(detection):
    assert len(detection.present) == 2 * 4
    for name, outputs in detection.present.items():
        assert outputs.shape == detection.absent[name].shape == (len(detection.places), 32, 2 * 6)


def test_draws_follow_the_seed_and_the_child(pair):
    first, again = (simulation.detection_study(pair, {"rapid": RAPID.restore}, 2, 1) for _ in range(2))
    np.testing.assert_array_equal(first.present["dog", "rapid"], again.present["dog", "rapid"])
    for other in (
        simulation.detection_study(pair, {"rapid": RAPID.restore}, 2, 2),
        simulation.detection_study(dataclasses.replace(pair, patient="P2"), {"rapid": RAPID.restore}, 2, 1),
    ):
        assert [p.row for p in other.places] != [p.row for p in first.places]


def test_without_bone_there_is_nothing_to_detect(pair):
    target = dataclasses.replace(pair.target, labels=np.zeros_like(pair.target.labels))
    assert (
        simulation.detection_study(
            dataclasses.replace(pair, target=target), {"rapid": RAPID.restore}, 8, 1
        ).places
        == []
    )


def test_texture_of_raw_and_smoothed_scans(pair):
    spectra, responses = simulation.texture_study(pair, [RAPID, GAUSSIAN], 4, 1)
    variance = {row["method"]: row["variance"] / row["mean_count"] for row in spectra}
    assert variance["standard"] == pytest.approx(1, rel=0.05)
    assert variance["rapid"] == pytest.approx(2, rel=0.05)
    # White noise of variance 2 behind a Gaussian of sigma s pixels: 2 / (4 pi s²).
    assert variance["gaussian"] == pytest.approx(2 / (4 * math.pi * (3 / 2.26) ** 2), rel=0.1)
    widths = {(row["method"], row["impulse_counts"]): row["fwhm_mm"] for row in responses}
    assert widths["rapid", 500.0] == pytest.approx(2.26)
    assert widths["gaussian", 500.0] == pytest.approx(3 * 2.3548, rel=0.05)
    gains = {(row["method"], row["impulse_counts"]): row["gain"] for row in responses}
    assert gains["gaussian", 500.0] == pytest.approx(1, abs=0.05)


def test_blank_images(monkeypatch):
    """Who paints spots into nothing is caught on flat images, who shows raw noise on noise only."""
    monkeypatch.setattr(simulation, "BLANK_SHAPE", (2, 128, 96))

    def paint(pair):
        image = pair.rapid / pair.exposure
        image[0, 60:64, 40:44] += 20
        return image

    rows = simulation.blank_study([RAPID, Method("paints", "Paints", paint)], 0.5, SPACING, 2, 1)
    assert len(rows) == 3 * (2 + 2 * 3)
    found = {}
    for row in rows:
        found.setdefault((row["method"], row["image"]), []).append(row["hallucinated"])
    assert sum(found["rapid", "flat"]) == 0
    assert found["paints", "flat"] == [1, 1, 1]
    assert sum(found["rapid", "noise"]) > 2 * sum(found["standard", "noise"])
    flat = [row["bias_percent"] for row in rows if row["image"] == "flat" and row["method"] == "rapid"]
    assert flat == pytest.approx([0, 0, 0], abs=1e-4)

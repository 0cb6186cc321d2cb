"""FID and KID against closed forms, and the whole path on a file laid out as the real weights are."""

import hashlib
import logging

import numpy as np
import pytest
import torch
from torch import nn

from rbs.errors import CheckpointError
from rbs.evaluation.scans.images import ScanSet
from rbs.evaluation.scans.metrics import Target
from rbs.evaluation.set_metrics import fid_kid as module
from rbs.evaluation.set_metrics.fid_kid import (
    FILES,
    frechet_distance,
    kernel_distance,
    load_inception,
    set_scores,
)


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """A state dict of torch-fidelity's own Inception, with random weights instead of the published ones."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    class Blank(theirs.FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            return None

    blank_file = tmp_path_factory.mktemp("weights") / "blank.pth"
    torch.save({}, blank_file)
    torch.manual_seed(0)
    network = Blank("random", ["2048"], feature_extractor_weights_path=str(blank_file))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)  # or else the features would hardly differ from 0
    file = blank_file.parent / FILES[0]
    torch.save(network.state_dict(), file)
    return file


@pytest.fixture
def weights(random_weights, monkeypatch):
    """The folder of that file, and its hash taken for the right one."""
    monkeypatch.setenv("RBS_WEIGHTS", str(random_weights.parent))
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(random_weights.read_bytes()).hexdigest())
    return random_weights.parent


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No weights in RBS_WEIGHTS, and none among torch's downloads."""
    monkeypatch.setenv("RBS_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def test_fid_of_two_gaussians_is_the_closed_form():
    """|μ1 - μ2|² + Σ(s1 - s2)² for Gaussians with the same axes."""
    rng = np.random.default_rng(0)
    s1, s2, shift = np.array([1.0, 2, 3, 0.5]), np.array([2.0, 1, 3, 1.5]), np.array([0.5, 0, -1, 2])
    a, b = rng.normal(size=(200_000, 4)) * s1, rng.normal(size=(200_000, 4)) * s2 + shift
    assert frechet_distance(a, b) == pytest.approx((shift**2).sum() + ((s1 - s2) ** 2).sum(), rel=0.01)


def test_fid_of_few_tiles_is_that_in_all_directions():
    """Fewer axes only save time: tr (Σ1 Σ2)^½ is the nuclear norm of A Bᵀ for Σ1 = AᵀA and Σ2 = BᵀB."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(12, 60)), rng.normal(0.3, 1.4, (15, 60))
    ca, cb = ((points - points.mean(0)) / np.sqrt(len(points) - 1) for points in (a, b))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + (ca**2).sum() + (cb**2).sum()
    expected -= 2 * np.linalg.norm(ca @ cb.T, "nuc")
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_fid_is_biased_by_the_number_of_tiles():
    """What the documentation warns of: two samples of one distribution are not at zero."""
    rng = np.random.default_rng(2)
    few, many = ([rng.normal(size=(n, 64)) for _ in range(2)] for n in (50, 5000))
    assert frechet_distance(*few) > 20 * frechet_distance(*many) > 0


def test_kid_is_the_unbiased_estimate():
    """Its mean over many draws of one distribution is zero; of others it is their kernel distance."""
    rng = np.random.default_rng(3)
    null = [kernel_distance(rng.normal(size=(20, 2)), rng.normal(size=(20, 2))) for _ in range(400)]
    assert abs(np.mean(null)) < 3 * np.std(null) / np.sqrt(len(null))
    # One dimension, k = (xy + 1)³: Σ over the powers C(3,k) (E x^k - E y^k)²; N(0,1) and N(1,1).
    moments = np.array([[0, 1, 0], [1, 2, 4]])
    expected = ([3, 3, 1] * (moments[0] - moments[1]) ** 2).sum()
    found = [kernel_distance(rng.normal(size=(200, 1)), rng.normal(1, 1, (200, 1))) for _ in range(60)]
    assert np.mean(found) == pytest.approx(expected, abs=3 * np.std(found) / np.sqrt(len(found)))


def test_kid_of_identical_sets_is_just_below_zero():
    points = np.random.default_rng(4).normal(size=(100, 8))
    assert frechet_distance(points, points) == pytest.approx(0, abs=1e-6)
    kernel = (points @ points.T / 8 + 1) ** 3
    mean, diagonal = kernel.mean(), np.trace(kernel) / 100
    # The diagonal is left out within a set but not between them.
    assert kernel_distance(points, points) == pytest.approx(2 * (100 * mean - diagonal) / 99 - 2 * mean)
    assert kernel_distance(points, points) < 0


def test_kid_takes_subsets_no_larger_than_a_set():
    rng = np.random.default_rng(5)
    assert np.isfinite(kernel_distance(rng.normal(size=(3, 4)), rng.normal(size=(1500, 4))))
    for measure in (frechet_distance, kernel_distance):
        assert np.isnan(measure(np.empty((0, 4)), rng.normal(size=(5, 4))))
        assert np.isnan(measure(np.ones((1, 4)), rng.normal(size=(5, 4))))


def test_features_are_those_of_torch_fidelity(weights):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    tile = np.random.default_rng(0).integers(0, 256, (1, 3, 128, 128), dtype=np.uint8)
    found = load_inception().features(tile)
    theirs = FeatureExtractorInceptionV3(
        "x", ["2048"], feature_extractor_weights_path=str(weights / FILES[0])
    )
    np.testing.assert_allclose(found, theirs(torch.from_numpy(tile))[0].numpy(), rtol=1e-4, atol=1e-6)
    assert found.std() > 0.01


def test_from_counts_to_figures(weights):
    """Noisier pictures lie farther from the standard scans than a second standard scan does."""
    inception = load_inception()
    assert inception.sha256 == module.SHA256
    expectation = np.zeros((1, 200, 150))
    expectation[:, 30:100, 30:100] = 4
    sets = {name: [] for name in ("standard", "repeat", "noisy")}
    for seed in range(3):
        counts = np.random.default_rng(seed).poisson(expectation)
        target = Target(counts, 1.0, (2.3, 2.3), expectation)
        rng = np.random.default_rng((9, seed))
        images = {
            "standard": counts,
            "repeat": rng.poisson(expectation),
            "noisy": rng.poisson(expectation / 8) * 8.0,
        }
        for name, image in images.items():
            sets[name].append(inception.features(ScanSet.tiles(None, image, target)))
    found = set_scores({name: np.concatenate(parts) for name, parts in sets.items()})
    assert set(found["method"]) == {"repeat", "noisy"}
    assert set(found["tiles"]) == {3}
    for metric in ("fid", "kid"):
        value = found[found["metric"] == metric].set_index("method")["value"]
        assert value["repeat"] < value["noisy"]


def test_without_weights_there_is_a_warning_and_no_figure(nowhere, caplog):
    with caplog.at_level(logging.WARNING):
        assert load_inception() is None
    (record,) = caplog.records
    assert "FID and KID are left out" in record.message
    assert FILES[0] in record.message
    assert set_scores({}).empty


def test_another_network_is_refused(random_weights, monkeypatch):
    """A substitute would give figures that look like FID."""
    monkeypatch.setenv("RBS_WEIGHTS", str(random_weights.parent))
    with pytest.raises(CheckpointError, match=r"is not the Inception network of FID and KID.*download"):
        load_inception()


def test_the_second_name_and_torchs_downloads_are_found(nowhere, weights, monkeypatch, random_weights):
    folder = nowhere / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setenv("RBS_WEIGHTS", str(nowhere))
    (folder / FILES[1]).write_bytes(random_weights.read_bytes())
    assert load_inception() is not None

"""The head: likelihood and arithmetic against closed forms and simulation, and what it is bound to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rbs.errors import CheckpointError
from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.restorers.nafnet import NAFNet
from rbs.restorers.uncertainty import (
    UncertaintyHead,
    deviation_in_counts,
    fitted_factor,
    head_file,
    load_uncertainty,
    root_error,
    root_likelihood,
    save_uncertainty,
)
from rbs.weights.shipped import SHIPPED


@pytest.fixture
def f1(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = NAFNet(width=4, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,))
    save_restorer(tmp_path / "restorer.safetensors", net, {})
    return tmp_path / "restorer.safetensors"


def save(f1: Path, head: UncertaintyHead, f1_sha256: str | None = None) -> Path:
    save_uncertainty(head_file(f1), head, f1_sha256 or load_restorer(f1).sha256, {"steps": 3})
    return head_file(f1)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_likelihood_is_least_at_the_true_deviation(beta: float) -> None:
    """Closed form: of errors e the least is at s² = mean e², for any beta."""
    error = 0.2 * torch.randn(4000, generator=torch.Generator().manual_seed(1))
    best = float((error**2).mean().sqrt())
    s = torch.tensor(best, requires_grad=True)
    root_likelihood(error, s.expand_as(error), beta).backward()
    assert abs(float(s.grad)) < 1e-5
    for off, sign in ((0.8 * best, -1), (1.25 * best, 1)):
        s = torch.tensor(off, requires_grad=True)
        root_likelihood(error, s.expand_as(error), beta).backward()
        assert np.sign(float(s.grad)) == sign


def test_beta_makes_sure_pixels_weigh_less() -> None:
    """The gradient with respect to log s of an error of one s is that of s^(2 beta)."""
    s = torch.tensor([0.01, 0.1], requires_grad=True)
    root_likelihood(torch.zeros(2), s, 0.5).backward()
    by_log = s.grad * s.detach()
    assert float(by_log[1] / by_log[0]) == pytest.approx(10, rel=1e-5)


@pytest.mark.parametrize("rho", [0.0, 0.05, 0.5, 3.0])
@pytest.mark.parametrize("s", [0.01, 0.1, 0.4])
def test_the_deviation_in_counts_is_that_of_simulated_squares(rho: float, s: float) -> None:
    roots = np.random.default_rng(0).normal(rho, s, 400_000)
    restored = torch.tensor(rho**2 - 1e-4)  # a pixel of so many counts has just this root
    found = float(deviation_in_counts(torch.tensor(s), restored))
    assert found == pytest.approx(np.std(roots**2), rel=0.01)
    if rho > 10 * s:  # the delta method
        assert found == pytest.approx(2 * rho * s, rel=0.01)


def test_roots_are_compared() -> None:
    assert float(root_error(torch.tensor(4.0), torch.tensor(1.0))) == pytest.approx(1.0, abs=1e-4)


def test_the_factor_makes_normal_errors_covered() -> None:
    rng = np.random.default_rng(0)
    stated = rng.uniform(0.5, 2, 100_000)
    assert fitted_factor(1.7 * stated * rng.normal(size=stated.size), stated) == pytest.approx(1.7, rel=0.01)
    heavy = fitted_factor(stated * rng.standard_t(3, stated.size), stated, (0.9,))
    assert heavy == pytest.approx(2.3534 / 1.6449, rel=0.02)  # quantiles of Student's t and of the normal


def test_a_head_learns_where_errors_are_large() -> None:
    """Errors are ten times as large where a feature is 1 as where it is 0."""
    torch.manual_seed(0)
    head, feature = UncertaintyHead(1, 4), torch.zeros(1, 1, 32, 32)
    feature[..., 16:] = 1
    restored, exposure = torch.ones(1, 2, 32, 32), torch.tensor([0.5])
    optimizer = torch.optim.Adam(head.parameters(), 2e-2)
    for _ in range(200):
        error = (0.02 + 0.18 * feature) * torch.randn(1, 2, 32, 32)
        optimizer.zero_grad()
        root_likelihood(error, head(feature, restored, exposure)).backward()
        optimizer.step()
    with torch.no_grad():
        s = head(feature, restored, exposure)
    assert float(s[..., 19:].mean()) == pytest.approx(0.2, rel=0.15)
    assert float(s[..., :13].mean()) == pytest.approx(0.02, rel=0.25)


def test_a_head_comes_back_as_it_was_and_states_counts(f1: Path) -> None:
    head = UncertaintyHead(4, 6)
    head.factor.fill_(1.3)
    loaded = load_restorer(f1)
    found = load_uncertainty(loaded, save(f1, head))
    assert (found.head.spec(), float(found.head.factor)) == (head.spec(), pytest.approx(1.3))
    assert found.provenance == {"steps": 3}
    rapid = np.random.default_rng(0).poisson(2.0, (2, 40, 24))
    rapid[:, :8] = 0
    stated = found.deviation(rapid, 0.5)
    restored = loaded.restore(rapid, 0.5)
    assert stated.shape == rapid.shape
    assert (stated[:, :8] == 0).all()
    # An untrained head states 0.05 root-counts everywhere, times the factor.
    s = 1.3 * (0.05 + 1e-4)
    np.testing.assert_allclose(
        stated[:, 8:], np.sqrt(4 * (restored[:, 8:] + 1e-4) * s**2 + 2 * s**4), rtol=1e-4
    )


def test_one_view_is_given_one_deviation(f1: Path) -> None:
    found = load_uncertainty(load_restorer(f1), save(f1, UncertaintyHead(4, 6)))
    assert found.deviation(np.random.default_rng(0).poisson(2.0, (1, 40, 24)), 0.5).shape == (1, 40, 24)


def test_a_head_is_bound_to_its_weights(f1: Path, tmp_path: Path) -> None:
    file = save(f1, UncertaintyHead(4, 6), "0" * 64)
    with pytest.raises(
        CheckpointError, match=r"trained on other weights than NAFNet restorer.safetensors; train"
    ):
        load_uncertainty(load_restorer(f1), file)
    with pytest.raises(CheckpointError, match="holds no uncertainty head"):
        load_uncertainty(load_restorer(f1), f1)
    with pytest.raises(
        CheckpointError, match=r"no such weight file; train one with `make train-uncertainty`"
    ):
        load_uncertainty(load_restorer(f1), tmp_path / "none.safetensors")


def test_only_a_head_is_built(f1: Path) -> None:
    head = UncertaintyHead(4, 6)
    head.spec = lambda: {"class_path": "os.system", "init_args": {"command": "true"}}  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match=r"'os\.system' is not of rbs"):
        load_uncertainty(load_restorer(f1), save(f1, head))


def test_a_head_of_an_older_version_names_the_version(f1: Path, tmp_path: Path) -> None:
    head = UncertaintyHead(4, 6)
    spec = {**head.spec(), "class_path": "rbs.uncertainty.UncertaintyHead"}
    description = {"head": spec, "f1_sha256": load_restorer(f1).sha256, "version": "0.1.0"}
    save_file(head.state_dict(), head_file(f1), metadata={"rbs": json.dumps(description)})
    fault = r"'rbs\.uncertainty\.UncertaintyHead' is no UncertaintyHead of rbs .*written by rbs 0\.1\.0: use"
    with pytest.raises(CheckpointError, match=fault):
        load_uncertainty(load_restorer(f1), head_file(f1))


def test_the_shipped_head_has_a_card_and_is_of_the_shipped_weights() -> None:
    file = head_file(SHIPPED)
    card = json.loads(file.with_suffix(".json").read_text())
    assert card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert card["f1_sha256"] == json.loads(SHIPPED.with_suffix(".json").read_text())["sha256"]
    found = load_uncertainty(load_restorer(), file)
    assert found.provenance["factor"] == pytest.approx(float(found.head.factor))
    assert f"{sum(p.numel() for p in found.head.parameters()):,}".replace(",", " ") in card["model"]
    with pytest.raises(CheckpointError, match="other weights"):
        load_uncertainty(replace(load_restorer(), sha256="0" * 64), file)

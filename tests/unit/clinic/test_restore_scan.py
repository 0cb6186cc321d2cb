"""Restoring a scan in memory, and finding the views that belong together."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydicom import Dataset
from scipy.ndimage import gaussian_filter

from rbs.clinic.acquisitions import pair_views
from rbs.clinic.restore_scans import restore_scan
from rbs.errors import CheckpointError, ScanError
from rbs.inference.strengths import DEFAULT, Strength, apply
from rbs.restorers.checkpoint import LoadedRestorer
from rbs.restorers.nafnet import NAFNet
from rbs.scans.censoring import cut_counts
from rbs.scans.counts import block_sums
from rbs.scans.scan import Provenance, Scan, View

BOTH = (View.ANTERIOR, View.POSTERIOR)


@pytest.fixture(scope="module")
def loaded() -> LoadedRestorer:
    torch.manual_seed(0)
    net = NAFNet(width=4, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,), sigma_px=1.5)
    return LoadedRestorer(net.eval(), "NAFNet test", "0", "0" * 64)


def a_scan(views: tuple[View, ...] = BOTH, velocity: float | None = 40.0, **header: str) -> Scan:
    counts = np.random.default_rng(len(views)).poisson(5.0, (len(views), 36, 21))
    dataset = Dataset()
    for name, value in header.items():
        setattr(dataset, name, value)
    return Scan(counts, views, (2.3, 2.3), velocity, provenance=Provenance(header=dataset))


@pytest.mark.parametrize("views", [BOTH, BOTH[::-1], BOTH[:1], BOTH[1:]], ids=str)
def test_untrained_it_is_a_gaussian_filter_at_standard_counts(loaded: LoadedRestorer, views) -> None:
    scan = a_scan(views)
    restored = restore_scan(scan, loaded, strength=Strength.STRONG)
    filtered = gaussian_filter(2.0 * scan.counts, (0, 1.5, 1.5), mode="nearest")
    np.testing.assert_allclose(restored.counts, filtered, rtol=1e-3)
    assert restored.views == views
    assert restored.velocity == 20
    assert restored.counts.sum() == pytest.approx(2 * scan.counts.sum(), rel=0.02)


@pytest.mark.parametrize("strength", Strength)
def test_the_strength_says_how_much_of_the_residual_is_put_back(
    loaded: LoadedRestorer, strength: Strength
) -> None:
    scan = a_scan()
    own = restore_scan(scan, loaded, strength=Strength.STRONG).aligned()
    expected = apply(strength, own, scan.aligned(), 0.5, scan.spacing_mm)
    np.testing.assert_allclose(restore_scan(scan, loaded, strength=strength).aligned(), expected)
    assert (restore_scan(scan, loaded).counts == restore_scan(scan, loaded, strength=DEFAULT).counts).all()


def test_counts_that_were_cut_are_filled_in(loaded: LoadedRestorer) -> None:
    scan = a_scan()
    cut = scan.with_counts(cut_counts(scan.counts, 3), cut=3)
    restored = restore_scan(cut, loaded)
    assert restored.cut == 0
    assert restored.counts.sum() == pytest.approx(2 * scan.counts.sum(), rel=0.03)
    assert 2 * cut.counts.sum() < 0.9 * restored.counts.sum()
    adapting = replace(loaded, provenance={"adapted": {}})
    with pytest.raises(ScanError, match="up to 3 were cut"):
        restore_scan(cut, adapting)


@pytest.fixture(scope="module")
def enlarging() -> LoadedRestorer:
    torch.manual_seed(0)
    net = NAFNet(width=4, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,), scale=2)
    return LoadedRestorer(net.eval(), "NAFNet x2", "0", "0" * 64)


@pytest.mark.parametrize("views", [BOTH, BOTH[::-1], BOTH[1:]], ids=str)
def test_on_twice_the_matrix_field_and_counts_stay(enlarging: LoadedRestorer, views) -> None:
    scan = a_scan(views)
    restored = restore_scan(scan, enlarging, strength=Strength.STRONG)
    assert restored.spacing_mm == (1.15, 1.15)
    assert (restored.views, restored.velocity) == (views, 20)
    filtered = gaussian_filter(2.0 * scan.counts, (0, 1.5, 1.5), mode="nearest")
    np.testing.assert_allclose(block_sums(restored.counts, 2, 2), filtered, rtol=1e-3)


def test_counts_that_were_cut_are_filled_in_before_they_are_enlarged(enlarging: LoadedRestorer) -> None:
    scan = a_scan()
    cut = scan.with_counts(cut_counts(scan.counts, 3), cut=3)
    assert restore_scan(cut, enlarging).counts.sum() == pytest.approx(2 * scan.counts.sum(), rel=0.03)


def test_the_standard_velocity_sets_the_scale(loaded: LoadedRestorer) -> None:
    scan = a_scan()
    twice, four = restore_scan(scan, loaded), restore_scan(scan, loaded, standard_velocity=10.0)
    np.testing.assert_allclose(four.counts, 2 * twice.counts, rtol=1e-3)


def test_no_gradient_is_kept(loaded: LoadedRestorer) -> None:
    assert isinstance(restore_scan(a_scan(), loaded).counts, np.ndarray)


@pytest.mark.parametrize(
    ("velocity", "fault"), [(None, "unknown"), (20.0, "nothing to restore"), (9.0, "nothing")]
)
def test_what_cannot_be_restored_is_refused(loaded: LoadedRestorer, velocity, fault: str) -> None:
    with pytest.raises(ScanError, match=fault):
        restore_scan(a_scan(velocity=velocity), loaded)


def views_of(groups: list[list[Scan]]) -> list[tuple[str, ...]]:
    return [tuple(view for scan in group for view in scan.views) for group in groups]


def test_opposite_one_view_scans_of_a_study_belong_together() -> None:
    front, back = (
        a_scan((View.ANTERIOR,), StudyInstanceUID="1.2"),
        a_scan((View.POSTERIOR,), StudyInstanceUID="1.2"),
    )
    assert views_of(pair_views([back, front])) == [BOTH]
    for other in (
        a_scan((View.POSTERIOR,), StudyInstanceUID="1.3"),
        a_scan((View.POSTERIOR,), StudyInstanceUID="1.2", velocity=20.0),
        replace(back, spacing_mm=(4.6, 4.6)),
        replace(back, counts=back.counts[:, 1:]),
        replace(back, patient_id="another"),
        replace(back, views=(View.ANTERIOR,)),
        a_scan(BOTH, StudyInstanceUID="1.2"),
    ):
        assert [len(group) for group in pair_views([front, other])] == [1, 1]


def test_two_passes_are_told_apart_by_their_time_or_not_paired_at_all() -> None:
    def four(times: tuple[str, str]) -> list[Scan]:
        return [
            a_scan((view,), StudyInstanceUID="1.2", **({"AcquisitionTime": time} if time else {}))
            for view in BOTH
            for time in times
        ]

    timed = pair_views(four(("101500", "103000")))
    assert views_of(timed) == [BOTH, BOTH]
    for group in timed:
        assert len({scan.provenance.header.AcquisitionTime for scan in group}) == 1
    assert all(len(group) == 1 for group in pair_views(four(("", ""))))
    front, _, _, back = four(("101500", "103000"))
    assert len(pair_views([front, back])) == 2


def test_weights_that_give_no_numbers_are_blamed(loaded: LoadedRestorer) -> None:
    broken = NAFNet(width=4, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,))
    torch.nn.init.constant_(broken.head.bias, float("nan"))
    with pytest.raises(CheckpointError, match="not finite"):
        restore_scan(a_scan(), replace(loaded, restorer=broken))

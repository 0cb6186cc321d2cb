"""Labels of one scan, carried to others by registration."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from rbs.data.labelled_scans import binned
from rbs.data.stream import draw_child
from rbs.errors import ScanError
from rbs.segmentation import atlas
from rbs.segmentation.atlas import body_of, carry_labels, is_cut_off, places_of, register


@pytest.fixture(scope="module")
def child():
    return binned(draw_child(1, 0)[1], 4)


def dice(found, true):
    return 2 * ((found == true) & (true > 0)).sum() / ((found > 0).sum() + (true > 0).sum())


def test_labels_stay_where_nothing_moves(child):
    body = body_of(child.standard, child.spacing_mm)
    still = torch.stack(torch.meshgrid(*map(torch.arange, body.roots.shape[1:]), indexing="ij")).float()
    places = places_of(still, body, body, child.standard.shape[1:])
    assert torch.equal(torch.from_numpy(carry_labels(child.labels, places)), torch.from_numpy(child.labels))


def test_labels_follow_a_body_that_is_larger_and_bent(child, monkeypatch):
    monkeypatch.setattr(atlas, "LEVELS", ((4, 32, 40), (2, 16, 20)))
    rows, columns = np.indices(child.standard.shape[1:]).astype(float)
    bent = [rows / 1.15 + 3, (columns - 32) / 1.1 + 32 + 1.5 * np.sin(rows / 25)]
    lengthened = np.stack([ndimage.map_coordinates(view, bent, order=1) for view in child.expectation])
    labels = np.stack([ndimage.map_coordinates(view, bent, order=0) for view in child.labels])
    counts = np.random.default_rng(0).poisson(lengthened)

    one, other = body_of(child.standard, child.spacing_mm), body_of(counts, child.spacing_mm)
    phi = register(one, [other])[0]
    found = carry_labels(child.labels, places_of(phi, one, other, counts.shape[1:]))
    assert found.shape == labels.shape
    assert dice(found, labels) > 0.8 > 0.5 > dice(child.labels, labels)


def test_scans_registered_together_are_registered_as_alone(child, monkeypatch):
    monkeypatch.setattr(atlas, "LEVELS", ((4, 32, 5),))
    other = binned(draw_child(1, 1)[1], 4)
    one, two = (body_of(scan.standard, scan.spacing_mm) for scan in (child, other))
    together = register(one, [two, one])
    torch.testing.assert_close(together[:1], register(one, [two]), atol=0.05, rtol=0)


def test_an_empty_scan_is_refused(child):
    with pytest.raises(ScanError, match="holds fewer than"):
        body_of(np.zeros_like(child.standard), child.spacing_mm)


def test_a_scan_of_half_a_body_is_known(child):
    rows = np.flatnonzero(child.labels.any(axis=(0, 2)))
    middle = (rows[0] + rows[-1]) // 2
    assert not is_cut_off(child.standard, child.spacing_mm)
    for half in (np.s_[:, :middle], np.s_[:, middle:]):
        part = np.zeros_like(child.standard)
        part[half] = child.standard[half]
        assert is_cut_off(part, child.spacing_mm)

"""Label maps, and what SAM is shown of labelled images."""

import math

import numpy as np
import pytest
import torch

from rbs.restorers.image_domain import DOMAINS
from rbs.scans.scan import REGIONS
from rbs.segmentation.label_map import LabelMap
from rbs.segmentation.labels import LABELLED


def test_a_label_map_takes_label_images_apart():
    labels = torch.tensor([[[0, 1, 2], [2, 2, 3]]])
    masks = LabelMap(("head", "tail", "wing")).masks(labels)
    assert masks.dtype == torch.bool
    assert masks.int().tolist() == [
        [[[0, 1, 0], [0, 0, 0]], [[0, 0, 1], [1, 1, 0]], [[0, 0, 0], [0, 0, 1]]],
    ]


def test_every_domain_has_labelled_images():
    assert {domain.shows for domain in DOMAINS.values()} == LABELLED.keys()
    assert LABELLED["scans"].labels.names == REGIONS
    assert LABELLED["frames"].labels.names == ("lesion",)


def test_sam_is_shown_a_grey_value_that_saturates():
    counts = torch.tensor([0.0, 4.0, 1e6]).view(1, 1, 1, 3)
    z = np.sqrt(np.array([0, 4, 1e6]) + 0.375) - math.sqrt(0.375)
    shown = LABELLED["scans"].picture(counts)
    np.testing.assert_allclose(shown[0, 0, 0], 255 * z / (z + 3), rtol=1e-5)
    half = LABELLED["scans"].display["grey_half"]
    at_half = torch.full((1, 1, 1, 1), (half + math.sqrt(0.375)) ** 2 - 0.375)
    assert LABELLED["scans"].picture(at_half).item() == pytest.approx(255 / 2)


def test_sam_is_shown_the_colours_of_a_frame():
    colours = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)
    assert LABELLED["frames"].picture(colours).flatten().tolist() == [0, 127.5, 255]

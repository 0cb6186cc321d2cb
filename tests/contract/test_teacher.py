"""What every teacher keeps, whatever was trained of it; and the shipped base weights."""

import hashlib
import json

import numpy as np
import pytest
import torch
from segmenters import given

from rbs.errors import CheckpointError
from rbs.scans.scan import REGIONS
from rbs.segmentation.adapters import load_teacher, save_teacher, start, trainable_teacher
from rbs.segmentation.checkpoint import load_segmenter
from rbs.segmentation.sam import SHIPPED, build_sam


@pytest.fixture(scope="module", params=["decoder", "lora", "dora", "ia3", "full"])
def teacher(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    trainable = trainable_teacher("vit_t", request.param, rank=4)
    start(trainable, build_sam("vit_t"))
    save_teacher(folder, trainable, mode=request.param, rank=4, base=SHIPPED)
    loaded = load_teacher(folder)
    loaded.folder = folder
    return loaded


@pytest.mark.parametrize(
    ("views", "height", "width"), [(2, 1024, 256), (1, 256, 128), (1, 300, 77), (2, 64, 160)]
)
def test_prior(teacher, views, height, width):
    counts = torch.poisson(torch.rand(1, views, height, width) * 8)
    with torch.no_grad():
        prior = teacher.prior(*given(counts))
        again = teacher.prior(*given(counts))
    cells = -(-height // prior.embedding_stride), -(-width // prior.embedding_stride)
    assert prior.embedding.shape == (1, views, teacher.embedding_dim, *cells)
    assert prior.masks.shape[:3] == (1, views, len(REGIONS))
    assert torch.isfinite(prior.embedding).all()
    assert prior.masks.min() >= 0
    assert prior.masks.sum(dim=2).max() <= 1 + 1e-5
    assert torch.equal(prior.masks, again.masks)
    assert torch.allclose(teacher.embed(*given(counts)), prior.embedding, atol=1e-5)


@torch.no_grad()
def test_it_is_a_segmenter_that_looks_at_counts_alone(teacher):
    counts = torch.poisson(torch.rand(2, 2, 96, 40) * 8)
    probabilities = teacher(*given(counts))
    assert probabilities.shape == (2, 2, 1 + len(REGIONS), 96, 40)
    torch.testing.assert_close(probabilities.sum(dim=2), torch.ones(2, 2, 96, 40))
    assert torch.equal(probabilities, teacher(*given(counts, exposure=0.1, side_mm=4.5)))
    logits, features = teacher.logits_with_features(*given(counts))
    assert torch.equal(logits.softmax(dim=2), probabilities)
    embedding = teacher.embedding(features).unflatten(1, (2, -1))
    torch.testing.assert_close(embedding, teacher.prior(*given(counts)).embedding)


def test_its_folder_is_read_as_every_segmenter_is(teacher, tmp_path):
    loaded = load_segmenter(teacher.folder)
    assert (loaded.sha256, loaded.name) == (teacher.digest, f"Teacher {teacher.folder.name}")
    counts = np.random.default_rng(0).poisson(3.0, (2, 64, 48))
    found = loaded.probabilities(counts, 0.5, (2.26, 2.26))
    with torch.no_grad():
        expected = teacher(*given(torch.tensor(counts / 0.5, dtype=torch.float32)[None]))[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(CheckpointError, match=r"no such weight file; .*adapt SAM with `make adapt-sam`"):
        load_segmenter(tmp_path / "none")


def test_frozen(teacher):
    assert not teacher.training
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert len(teacher.digest) == 64


def test_the_shipped_base_weights_match_their_card():
    card = json.loads(SHIPPED.with_suffix(".json").read_text())
    assert card["sha256"] == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert SHIPPED.stat().st_size < 10 * 2**20
    assert {"licence", "command", "seed"} <= card.keys()


def test_the_shipped_sam_finds_a_bright_bar_in_its_box():
    from rbs.segmentation.dice import regions_prompted

    labels = torch.zeros(1, 256, 256, dtype=torch.int64)
    labels[0, 60:180, 100:124] = 2
    counts = torch.poisson(1 + 14.0 * (labels == 2), generator=torch.Generator().manual_seed(0))
    found, truth = regions_prompted("vit_t", build_sam("vit_t"), counts, labels)
    there = truth == 2
    dice = 2 * (found[:, 1] & there).sum() / (found[:, 1].sum() + there.sum())
    assert dice > 0.7

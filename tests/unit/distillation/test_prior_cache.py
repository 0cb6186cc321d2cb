import os

import pytest
import torch

from rbs.distillation.prior_cache import PriorCache
from rbs.segmentation.prior import SemanticPrior


class Counted:
    """A teacher that counts how often it is asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self, counts):
        self.calls += 1
        assert len(counts) == 1
        masks = torch.sigmoid(counts.mean() + torch.linspace(-3, 3, 9 * 16)).reshape(1, 1, 9, 4, 4)
        return SemanticPrior(counts.sum() / 3 + torch.rand(1, 1, 5, 2, 2), masks, 16, 2)


@pytest.fixture
def compute():
    return Counted()


def same(a, b):
    strides = (a.embedding_stride, a.mask_stride) == (b.embedding_stride, b.mask_stride)
    return strides and torch.equal(a.embedding, b.embedding) and torch.equal(a.masks, b.masks)


def test_what_is_loaded_equals_what_was_first_returned(tmp_path, compute):
    counts = torch.rand(3, 2, 8, 8)
    first = PriorCache(tmp_path, "a").get_or_compute(counts, compute)
    second = PriorCache(tmp_path, "a").get_or_compute(counts, compute)
    assert compute.calls == 3
    assert same(first, second)
    assert first.embedding.dtype == first.masks.dtype == torch.float32


def test_rounding_is_slight(tmp_path):
    prior = SemanticPrior(torch.randn(1, 1, 5, 2, 2), torch.rand(1, 1, 9, 4, 4), 16, 2)
    kept = PriorCache(tmp_path, "a").get_or_compute(torch.rand(1, 1, 8, 8), lambda _: prior)
    assert torch.allclose(kept.embedding, prior.embedding, rtol=1e-3, atol=1e-6)
    assert (kept.masks - prior.masks).abs().max() <= 0.5 / 255 + 1e-6


def test_the_key_is_content_shape_and_digest(tmp_path):
    counts = torch.rand(1, 2, 8, 8)
    cache = PriorCache(tmp_path, "a")
    assert cache.key(counts) == cache.key(counts.clone())
    others = [
        cache.key(counts + 1),
        cache.key(counts.reshape(1, 2, 4, 16)),
        PriorCache(tmp_path, "b").key(counts),
    ]
    assert len({cache.key(counts), *others}) == 4


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_damaged_file_counts_as_absent(tmp_path, compute, keep):
    counts = torch.rand(1, 2, 8, 8)
    cache = PriorCache(tmp_path, "a")
    cache.get_or_compute(counts, compute)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:keep])
    again = cache.get_or_compute(counts, compute)
    assert compute.calls == 2
    assert same(again, PriorCache(tmp_path, "a").get_or_compute(counts, compute))
    assert compute.calls == 2


def test_a_file_that_another_process_wrote_meanwhile_does_no_harm(tmp_path, compute):
    counts = torch.rand(1, 2, 8, 8)
    cache = PriorCache(tmp_path, "a")

    def compute_late(x):
        PriorCache(tmp_path, "a").get_or_compute(x, compute)
        return compute(x)

    assert same(cache.get_or_compute(counts, compute_late), cache.get_or_compute(counts, compute))
    assert compute.calls == 2


def test_the_files_used_longest_ago_go_first(tmp_path, compute):
    scans = [torch.full((1, 1, 8, 8), float(i)) for i in range(8)]
    PriorCache(tmp_path, "a").get_or_compute(scans[0], compute)
    size = next(tmp_path.glob("*.safetensors")).stat().st_size
    cache = PriorCache(tmp_path, "a", max_bytes=int(4.5 * size))
    for i, scan in enumerate(scans):
        cache.get_or_compute(scan, compute)
        file = tmp_path / f"{cache.key(scan)}.safetensors"
        os.utime(file, (1000 + i, 1000 + i))
        os.utime(tmp_path / f"{cache.key(scans[0])}.safetensors", (5000, 5000))
        assert sum(file.stat().st_size for file in tmp_path.glob("*.safetensors")) <= 4.5 * size
    left = {file.stem for file in tmp_path.glob("*.safetensors")}
    assert {cache.key(scans[0]), cache.key(scans[7])} <= left
    assert cache.key(scans[1]) not in left

import os

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rbs.distillation.prior_cache import PriorCache
from rbs.errors import RbsError
from rbs.segmentation.prior import SemanticPrior

SPACING = (2.26, 2.26)


class Counted:
    """A teacher that counts how often it is asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self, counts, exposure, spacing_mm):
        self.calls += 1
        masks = torch.sigmoid(torch.tensor(counts.mean()) + torch.linspace(-3, 3, 9 * 16))
        embedding = float(counts.sum()) / 3 + torch.rand(1, 1, 5, 2, 2)
        return SemanticPrior(embedding, masks.reshape(1, 1, 9, 4, 4), 16, 2)


@pytest.fixture
def compute():
    return Counted()


def draw(seed=0):
    return np.random.default_rng(seed).poisson(3.0, (2, 8, 8))


def same(a, b):
    strides = (a.embedding_stride, a.mask_stride) == (b.embedding_stride, b.mask_stride)
    return strides and torch.equal(a.embedding, b.embedding) and torch.equal(a.masks, b.masks)


def test_a_loaded_prior_equals_what_was_first_returned(tmp_path, compute):
    first = PriorCache(tmp_path, "a").get_or_compute(draw(), 0.5, SPACING, compute)
    second = PriorCache(tmp_path, "a").get_or_compute(draw(), 0.5, SPACING, compute)
    assert compute.calls == 1
    assert same(first, second)
    assert same(first, PriorCache(tmp_path, "a").read(draw(), 0.5, SPACING))
    assert first.embedding.dtype == torch.half
    assert first.masks.dtype == torch.uint8


def test_a_prior_that_was_not_stored_is_not_read(tmp_path, compute):
    cache = PriorCache(tmp_path, "a")
    cache.get_or_compute(draw(), 0.5, SPACING, compute)
    with pytest.raises(RbsError, match=r"missing or damaged; start again with --ckpt_path last"):
        cache.read(draw(1), 0.5, SPACING)


def test_rounding_is_slight(tmp_path):
    prior = SemanticPrior(torch.randn(1, 1, 5, 2, 2), torch.rand(1, 1, 9, 4, 4), 16, 2)
    kept = PriorCache(tmp_path, "a").get_or_compute(draw(), 0.5, SPACING, lambda *_: prior).decoded()
    assert torch.allclose(kept.embedding, prior.embedding, rtol=1e-3, atol=1e-6)
    assert (kept.masks - prior.masks).abs().max() <= 0.5 / 255 + 1e-6


def test_the_key_is_content_shape_exposure_spacing_and_digest(tmp_path):
    counts, cache = draw(), PriorCache(tmp_path, "a")
    assert cache.key(counts, 0.5, SPACING) == cache.key(counts.astype(np.uint16), 0.5, SPACING)
    keys = {
        cache.key(counts, 0.5, SPACING),
        cache.key(counts, 0.25, SPACING),
        cache.key(counts, 0.5, (2.26, 2.4)),
        cache.key(counts + 1, 0.5, SPACING),
        cache.key(counts.reshape(2, 4, 16), 0.5, SPACING),
        PriorCache(tmp_path, "b").key(counts, 0.5, SPACING),
    }
    assert len(keys) == 6


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_damaged_file_counts_as_absent(tmp_path, compute, keep):
    cache = PriorCache(tmp_path, "a")
    cache.get_or_compute(draw(), 0.5, SPACING, compute)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:keep])
    again = cache.get_or_compute(draw(), 0.5, SPACING, compute)
    assert compute.calls == 2
    assert same(again, PriorCache(tmp_path, "a").get_or_compute(draw(), 0.5, SPACING, compute))
    assert compute.calls == 2


@pytest.mark.parametrize("place", [300, -1, -40, -150])
def test_a_flipped_bit_is_not_served_but_said(tmp_path, compute, place, caplog):
    first = PriorCache(tmp_path, "a").get_or_compute(draw(), 0.5, SPACING, compute)
    (file,) = tmp_path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(RbsError, match="missing or damaged"):
        PriorCache(tmp_path, "a").read(draw(), 0.5, SPACING)
    caplog.clear()
    again = PriorCache(tmp_path, "a").get_or_compute(draw(), 0.5, SPACING, lambda *_: first.decoded())
    assert same(again, first)
    assert file.read_bytes() != data
    (record,) = caplog.records
    assert record.getMessage() == f"{file}: it is damaged; such semantic priors are computed again"


@pytest.mark.parametrize(
    "changes",
    [
        {"embedding": torch.full((1, 1, 5, 2, 2), float("nan"))},
        {"masks": torch.zeros(1, 1, 9, 8, 8, dtype=torch.uint8)},
        {"embedding_stride": "sixteen"},
        {"embedding_stride": None},
        {"digest": None},
    ],
)
def test_another_content_is_not_served(tmp_path, compute, changes):
    wanted = PriorCache(tmp_path, "a").get_or_compute(draw(), 0.5, SPACING, compute)
    (file,) = tmp_path.glob("*.safetensors")
    with safe_open(file, "pt") as content:
        tensors, metadata = {n: content.get_tensor(n) for n in content.keys()}, content.metadata()  # noqa: SIM118
    for name, value in changes.items():
        (tensors if name in tensors else metadata)[name] = value
    save_file(tensors, file, {name: text for name, text in metadata.items() if text is not None})
    assert same(
        PriorCache(tmp_path, "a").get_or_compute(draw(), 0.5, SPACING, lambda *_: wanted.decoded()), wanted
    )


def test_the_prior_of_another_image_is_not_served(tmp_path, compute):
    cache = PriorCache(tmp_path, "a")
    cache.get_or_compute(draw(), 0.5, SPACING, compute)
    (file,) = tmp_path.glob("*.safetensors")
    file.rename(tmp_path / f"{cache.key(draw(1), 0.5, SPACING)}.safetensors")
    cache.get_or_compute(draw(1), 0.5, SPACING, compute)
    assert compute.calls == 2


def test_many_damaged_files_make_one_line(tmp_path, compute, caplog):
    cache = PriorCache(tmp_path, "a")
    for seed in range(3):
        cache.get_or_compute(draw(seed), 0.5, SPACING, compute)
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    for seed in range(3):
        cache.get_or_compute(draw(seed), 0.5, SPACING, compute)
    assert (compute.calls, len(caplog.records)) == (6, 1)


def test_a_prior_that_is_not_finite_is_not_stored(tmp_path):
    for embedding in (torch.full((1, 1, 5, 2, 2), float("nan")), torch.full((1, 1, 5, 2, 2), 1e6)):
        prior = SemanticPrior(embedding, torch.rand(1, 1, 9, 4, 4), 16, 2)
        with pytest.raises(RbsError, match=r"a semantic prior that is not finite; adapt another teacher"):
            PriorCache(tmp_path, "a").get_or_compute(draw(), 0.5, SPACING, lambda *_, prior=prior: prior)
    assert not list(tmp_path.iterdir())


def test_a_file_that_another_process_wrote_meanwhile_does_no_harm(tmp_path, compute):
    cache = PriorCache(tmp_path, "a")

    def compute_late(counts, exposure, spacing_mm):
        PriorCache(tmp_path, "a").get_or_compute(counts, exposure, SPACING, compute)
        return compute(counts, exposure, spacing_mm)

    late = cache.get_or_compute(draw(), 0.5, SPACING, compute_late)
    assert same(late, cache.get_or_compute(draw(), 0.5, SPACING, compute))
    assert compute.calls == 2


def test_the_files_used_longest_ago_go_first_but_none_of_this_training(tmp_path, compute):
    scans = [np.full((1, 8, 8), float(i)) for i in range(8)]
    PriorCache(tmp_path, "a").get_or_compute(scans[0], 0.5, SPACING, compute)
    size = next(tmp_path.glob("*.safetensors")).stat().st_size
    cache = PriorCache(tmp_path, "a", max_bytes=int(4.5 * size))
    files = [tmp_path / f"{cache.key(scan, 0.5, SPACING)}.safetensors" for scan in scans]
    for i, (scan, file) in enumerate(zip(scans, files, strict=True)):
        cache.get_or_compute(scan, 0.5, SPACING, compute)
        os.utime(file, (1000 + i, 1000 + i))
        os.utime(files[0], (5000, 5000))
        assert sum(file.stat().st_size for file in tmp_path.glob("*.safetensors")) <= 4.5 * size
    left = {file.name for file in tmp_path.glob("*.safetensors")}
    assert {files[0].name, files[7].name} <= left
    assert files[1].name not in left
    later = PriorCache(tmp_path, "a", max_bytes=size)
    for scan in scans:
        later.get_or_compute(scan, 0.5, SPACING, compute)
    assert {file.name for file in tmp_path.glob("*.safetensors")} == {file.name for file in files}

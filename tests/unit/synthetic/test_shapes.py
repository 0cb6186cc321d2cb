import numpy as np
import pytest
import torch

from rbs.synthetic.shapes import Batches, ShapesDataModule, draw, draw_batch


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_batch_depends_on_seed_stream_and_number_alone():
    batches = Batches(seed=5, stream=0, batch_size=2, prompts=4)
    first = batches[4]
    batches[0]
    assert equal(batches[4], first)
    for seed, stream, index in [(6, 0, 4), (5, 1, 4), (5, 0, 12)]:
        assert not equal(Batches(seed, stream, 2, 4)[index], first)


def test_epochs_go_on_and_workers_do_not_matter():
    def epochs(workers):
        data = ShapesDataModule(batch_size=1, samples_per_epoch=2, validation_batches=2, num_workers=workers)
        train, val = data.train_dataloader(), data.val_dataloader()
        seen = []
        for epoch in (0, 1):
            train.sampler.set_epoch(epoch)
            val.sampler.set_epoch(epoch)
            seen.append((list(train), list(val)))
        return seen

    (train0, val0), (train1, val1) = epochs(0)
    assert all(map(equal, val0, val1))
    assert not any(map(equal, train0, train1))
    (worker0, _), (worker1, _) = epochs(1)
    assert all(map(equal, train0 + train1, worker0 + worker1))


@pytest.mark.parametrize("side", [64, 256])
def test_prompts_belong_to_their_objects(side):
    batch = draw_batch(np.random.default_rng(0), 4, side, 6)
    assert batch["counts"].shape == (4, 1, side, side)
    assert batch["counts"].min() >= 0
    for masks, points, boxes in zip(batch["masks"], batch["points"], batch["boxes"], strict=True):
        for mask, (x, y), box in zip(masks, points, boxes, strict=True):
            assert mask[int(y), int(x)] == 1
            rows, columns = torch.nonzero(mask, as_tuple=True)
            tight = torch.stack([columns.min(), rows.min(), columns.max(), rows.max()])
            loose = torch.clamp(0.05 * (tight[2:] - tight[:2]), min=1).repeat(2)
            assert ((box - tight).abs() <= 5 * loose).all()


def test_most_pictures_are_whole_numbers_of_gammas_and_some_are_free_of_noise():
    """At an exposure p a picture holds n / p counts, n whole."""

    def whole(counts):
        gammas = np.unique(counts) / np.unique(counts)[1]
        return np.allclose(gammas, np.round(gammas), atol=1e-3)

    assert 25 <= sum(whole(draw(np.random.default_rng(seed), 64)[0]) for seed in range(40)) <= 39


def test_all_objects_are_numbered():
    _, objects = draw(np.random.default_rng(1), 256)
    assert objects.dtype == np.uint8
    assert 2 <= len(np.unique(objects)) <= 10

"""Batches of colour frames: pairs that belong together, the same whoever draws them."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d

from rbs.data.endoscopy import EndoscopyDataModule
from rbs.degradation.optical import Optical, halve
from rbs.errors import FrameError, ManifestError, RbsError
from rbs.segmentation.prior import SemanticPrior

SMALL = {"crop": (32, 32), "batch_size": 4, "samples_per_epoch": 12, "num_workers": 0, "longest_side": 64}


def scene(seed, rows=48, columns=64):
    """A smooth picture of mucosa's colours, uint8 (rows, columns, 3)."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=(rows, columns)), 4)
    base = np.array([190, 110, 90]) + 400 * field[..., None] * np.array([1, 0.8, 0.7])
    return np.clip(base, 30, 240).astype(np.uint8)


@pytest.fixture
def make(tmp_path):
    """Writes frames and their manifest."""

    def written(splits=("train", "train", "train", "val"), low=False, masks=True, size=(48, 64)):
        lines = []
        for k, split in enumerate(splits):
            picture = scene(k, *size)
            Image.fromarray(picture).save(tmp_path / f"{k}.png")
            row = {"frame": f"{k}.png", "split": split, "group": f"video {k}"}
            if masks:
                inside = np.zeros(size, np.uint8)
                inside[10:30, 20:50] = 255
                Image.fromarray(inside).save(tmp_path / f"{k}_mask.png")
                row["mask"] = f"{k}_mask.png"
            if low:
                Image.fromarray(picture // 2).save(tmp_path / f"{k}_low.png")
                row["low"] = f"{k}_low.png"
            lines.append(row)
        with (tmp_path / "manifest.csv").open("w") as file:
            writer = csv.DictWriter(file, ["frame", "split", "group", "mask", "low"], restval="")
            writer.writeheader()
            writer.writerows(lines)
        return tmp_path / "manifest.csv"

    return written


def set_up(manifest, **options):
    data = EndoscopyDataModule(manifest, **{**SMALL, **options})
    data.setup("fit")
    return data


def test_a_batch_is_what_the_class_says(make):
    batch = next(iter(set_up(make(), preset="denoise").train_dataloader()))
    shapes = {name: (tuple(v.shape), v.dtype) for name, v in batch.items() if name != "patient"}
    assert shapes == {
        "rapid": ((4, 3, 32, 32), torch.float32),
        "target": ((4, 3, 32, 32), torch.float32),
        "valid": ((4, 1, 32, 32), torch.bool),
        "labels": ((4, 1, 32, 32), torch.int64),
        "exposure": ((4,), torch.float32),
        "target_exposure": ((4,), torch.float32),
        "case": ((4,), torch.int64),
        "crop": ((4, 4), torch.int64),
        "flip": ((4, 2), torch.bool),
    }
    assert batch["exposure"].eq(1).all()
    assert batch["target_exposure"].eq(1).all()
    assert 0 <= batch["rapid"].min() <= batch["rapid"].max() <= 1
    assert set(batch["patient"]) <= {"video 0", "video 1", "video 2"}


def test_crops_are_of_the_frames_they_name(make, tmp_path):
    data = set_up(make(), preset="low-light", realisations=2)
    for batch in data.train_dataloader():
        for k in range(4):
            case, (top, left, height, width) = int(batch["case"][k]), batch["crop"][k].tolist()
            cut = np.s_[:, top : top + height, left : left + width]
            clean = scene(case).transpose(2, 0, 1).astype(np.float32) / 255
            dims = [d for d, flipped in zip((-1, -2), batch["flip"][k].tolist(), strict=True) if flipped]
            np.testing.assert_array_equal(batch["target"][k].flip(dims), clean[cut])
            lows = [data._crops().realisation(case, n)[0][cut] for n in range(2)]
            assert any(np.array_equal(batch["rapid"][k].flip(dims), low) for low in lows)


def test_a_sample_carries_the_prior_of_its_degraded_frame(make):
    def prior(low, exposure, spacing_mm):
        x = torch.from_numpy(low)[None, :]
        return SemanticPrior(avg_pool2d(x, 16)[:, None], avg_pool2d(x, 2)[:, None], 16, 2)

    data = set_up(make(), preset="low-light", realisations=2)
    data.attach_priors(prior, fill=prior)
    for batch in data.train_dataloader():
        torch.testing.assert_close(batch["prior"].embedding[:, 0], avg_pool2d(batch["rapid"], 16))
        torch.testing.assert_close(batch["prior"].masks[:, 0], avg_pool2d(batch["rapid"], 2))


def test_a_realisation_is_the_degradation_of_its_number(make):
    crops = set_up(make(), preset="mixed", realisations=3, seed=5)._crops()
    clean = scene(1).transpose(2, 0, 1).astype(np.float32) / 255
    wanted = Optical("mixed", np.ones(clean.shape[1:], bool))(clean, np.random.default_rng((5, 3, 1, 2)))
    np.testing.assert_allclose(crops.realisation(1, 2)[0], wanted, atol=1e-6)
    assert not np.array_equal(crops.realisation(1, 2)[0], crops.realisation(1, 0)[0])


@pytest.mark.parametrize("realisations", [None, 2])
def test_samples_do_not_depend_on_workers_or_ranks(make, realisations):
    manifest = make()
    alone = [
        b["rapid"] for b in set_up(manifest, preset="denoise", realisations=realisations).train_dataloader()
    ]
    helped = set_up(manifest, preset="denoise", realisations=realisations, num_workers=2)
    for ours, theirs in zip(alone, helped.train_dataloader(), strict=True):
        assert torch.equal(ours, theirs["rapid"])


def test_epochs_differ_and_repeat_when_resumed(make):
    def epoch(number):
        loader = set_up(make(), preset="denoise").train_dataloader()
        loader.sampler.set_epoch(number)
        return torch.cat([batch["rapid"] for batch in loader])

    assert torch.equal(epoch(1), epoch(1))
    assert not torch.equal(epoch(0), epoch(1))


def test_validation_is_whole_frames_always_degraded_alike(make):
    first, second = (next(iter(set_up(make(), preset="denoise").val_dataloader())) for _ in range(2))
    assert torch.equal(first["rapid"], second["rapid"])
    assert first["rapid"].shape == (1, 3, 48, 64)
    assert first["crop"].tolist() == [[0, 0, 48, 64]]
    assert first["labels"].sum() == 20 * 30
    assert not torch.equal(first["rapid"], first["target"])


def test_acquired_pictures_take_the_place_of_degraded_ones(make):
    data = set_up(make(low=True), preset="denoise")
    batch = next(iter(data.val_dataloader()))
    np.testing.assert_allclose(
        batch["rapid"][0], (scene(3) // 2).transpose(2, 0, 1) / np.float32(255), atol=1e-6
    )
    assert data.training_ranges() == {"preset": None, "longest_side": 64}


def test_a_picture_of_half_the_size_is_enlarged(make, tmp_path):
    manifest = make(low=True)
    for k in range(4):
        half = halve(scene(k).transpose(2, 0, 1).astype(np.float32) / 255)
        eight = np.rint(255 * half).astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(eight).save(tmp_path / f"{k}_low.png")
    batch = next(iter(set_up(manifest).val_dataloader()))
    assert batch["rapid"].shape == batch["target"].shape
    assert (batch["rapid"] - batch["target"]).abs().mean() < 0.01


def test_half_of_an_odd_size_may_be_rounded_either_way(make, tmp_path):
    manifest = make(low=True, size=(49, 63))
    for shape in ((24, 31), (25, 32)):
        for k in range(4):
            Image.fromarray(scene(k, 49, 63)).resize(shape[::-1]).save(tmp_path / f"{k}_low.png")
        (batch,) = set_up(manifest, longest_side=None).val_dataloader()
        assert batch["rapid"].shape == batch["target"].shape == (1, 3, 49, 63)
        assert (batch["rapid"] - batch["target"]).abs().mean() < 0.02


def test_longer_frames_are_reduced_first(make):
    batch = next(iter(set_up(make(size=(96, 128))).val_dataloader()))
    assert batch["rapid"].shape == (1, 3, 48, 64)
    assert batch["labels"].sum() == 10 * 15


def test_without_all_masks_there_are_no_labels(make):
    assert "labels" not in next(iter(set_up(make(masks=False)).train_dataloader()))


def test_what_cannot_be_used_is_told(make, tmp_path):
    with pytest.raises(ManifestError, match=r"48 x 64 pixels, fewer than the crop's 64 x 64"):
        set_up(make(), crop=(64, 64))
    manifest = make()
    Image.fromarray(np.zeros((48, 60), np.uint8)).save(tmp_path / "1_mask.png")
    with pytest.raises(
        ManifestError, match=r"1_mask.png: the mask has 60 x 48 pixels, but .*1.png has 64 x 48"
    ):
        set_up(manifest)
    manifest = make(low=True)
    Image.fromarray(scene(0, 40, 40)).save(tmp_path / "2_low.png")
    with pytest.raises(ManifestError, match=r"2_low.png: it has 40 x 40 pixels.*or of half of it"):
        set_up(manifest)
    manifest = make(low=True)
    Image.fromarray(scene(1) // 2).save(tmp_path / "2_low.png")
    with pytest.raises(ManifestError, match=r"2_low.png: it does not show what .*2.png shows \(likeness"):
        set_up(manifest)
    manifest = make()
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "0.png")
    with pytest.raises(FrameError, match=r"0.png: it shows nothing; leave it out"):
        set_up(manifest)
    for options in (
        {"crop": (30, 32)},
        {"batch_size": 0},
        {"realisations": 0},
        {"seed": -1},
        {"longest_side": 16},
    ):
        with pytest.raises(RbsError):
            EndoscopyDataModule("m.csv", **{**SMALL, **options})

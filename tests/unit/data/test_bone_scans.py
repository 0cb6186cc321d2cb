"""Training samples: their pairs share no count, and a seed, an epoch and a place decide each of them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pydicom
import pytest
import torch
from moving_body import MIDDLE, SPACING, expectation, rigid
from torch.nn.functional import avg_pool2d

from rbs.data.bone_scans import RBSDataModule
from rbs.data.loading import load_case
from rbs.data.manifest import Manifest, write_manifest
from rbs.data.samples import Crops, WholeScans
from rbs.errors import ManifestError, RbsError
from rbs.scans.registration import Motion
from rbs.segmentation.prior import SemanticPrior
from rbs.utils.image_ops import warp

SHAPES = {
    "rapid": ((4, 2, 64, 32), torch.float32),
    "exposure": ((4,), torch.float32),
    "target": ((4, 2, 64, 32), torch.float32),
    "target_exposure": ((4,), torch.float32),
    "spacing_mm": ((4, 2), torch.float32),
    "labels": ((4, 2, 64, 32), torch.int64),
    "expectation": ((4, 2, 64, 32), torch.float32),
    "case": ((4,), torch.int64),
    "crop": ((4, 4), torch.int64),
    "flip": ((4, 2), torch.bool),
}


def module(manifest: Path, stage: str = "fit", **changes: object) -> RBSDataModule:
    settings = {
        "crop": (64, 32),
        "batch_size": 4,
        "samples_per_epoch": 16,
        "num_workers": 0,
        "seed": 3,
    } | changes
    data = RBSDataModule(manifest, **settings)
    data.setup(stage)
    return data


def epoch(data: RBSDataModule, number: int = 0, loader=None) -> list[dict]:
    loader = loader or data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def same(a: list[dict], b: list[dict]) -> bool:
    return len(a) == len(b) and all(
        x["patient"] == y["patient"] and all(torch.equal(x[name], y[name]) for name in SHAPES)
        for x, y in zip(a, b, strict=True)
    )


def undone(tensor: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    axes = [axis for axis, done in ((-1, flip[0]), (-2, flip[1])) if done]
    return tensor.flip(axes) if axes else tensor


def shown(batch: dict, i: int, name: str, whole: np.ndarray) -> tuple[int, ...]:
    """The views of a whole scan that the channels of a sample show, pixel for pixel."""
    top, left, height, width = batch["crop"][i].tolist()
    channels = undone(batch[name][i], batch["flip"][i]).numpy()
    cuts = whole[:, top : top + height, left : left + width]
    return tuple(next(v for v, cut in enumerate(cuts) if np.array_equal(cut, c)) for c in channels)


def test_construction_opens_nothing_and_setup_tells_what_is_missing(tmp_path: Path) -> None:
    data = RBSDataModule(tmp_path / "none.csv")
    with pytest.raises(ManifestError, match=r"make data/phantoms/manifest\.csv"):
        data.setup("fit")


@pytest.mark.parametrize("pairs", ["measured", "split", "rapid", "expectation"])
def test_batches_have_the_promised_shapes_and_ranges(tiny_cohort: Path, pairs: str) -> None:
    data = module(tiny_cohort, pairs=pairs, exposures=(0.3, 0.4))
    batches = epoch(data)
    assert len(batches) == 4
    for batch in batches:
        assert set(batch) == {*SHAPES, "patient"}
        assert {name: (tuple(batch[name].shape), batch[name].dtype) for name in SHAPES} == SHAPES
        assert batch["patient"] == [data.cases("train")[i].patient for i in batch["case"]]
        top, left, height, width = batch["crop"].T
        assert not (top % 16).any()
        assert not (left % 16).any()
        assert ((top >= 0) & (top + height <= 128) & (left >= 0) & (left + width <= 64)).all()
        assert torch.equal(batch["rapid"], batch["rapid"].round())
        exposure = batch["exposure"]
        low, high = {"measured": (0.49, 0.51), "rapid": (0.15, 0.2)}.get(pairs, (0.3, 0.4))
        assert ((exposure > low) & (exposure < high)).all()
        expected = {"split": 1 - exposure, "rapid": 0.5 - exposure}.get(pairs, torch.ones(4))
        torch.testing.assert_close(batch["target_exposure"], expected)
    # Over an epoch, each exposure holds its share of the expectation: nothing is scaled twice or
    # not at all.
    for counts, share in (("rapid", "exposure"), ("target", "target_exposure")):
        observed = sum(b[counts].sum() for b in batches)
        expected = sum((b["expectation"] * b[share][:, None, None, None]).sum() for b in batches)
        assert observed / expected == pytest.approx(1, abs=0.03)


def test_crop_and_flips_say_where_a_sample_came_from(tiny_cohort: Path) -> None:
    data = module(tiny_cohort, pairs="measured", samples_per_epoch=32, single_view_probability=0.5)
    views, flips = set(), set()
    for batch in epoch(data):
        for i, case in enumerate(batch["case"]):
            loaded = data.loaded("train", int(case))
            pictures = {"rapid": loaded.rapid, "target": loaded.standard, "expectation": loaded.expectation}
            found = {shown(batch, i, name, whole) for name, whole in pictures.items()}
            assert len(found) == 1
            views |= found
            flips.add(tuple(batch["flip"][i].tolist()))
            top, left, height, width = batch["crop"][i].tolist()
            labels = loaded.labels[list(*found), top : top + height, left : left + width]
            np.testing.assert_array_equal(undone(batch["labels"][i], batch["flip"][i]).numpy(), labels)
    assert views == {(0, 1), (0, 0), (1, 1)}
    assert len(flips) == 4


@pytest.mark.parametrize(("pairs", "divided"), [("split", "standard"), ("rapid", "rapid")])
def test_divided_pairs_share_no_count(tiny_cohort: Path, pairs: str, divided: str) -> None:
    data = module(tiny_cohort, pairs=pairs, samples_per_epoch=32)
    for batch in epoch(data):
        batch["both"] = batch["rapid"] + batch["target"]
        for i, case in enumerate(batch["case"]):
            assert shown(batch, i, "both", getattr(data.loaded("train", int(case)), divided))
        assert batch["target"].min() >= 0


@pytest.mark.parametrize("pairs", ["split", "rapid", "expectation", "measured"])
def test_crops_of_numbered_rapid_scans_are_of_whole_ones(tiny_cohort: Path, pairs: str) -> None:
    """A prior of the whole rapid scan is one of the crop's input, and of no count of its target."""
    data = module(tiny_cohort, pairs=pairs, realisations=3, samples_per_epoch=48)
    whole = {
        (row, n): data._crops().realisation(row, n) for row in range(4) for n in range(data.realisations)
    }
    seen = set()
    for batch in epoch(data):
        for i, case in enumerate(batch["case"].tolist()):
            exposure = float(batch["exposure"][i])
            numbers = [n for (row, n), of in whole.items() if row == case and np.float32(of[1]) == exposure]
            assert len(numbers) == 1, "a number keeps its exposure"
            rapid, *_ = whole[case, numbers[0]]
            shown(batch, i, "rapid", rapid)
            if pairs in ("split", "rapid"):
                loaded = data.loaded("train", case)
                shown(batch, i, "target", (loaded.standard if pairs == "split" else loaded.rapid) - rapid)
            seen.add(numbers[0])
    assert seen == ({0} if pairs == "measured" else {0, 1, 2})


def pooled_prior(counts: np.ndarray, exposure: float, spacing_mm: tuple[float, float]) -> SemanticPrior:
    """A prior of which every crop, flip and view can be told: means of the counts over its cells."""
    x = torch.as_tensor(counts.astype(np.float32))[:, None] / exposure
    embedding, masks = (avg_pool2d(x, stride)[None] for stride in (16, 2))
    return SemanticPrior(embedding, masks, 16, 2)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("pairs", ["split", "measured"])
def test_the_prior_of_a_sample_is_that_of_its_pixels(tiny_cohort: Path, pairs: str, workers: int) -> None:
    data = module(tiny_cohort, pairs=pairs, realisations=2, single_view_probability=0.5, num_workers=workers)
    plain, filled = epoch(data), []
    data.attach_priors(pooled_prior, fill=lambda counts, *facts: filled.append((counts.sum(), *facts)))
    batches = epoch(data)
    assert same(batches, plain), "priors change no other random choice"
    assert len(set(filled)) == len(filled) == 4 * data.realisations
    assert {spacing for *_, spacing in filled} == {data.loaded("train", 0).spacing_mm}
    for batch in batches:
        for i in range(4):
            expected = pooled_prior(batch["rapid"][i].numpy(), float(batch["exposure"][i]), (1.0, 1.0))
            torch.testing.assert_close(batch["prior"].embedding[i : i + 1], expected.embedding)
            torch.testing.assert_close(batch["prior"].masks[i : i + 1], expected.masks)


def test_ranks_fill_priors_between_them_and_computed_ones_stay_in_the_process(tiny_cohort: Path) -> None:
    filled = []
    for rank in range(2):
        data = module(tiny_cohort, realisations=3)
        data.trainer = SimpleNamespace(world_size=2, global_rank=rank)
        data.attach_priors(pooled_prior, fill=lambda counts, exposure, spacing_mm: filled.append(exposure))
    assert len(set(filled)) == len(filled) == 4 * 3
    data = module(tiny_cohort, realisations=3, num_workers=2)
    data.attach_priors(pooled_prior)
    assert data.train_dataloader().num_workers == 0
    with pytest.raises(RbsError, match=r"set --data\.realisations 4"):
        module(tiny_cohort).attach_priors(pooled_prior)


@pytest.mark.parametrize("pairs", ["split", "rapid", "expectation", "measured"])
def test_noise_of_input_and_target_is_independent(make_cohort, tmp_path: Path, pairs: str) -> None:
    manifest = make_cohort(tmp_path, splits=("train", "val"), shape=(128, 64))
    data = module(
        manifest,
        pairs=pairs,
        crop=(128, 64),
        exposures=(0.5, 0.5),
        samples_per_epoch=8,
        single_view_probability=0,
    )
    correlations = []
    for batch in epoch(data):
        mean = batch["expectation"]
        residual = [
            (batch[name] - batch[share][:, None, None, None] * mean)
            / (batch[share][:, None, None, None] * mean).sqrt()
            for name, share in (("rapid", "exposure"), ("target", "target_exposure"))
        ]
        correlations += [(a * b).mean().item() for a, b in zip(*residual, strict=True)]
    # Had the target held the counts of its rapid scan, the correlation would be sqrt(p) = 0.71. One
    # sample of 16384 pixels scatters by 0.008.
    assert max(abs(c) for c in correlations) < 0.05
    if pairs == "expectation":
        assert all(c == 0 for c in correlations)


def test_expectation_pairs_draw_fresh_counts(tiny_cohort: Path) -> None:
    data = module(tiny_cohort, pairs="expectation", crop=(128, 64), single_view_probability=0)
    by_case: dict[int, list[torch.Tensor]] = {}
    for batch in epoch(data):
        assert torch.equal(batch["target"], batch["expectation"])
        for i, case in enumerate(batch["case"].tolist()):
            by_case.setdefault(case, []).append(undone(batch["rapid"][i], batch["flip"][i]))
    assert all(not torch.equal(draws[0], draws[1]) for draws in by_case.values())


def test_every_case_is_seen_once_a_lap(tiny_cohort: Path) -> None:
    cases = torch.cat([batch["case"] for batch in epoch(module(tiny_cohort))]).reshape(4, 4)
    assert (cases.sort(dim=1).values == torch.arange(4)).all()


def test_samples_depend_on_seed_and_epoch_only(tiny_cohort: Path) -> None:
    data = module(tiny_cohort)
    first, second = epoch(data, 0), epoch(data, 1)
    assert not same(first, second)
    assert not any(torch.equal(a["rapid"], b["rapid"]) for a, b in zip(first, second, strict=True))
    assert not same(first, epoch(module(tiny_cohort, seed=4)))
    assert len({sample.sum().item() for batch in first for sample in batch["rapid"]}) == 16
    workers = module(tiny_cohort, num_workers=2)
    loader = workers.train_dataloader()
    # The same two processes serve all three epochs.
    assert loader.persistent_workers
    assert same(epoch(workers, 0, loader), first)
    assert same(epoch(workers, 1, loader), second)
    assert same(epoch(workers, 0, loader), first)


def test_ranks_share_an_epoch_between_them(tiny_cohort: Path) -> None:
    data = module(tiny_cohort, batch_size=1)
    alone = epoch(data, 2)
    parts = []
    for rank in range(2):
        data.trainer = SimpleNamespace(world_size=2, global_rank=rank)
        parts.append(epoch(data, 2))
    together = [sample for pair in zip(*parts, strict=True) for sample in pair]
    assert same(together, alone)


class Recorder(L.LightningModule):
    """Notes what training was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.sums: list[tuple[int, float]] = []
        self.validated: list[float] = []

    def training_step(self, batch: dict) -> torch.Tensor:
        self.sums.append((self.current_epoch, batch["rapid"].sum().item()))
        return (self.weight - batch["rapid"].mean()) ** 2

    def validation_step(self, batch: dict) -> None:
        self.validated.append(batch["rapid"].sum().item())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_lightning_moves_the_epoch_on(tiny_cohort: Path, tmp_path: Path) -> None:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    recorder = Recorder()
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", enable_model_summary=False, default_root_dir=tmp_path, **quiet
    )
    trainer.fit(recorder, datamodule=module(tiny_cohort))
    data = module(tiny_cohort)
    expected = [(e, batch["rapid"].sum().item()) for e in range(2) for batch in epoch(data, e)]
    assert recorder.sums == expected
    assert len({total for _, total in expected}) == 8  # no batch of one epoch comes again in the next
    assert len(set(recorder.validated)) == 1  # the one validation scan is the same every time


@pytest.mark.parametrize(("stage", "split"), [("fit", "val"), ("validate", "val"), ("test", "test")])
def test_whole_scans_are_shown_as_acquired(tiny_cohort: Path, stage: str, split: str) -> None:
    data = module(tiny_cohort, stage)
    (batch,) = data.val_dataloader() if split == "val" else data.test_dataloader()
    loaded = load_case(Manifest.read(tiny_cohort).split(split)[0])
    np.testing.assert_array_equal(batch["rapid"][0], loaded.rapid)
    np.testing.assert_array_equal(batch["target"][0], loaded.standard)
    np.testing.assert_array_equal(batch["labels"][0], loaded.labels)
    assert batch["crop"].tolist() == [[0, 0, 128, 64]]
    assert batch["flip"].tolist() == [[False, False]]
    np.testing.assert_allclose(batch["spacing_mm"], [[9.6, 9.6]], rtol=1e-6)
    assert batch["target_exposure"].tolist() == [1.0]
    again = data.loaded(split, 0)
    np.testing.assert_array_equal(again.standard, loaded.standard)
    assert again.standard.dtype == np.float32


def summed(counts):
    return 4 * avg_pool2d(counts, 2)


@pytest.mark.parametrize("pairs", ["measured", "split"])
def test_coarse_rapid_scans_are_exact_sums_of_fine_ones(tiny_cohort: Path, pairs: str) -> None:
    fine, coarse = (epoch(module(tiny_cohort, pairs=pairs, scale=scale)) for scale in (1, 2))
    for one, two in zip(fine, coarse, strict=True):
        assert two["rapid"].shape == (4, 2, 32, 16)
        torch.testing.assert_close(two["rapid"], summed(one["rapid"]))
        for name in set(SHAPES) - {"rapid"}:
            torch.testing.assert_close(two[name], one[name])
    (one,), (two,) = (module(tiny_cohort, "test", scale=scale).test_dataloader() for scale in (1, 2))
    torch.testing.assert_close(two["rapid"], summed(one["rapid"]))
    torch.testing.assert_close(two["target"], one["target"])
    ranges = [module(tiny_cohort, scale=scale).training_ranges() for scale in (1, 2)]
    assert ranges[1]["spacing_mm"] == [19.2, 19.2]
    for name, factor in (("spacing_mm", 2), ("counts_per_pixel", 4), ("exposure", 1)):
        assert ranges[1][name] == pytest.approx([factor * value for value in ranges[0][name]], rel=1e-3)


def test_rows_that_fill_no_coarse_pixel_are_left_out(make_cohort, tmp_path: Path) -> None:
    manifest = make_cohort(tmp_path, splits=("train", "val"), shape=(129, 67))
    (batch,) = module(manifest, scale=2).val_dataloader()
    assert batch["rapid"].shape == (1, 2, 64, 33)
    assert batch["target"].shape == batch["expectation"].shape == batch["labels"].shape == (1, 2, 128, 66)
    torch.testing.assert_close(batch["crop"], torch.tensor([[0, 0, 64, 33]]))
    with pytest.raises(RbsError, match="a scale of 2 and realisations 4"):
        module(manifest, scale=2, realisations=4)


def test_facts_are_the_childs_own_or_as_a_placebo_anothers(make_cohort, tmp_path: Path) -> None:
    manifest = make_cohort(tmp_path, splits=("train", "train", "val"))
    own = {
        p: f
        for b in epoch(module(manifest, facts="own"))
        for p, f in zip(b["patient"], b["facts"], strict=True)
    }
    others = {
        p: f
        for b in epoch(module(manifest, facts="others"))
        for p, f in zip(b["patient"], b["facts"], strict=True)
    }
    first, second = own
    assert own[first].shape == (8,)
    assert torch.equal(others[first], own[second])
    assert torch.equal(others[second], own[first])
    (batch,) = module(manifest, facts="others").val_dataloader()
    assert batch["facts"].shape == (1, 8)
    assert "facts" not in next(iter(module(manifest).val_dataloader()))


def test_scans_of_one_view_without_rapid_or_truth(make_cohort, tmp_path: Path) -> None:
    views = Manifest.read(make_cohort(tmp_path / "both", splits=("train",))).cases[0]
    posterior = (load_case(views).views[1],)
    manifest = make_cohort(
        tmp_path / "one", splits=("train", "train", "val"), rapid=False, truth=False, views=posterior
    )
    data = module(manifest)
    for batch in epoch(data):
        assert not {"labels", "expectation"} & set(batch)
        assert torch.equal(batch["rapid"][:, 0], batch["rapid"][:, 1])
        assert torch.equal(batch["target"][:, 0], batch["target"][:, 1])
    (batch,), (again,) = data.val_dataloader(), module(manifest, "validate").val_dataloader()
    assert batch["rapid"].shape == (1, 1, 128, 64)
    assert batch["exposure"].item() == batch["target_exposure"].item() == 0.5
    np.testing.assert_array_equal((batch["rapid"] + batch["target"])[0], data.loaded("val", 0).standard)
    assert torch.equal(batch["rapid"], again["rapid"])
    for pairs, lacking in (("measured", "a rapid scan"), ("expectation", "a truth file")):
        with pytest.raises(ManifestError, match=f"needs {lacking} of every training patient; P0001, P0002"):
            module(manifest, pairs=pairs)


def test_crops_prefer_the_body(make_cohort, tmp_path: Path) -> None:
    manifest = make_cohort(tmp_path, splits=("train", "val"), shape=(256, 128))
    data = module(manifest, crop=(32, 32), samples_per_epoch=200, batch_size=200, single_view_probability=0)
    (batch,) = epoch(data)
    standard = data.loaded("train", 0).standard
    means = [standard[:, t : t + h, x : x + w].mean() for t, x, h, w in batch["crop"].tolist()]
    uniform = [
        standard[:, t : t + 32, x : x + 32].mean() for t in range(0, 225, 16) for x in range(0, 97, 16)
    ]
    enough = 0.5 * standard.mean()
    air, expected_air = np.mean(np.array(means) < enough), np.mean(np.array(uniform) < enough)
    assert expected_air > 0.2
    assert air < 0.4 * expected_air


def test_faults_name_the_patient_and_the_remedy(tiny_cohort: Path, make_cohort, tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError, match="P0001 has 128 rows, fewer than the crop's 256; use crops of at most 128"
    ):
        module(tiny_cohort, crop=(256, 32))
    manifest = make_cohort(tmp_path, splits=("train",))
    with pytest.raises(ManifestError, match="no patient is in split 'val'"):
        module(manifest)
    write_manifest(manifest, Manifest.read(tiny_cohort).cases, overwrite=True)
    module(manifest)
    for bad in (
        {"crop": (100, 32)},
        {"exposures": (0.5, 0.2)},
        {"exposures": (0.5, 1.0)},
        {"single_view_probability": 2.0},
        {"batch_size": 0},
        {"realisations": 0},
        {"seed": -1},
    ):
        with pytest.raises(RbsError):
            RBSDataModule(tiny_cohort, **bad)


def test_training_ranges_span_what_is_trained_on(tiny_cohort: Path) -> None:
    data = RBSDataModule(tiny_cohort, crop=(64, 48), exposures=(0.25, 0.5), num_workers=0)
    data.setup("fit")
    ranges = data.training_ranges()
    means = [
        pydicom.dcmread(case.standard[0]).pixel_array[view].mean()
        for case in data.cases("train")
        for view in (0, 1)
    ]
    assert ranges["exposure"] == [0.25, 0.5]
    assert ranges["spacing_mm"] == [9.6, 9.6]
    assert ranges["counts_per_pixel"] == pytest.approx([0.25 * min(means), 0.5 * max(means)], rel=1e-3)


def test_a_moved_child_lies_on_its_target_however_a_crop_is_cut_and_flipped(tiny_cohort: Path) -> None:
    u = rigid(7.0, -5.0, 0.8)
    motion = Motion("rigid", (7.0, -5.0), np.deg2rad(0.8), MIDDLE, np.zeros((2, 0, 0)), 0.1, (99.0, 0.0))
    cases = Manifest.read(tiny_cohort).split("train")
    scans = [
        replace(
            load_case(cases[0]),
            rapid=np.rint(1000 * expectation()),
            standard=np.rint(1000 * expectation(u)),
            labels=None,
            expectation=None,
            spacing_mm=SPACING,
            motion=motion,
        )
    ]
    settings = {"realisations": 1, "exposures": (0.5, 0.5), "crop": (96, 64), "single_view_probability": 0.3}
    crops = Crops(cases[:1], scans, pairs="measured", length=24, foci=0, scenes=0, seed=0, **settings)
    flips = set()
    for sample in map(crops.__getitem__, range(24)):
        flips.add(tuple(sample["flip"].tolist()))
        rapid, target = sample["rapid"][None], sample["target"]
        assert (target == target.round()).all()  # raw counts stay raw
        inner = np.s_[:, 6:-6, 6:-6]
        laid = warp(rapid, sample["displacement"][None])[0][inner]
        target = target[inner]
        assert (laid - target).abs().max() < 0.02 * target.max()
        if target.max() > 5000:  # enough of the body to tell
            assert (rapid[0][inner] - target).abs().max() > 0.1 * target.max()
    assert len(flips) == 4
    whole = WholeScans(cases[:1], scans, seed=0)[0]
    laid = warp(whole["rapid"][None], whole["displacement"][None])[0, :, 8:-8, 8:-8]
    target = whole["target"][:, 8:-8, 8:-8]
    assert (laid - target).abs().max() < 0.02 * target.max()


def test_children_who_lay_still_have_no_displacement(tiny_cohort: Path) -> None:
    data = module(tiny_cohort, pairs="measured")
    assert all("displacement" not in batch for batch in (*epoch(data), *data.val_dataloader()))
    assert data.loaded("train", 0).motion is None

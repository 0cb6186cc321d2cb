"""Good and poor scans of different patients, and training pairs made by a degrader."""

import csv

import numpy as np
import pytest
import torch
from trainings import brief_trainer

from rbs.data import unpaired
from rbs.data.bone_scans import RBSDataModule
from rbs.data.loading import load_case
from rbs.data.manifest import Manifest
from rbs.data.stream import PhantomStreamDataModule
from rbs.data.unpaired import UnpairedDataModule
from rbs.degradation.diffusion import DiffusionDegrader
from rbs.degradation.learned import level_of, load_degrader, save_degrader
from rbs.degradation.munit import Munit
from rbs.degradation.noise_filter import WHITE, NoiseFilter
from rbs.errors import ManifestError, RbsError, ScanError
from rbs.restorers.checkpoint import load_restorer
from rbs.restorers.diffusion import Diffusion
from rbs.restorers.nafnet import NAFNet
from rbs.tasks.degradation import LearnDegradation
from rbs.tasks.diffusion import DiffusionTask
from rbs.tasks.restoration import RestorationTask


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(unpaired, "FEWEST", 2)


@pytest.fixture(scope="module")
def sides(make_cohort, tmp_path_factory):
    """Manifests of good and of poor scans; their patients have names of their own."""
    good = make_cohort(tmp_path_factory.mktemp("good"), seed=1)
    poor = make_cohort(tmp_path_factory.mktemp("poor"), seed=2, truth=False, rapid=False)
    return good, renamed(poor, "Q")


def renamed(manifest, letter):
    """Scans under other names and Patient IDs."""
    import pydicom

    for file in manifest.parent.rglob("*.dcm"):
        dataset = pydicom.dcmread(file)
        dataset.PatientID = letter + dataset.PatientID
        dataset.save_as(file)
    rows = list(csv.DictReader(manifest.open()))
    with manifest.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows({**row, "patient": letter + row["patient"]} for row in rows)
    return manifest


def module(sides, **options):
    own = {"crop": (64, 64), "samples_per_epoch": 4, **options}
    return UnpairedDataModule(*sides, **own)


def test_batches_hold_one_view_of_either_side(sides):
    data = module(sides)
    data.setup("fit")
    good, poor = data.sides
    assert data.noise.white
    for image in good.images:
        assert level_of(image, data.spacing_mm) == pytest.approx(1, rel=1e-3)
    batch = next(iter(data.train_dataloader()))
    assert batch["good"].shape == batch["poor"].shape == (2, 1, 64, 64)
    assert set(batch["level"].tolist()) <= {np.float32(level) for level in poor.levels}
    np.testing.assert_array_equal(batch["poor"], batch["poor"].round())


def test_good_scans_are_laid_on_the_pixels_of_the_poor_ones(sides, tmp_path):
    poor = changed(sides[1], tmp_path, lambda counts: counts[:, ::2], spacing_mm=(12.0, 12.0))
    data = module((sides[0], poor), crop=(64, 48))
    data.setup("fit")
    assert data.spacing_mm == (12.0, 12.0)
    assert data.sides[0].images[0].shape == (2, 103, 52)


def changed(manifest, folder, change, spacing_mm=(9.6, 9.6)):
    """Training scans with changed counts under other names; their manifest."""
    from datetime import datetime

    from rbs.scans.dicom.writer import PatientHeader, StudyHeader, write_acquired_nm
    from rbs.scans.scan import Scan

    lines = ["patient,split,standard"]
    for case in Manifest.read(manifest).split("train"):
        scan = load_case(case)
        name = f"R{case.patient}"
        counts = change(scan.standard).astype(np.uint16)
        write_acquired_nm(
            folder / f"{name}.dcm",
            Scan(counts, scan.views, spacing_mm, 40.0, patient_id=name),
            patient=PatientHeader(name),
            study=StudyHeader(name, datetime(2025, 1, 1)),
            uid_seed=name,
        )
        lines.append(f"{name},train,{name}.dcm")
    (folder / "poor.csv").write_text("\n".join(lines))
    return folder / "poor.csv"


def test_rescaled_counts_are_refused(sides, tmp_path):
    poor = changed(sides[1], tmp_path, lambda counts: 4 * counts)
    with pytest.raises(ScanError, match=r"RQP0001.dcm: its finest detail has [34]\.\d times the noise"):
        module((sides[0], poor)).setup("fit")


def test_good_scans_of_coarse_pixels_are_refused(sides, tmp_path):
    poor = changed(sides[1], tmp_path, lambda counts: counts, spacing_mm=(4.8, 4.8))
    with pytest.raises(ScanError, match=r"standard.dcm: pixels of 9.6 x 9.6 mm are too coarse"):
        module((sides[0], poor)).setup("fit")


def test_a_patient_on_both_sides_is_refused(sides):
    with pytest.raises(ManifestError, match="patient P0001 is patient P0001 of the good scans"):
        module((sides[0], sides[0])).setup("fit")


def test_poor_scans_share_no_patient_with_any_split_of_the_good_ones(sides, tmp_path):
    case = next(case for case in Manifest.read(sides[0]).cases if case.split == "test")
    lines = ["patient,split,standard", f"{case.patient},train,{case.standard[0]}"]
    for other in Manifest.read(sides[1]).split("train"):
        lines.append(f"{other.patient},train,{other.standard[0]}")
    (tmp_path / "poor.csv").write_text("\n".join(lines))
    with pytest.raises(ManifestError, match=f"patient {case.patient} is patient {case.patient} of the good"):
        module((sides[0], tmp_path / "poor.csv")).setup("fit")


def test_a_renamed_patient_is_known_by_the_counts(sides, make_cohort, tmp_path):
    copy = make_cohort(tmp_path, seed=1, truth=False)
    renamed(copy, "X")
    import pydicom

    for number, file in enumerate(sorted(copy.parent.rglob("*.dcm"))):
        dataset = pydicom.dcmread(file)
        dataset.StudyInstanceUID = dataset.SOPInstanceUID = f"1.2.3.{number}"
        dataset.save_as(file)
    with pytest.raises(ManifestError, match="patient XP0001 is patient P0001 of the good scans"):
        module((sides[0], copy)).setup("fit")


def test_few_scans_frames_and_good_scans_without_truth_are_refused(sides, tmp_path, monkeypatch):
    frames = tmp_path / "frames.csv"
    frames.write_text("frame,split\na.png,train\n")
    with pytest.raises(ManifestError, match="lists frames"):
        module((frames, sides[1])).setup("fit")
    with pytest.raises(ManifestError, match="has no truth file, and degrading acts on expected counts"):
        module((sides[1], sides[0])).setup("fit")
    wide = module(sides, crop=(128, 128))
    wide.setup("fit")
    assert next(iter(wide.train_dataloader()))["good"].shape == (2, 1, 128, 64)
    monkeypatch.setattr(unpaired, "FEWEST", 10)
    with pytest.raises(ManifestError, match="4 of its scans are in split train, and a degradation"):
        module(sides).setup("fit")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"crop": (60, 64)}, "not made of multiples of 16"),
        ({"batch_size": 0}, "batches of 0"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_arguments_out_of_range_are_refused(sides, options, fault):
    with pytest.raises(RbsError, match=fault):
        module(sides, **options)


@pytest.fixture(scope="module")
def trained(sides, tmp_path_factory):
    """Files of degraders that were trained for two steps."""
    folder, files = tmp_path_factory.mktemp("degraders"), {}
    patch = pytest.MonkeyPatch()
    patch.setattr(unpaired, "FEWEST", 2)
    models = {
        "munit": Munit(channels=8, blocks=1),
        "diffusion": DiffusionDegrader(channels=(8, 16), steps=2, depth=500, tile=(64, 64)),
    }
    for name, model in models.items():
        task = LearnDegradation(model, output=folder / name)
        brief_trainer(folder, 2).fit(task, module(sides))
        files[name] = folder / name / "degrader.safetensors"
    patch.undo()
    return files


@pytest.mark.parametrize("name", ["munit", "diffusion"])
def test_a_trained_degrader_says_what_it_was_made_of(trained, name):
    told = load_degrader(trained[name]).provenance
    assert told["steps"] == 2
    assert told["good"]["scans"] == told["poor"]["scans"] == 4
    assert told["good"]["manifest_sha256"] != told["poor"]["manifest_sha256"]
    assert (told["views"], told["shows"], told["spacing_mm"]) == ([2], "scans", [9.6, 9.6])


def pairs(sides, degrader, **options):
    own = {"crop": (64, 64), "batch_size": 1, "samples_per_epoch": 2, "num_workers": 0, **options}
    return RBSDataModule(sides[0], pairs="expectation", degrader=degrader, **own)


def test_rapid_scans_are_drawn_from_the_degraded_expectation(sides, tmp_path):
    model = Munit(channels=8, blocks=1)
    model.prepare([], [2.0], (9.6, 9.6), WHITE)
    model.common.bias.data = torch.tensor([0.0, 0, 0, 0, 0, 0, 9])  # the widest filter
    save_degrader(tmp_path / "d.safetensors", model, {})
    data = pairs(sides, tmp_path / "d.safetensors", exposures=(0.5, 0.5000001), realisations=1)
    data.setup("fit")
    scan = data._kept["train"][0]
    whole, exposure, _ = data._crops().realisation(0, 0)
    seen, good = scan.expectation_rapid, scan.expectation
    change = seen - good
    found = (change * (whole / exposure - good)).sum() / (change**2).sum()
    assert found == pytest.approx(1, abs=0.1)
    assert seen.sum() == pytest.approx(good.sum(), rel=1e-4)
    sample = pairs_of(data)[0]
    top, left, rows, columns = sample["crop"].tolist()
    kept = data._kept["train"][int(sample["case"])].expectation[:, top : top + rows, left : left + columns]
    assert float(sample["target"].max()) == pytest.approx(kept.max(), rel=1e-5)
    assert float(sample["rapid"].max()) / float(sample["exposure"]) < 0.8 * kept.max()


def pairs_of(data):
    data.single_view_probability = 0.0
    data.realisations = None
    return data._crops()


def test_a_filter_of_the_noise_shows_in_training_crops(sides, tmp_path):
    model = Munit(channels=8, blocks=1)
    model.prepare([], [2.0], (9.6, 9.6), NoiseFilter(0.02, 6.0))
    save_degrader(tmp_path / "d.safetensors", model, {})
    data = pairs(sides, tmp_path / "d.safetensors")
    data.setup("fit")
    crops = data._crops()
    assert crops.noise.cutoff_per_mm == pytest.approx(0.02)
    rapid = crops[0]["rapid"].numpy()
    white = pairs(sides, None)
    white.setup("fit")
    rough = [
        np.abs(np.diff(image[0], axis=1)).mean() for image in (rapid, white._crops()[0]["rapid"].numpy())
    ]
    assert rough[0] < 0.8 * rough[1]


def test_the_diffusion_restorer_trains_on_such_pairs(sides, trained, tmp_path):
    restorer = Diffusion(channels=(8, 16), groups=4, steps=2, tile=64)
    data = pairs(sides, trained["munit"])
    brief_trainer(tmp_path, 2).fit(DiffusionTask(restorer, output=tmp_path), data)
    told = load_restorer(tmp_path / "restorer.safetensors").provenance
    assert told["degrader"] == load_degrader(trained["munit"]).sha256
    assert told["noise_filter"] is None


def test_weights_tell_the_filter_of_the_scans_that_they_were_trained_on(sides, tmp_path):
    model = Munit(channels=8, blocks=1)
    model.prepare([], [2.0], (9.6, 9.6), NoiseFilter(0.02, 6.0))
    save_degrader(tmp_path / "d.safetensors", model, {})
    restorer = NAFNet(width=4, enc_blocks=[1], middle_blocks=1, dec_blocks=[1])
    task = RestorationTask(restorer, output=tmp_path)
    brief_trainer(tmp_path, 1).fit(task, pairs(sides, tmp_path / "d.safetensors"))
    told = load_restorer(tmp_path / "restorer.safetensors").provenance
    assert told["noise_filter"] == {"cutoff_per_mm": 0.02, "order": 6.0}


def test_what_would_not_be_degraded_is_refused(sides, trained):
    for options in ({"foci": 1.0}, {"scenes": 0.5}, {"textures": 0.5}):
        with pytest.raises(RbsError, match="a degrader, pairs expectation"):
            pairs(sides, trained["munit"], **options)
    with pytest.raises(RbsError, match="a degrader and scale 2 do not go together"):
        pairs(sides, trained["munit"], scale=2)
    with pytest.raises(RbsError, match="a degrader, pairs split"):
        RBSDataModule(sides[0], degrader=trained["munit"])
    with pytest.raises(RbsError, match="children of a stream are not degraded"):
        PhantomStreamDataModule(sides[0], pairs="expectation", degrader=trained["munit"])

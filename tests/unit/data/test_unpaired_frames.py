"""Clean and poor frames of different patients, and training pairs made by a degrader of frames."""

import numpy as np
import pytest
import torch
from trainings import brief_trainer

from rbs.data import unpaired
from rbs.data.bone_scans import RBSDataModule
from rbs.data.endoscopy import EndoscopyDataModule
from rbs.data.frames_manifest import FrameRow, write_frames_manifest
from rbs.data.mucosa import write_mucosa
from rbs.data.unpaired_frames import UnpairedFramesDataModule
from rbs.degradation.diffusion_frames import FrameDiffusion
from rbs.degradation.frames import load_frame_degrader
from rbs.degradation.learned import save_degrader
from rbs.degradation.munit import Munit
from rbs.degradation.munit_frames import FrameMunit
from rbs.degradation.noise_filter import WHITE
from rbs.endoscopy.files import read_frame, write_frame
from rbs.errors import CheckpointError, ManifestError, RbsError
from rbs.restorers.checkpoint import load_restorer
from rbs.restorers.nafnet import NAFNet
from rbs.tasks.degradation import LearnDegradation
from rbs.tasks.restoration import RestorationTask


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(unpaired, "FEWEST", 2)


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Manifests of clean and of dark frames of other walls."""
    folder = tmp_path_factory.mktemp("sides")
    clean = write_mucosa(folder / "good", 5, 1, 80, seed=1, progress=False)
    drawn = write_mucosa(folder / "drawn", 5, 1, 80, seed=2, progress=False)
    rows = []
    for number, file in enumerate(sorted((drawn.parent / "images").glob("*.png"))):
        picture = folder / "poor" / f"{number}.png"
        picture.parent.mkdir(exist_ok=True)
        write_frame(picture, 0.5 * read_frame(file))
        rows.append(FrameRow(picture, "train", group=f"dark {number}"))
    write_frames_manifest(folder / "poor.csv", rows)
    return clean, folder / "poor.csv"


def module(sides, **options):
    return UnpairedFramesDataModule(*sides, **{"crop": (48, 48), "samples_per_epoch": 8, **options})


def test_batches_hold_crops_of_either_side_and_where_they_are(sides):
    data = module(sides, longest_side=None)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["good"].shape == batch["poor"].shape == (4, 3, 48, 48)
    assert 0 <= batch["poor"].min() <= batch["poor"].max() <= 0.51
    assert batch["good"].max() > 0.51
    frames = [frame.clean / np.float32(255) for frame in data.sides[0]]
    for crop, place in zip(batch["good"].numpy(), batch["place"].tolist(), strict=True):
        top, left, bottom, right = (round(80 * share) for share in place)
        assert (bottom - top, right - left) == (48, 48)
        cuts = [frame[:, top:bottom, left:right] for frame in frames]
        mirrored = [frame[:, top:bottom, 80 - right : 80 - left][..., ::-1] for frame in frames]
        assert any(np.allclose(crop, cut, atol=1e-6) for cut in (*cuts, *mirrored))


def test_few_frames_and_scans_are_refused(sides, tmp_path, monkeypatch):
    scans = tmp_path / "scans.csv"
    scans.write_text("patient,split,standard\nA,train,a.dcm\n")
    with pytest.raises(ManifestError, match="it lists no frames"):
        module((scans, sides[1])).setup("fit")
    monkeypatch.setattr(unpaired, "FEWEST", 10)
    with pytest.raises(ManifestError, match="of its frames are in split train, and a degradation"):
        module(sides).setup("fit")


def test_a_frame_or_a_group_on_both_sides_is_refused(sides, tmp_path):

    with pytest.raises(ManifestError, match=r"group V\d+ is that of .* of the good frames"):
        module((sides[0], sides[0])).setup("fit")
    # Another name, size and brightness, and of a clean frame that is held out.
    held = next(line for line in sides[0].read_text().splitlines() if ",test," in line).split(",")[0]
    picture = read_frame(sides[0].parent / held)
    write_frame(tmp_path / "copy.png", 0.4 * picture[:, ::1, ::1] + 0.05)
    rows = [FrameRow(tmp_path / "copy.png", "train", group="copy.png")]
    rows += [FrameRow(sides[1].parent / "poor" / f"{n}.png", "train", group=f"dark {n}") for n in range(3)]
    write_frames_manifest(tmp_path / "poor.csv", rows)
    with pytest.raises(ManifestError, match=f"copy.png shows what .*{held} of the good frames shows"):
        module((sides[0], tmp_path / "poor.csv")).setup("fit")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"crop": (60, 64)}, "not made of multiples of 16"),
        ({"longest_side": 32}, "frames of 32 pixels do not hold crops"),
        ({"batch_size": 0}, "batches of 0"),
    ],
)
def test_arguments_out_of_range_are_refused(sides, options, fault):
    with pytest.raises(RbsError, match=fault):
        module(sides, **options)


def test_frames_smaller_than_crops_are_refused(sides):
    with pytest.raises(ManifestError, match="the frame has 80 x 80 pixels, fewer than the crop's"):
        module(sides, crop=(96, 96)).setup("fit")


@pytest.fixture(scope="module")
def trained(sides, tmp_path_factory):
    """Files of degraders that were trained for two steps."""
    folder, files = tmp_path_factory.mktemp("degraders"), {}
    patch = pytest.MonkeyPatch()
    patch.setattr(unpaired, "FEWEST", 2)
    small = FrameDiffusion(channels=(8, 16), steps=2, depth=500, tile=(48, 48))
    for name, model in {"munit": FrameMunit(channels=8), "diffusion": small}.items():
        brief_trainer(folder, 2).fit(LearnDegradation(model, output=folder / name), module(sides))
        files[name] = folder / name / "degrader.safetensors"
    patch.undo()
    return files


@pytest.mark.parametrize("name", ["munit", "diffusion"])
def test_a_trained_degrader_says_what_it_was_made_of(trained, name):
    found = load_frame_degrader(trained[name])
    told = found.provenance
    assert (told["steps"], told["shows"], found.longest_side) == (2, "frames", 320)
    assert told["good"]["frames"] >= 3
    assert told["poor"]["frames"] == 5
    assert told["good"]["manifest_sha256"] != told["poor"]["manifest_sha256"]


def pairs(sides, degrader, **options):
    own = {"crop": (48, 48), "batch_size": 2, "samples_per_epoch": 4, "num_workers": 0, **options}
    return EndoscopyDataModule(sides[0], degrader=degrader, **own)


@pytest.mark.parametrize("name", ["munit", "diffusion"])
def test_restorers_train_on_pairs_of_a_degrader(sides, trained, name, tmp_path):
    restorer = NAFNet(width=4, enc_blocks=[1], middle_blocks=1, dec_blocks=[1], domain="colours")
    brief_trainer(tmp_path, 1).fit(RestorationTask(restorer, output=tmp_path), pairs(sides, trained[name]))
    told = load_restorer(tmp_path / "restorer.safetensors").provenance
    assert told["degrader"] == load_frame_degrader(trained[name]).sha256
    assert told["preset"] is None


def test_frames_are_degraded_whole_and_once(sides, trained):
    data = pairs(sides, trained["munit"])
    data.setup("fit")
    crops = data._crops()
    frame = data._kept["train"][0]
    degrade = load_frame_degrader(trained["munit"]).within(frame.valid[0])
    wanted = degrade(frame.clean / np.float32(255), np.random.default_rng((0, 3, 0, 1)))
    np.testing.assert_allclose(crops.realisation(0, 1)[0], wanted, atol=1e-6)
    assert len(data._realised) == 2 * len(data._kept["train"])
    batch = next(iter(data.train_dataloader()))
    case, (top, left, height, width) = int(batch["case"][0]), batch["crop"][0].tolist()
    dims = [d for d, flipped in zip((-1, -2), batch["flip"][0].tolist(), strict=True) if flipped]
    shown = batch["rapid"][0].flip(dims).numpy()
    lows = [crops.realisation(case, n)[0][:, top : top + height, left : left + width] for n in range(2)]
    assert any(np.array_equal(shown, low) for low in lows)
    assert not torch.equal(batch["rapid"], batch["target"])
    one, again = (next(iter(data.val_dataloader()))["rapid"] for _ in range(2))
    assert torch.equal(one, again)


def test_degraders_of_scans_and_of_other_sizes_are_refused(sides, trained, tmp_path, make_cohort):
    with pytest.raises(CheckpointError, match="trained on frames of 320 pixels, and these are of any size"):
        pairs(sides, trained["munit"], longest_side=None).setup("fit")
    scans = Munit(channels=8)
    scans.prepare([], [2.0], (9.6, 9.6), WHITE)
    save_degrader(tmp_path / "scans.safetensors", scans, {})
    with pytest.raises(CheckpointError, match="it degrades scans, not frames"):
        pairs(sides, tmp_path / "scans.safetensors").setup("fit")
    data = RBSDataModule(
        make_cohort(tmp_path / "cohort", seed=1), pairs="expectation", degrader=trained["munit"]
    )
    with pytest.raises(CheckpointError, match="it degrades frames, not scans"):
        data.setup("fit")


def test_acquired_pictures_are_not_degraded(sides, trained, tmp_path):
    rows = []
    for number, split in enumerate(("train", "train", "val")):
        low = tmp_path / f"{number}_low.png"
        clean = sorted((sides[0].parent / "images").glob("*.png"))[number]
        write_frame(low, 0.5 * read_frame(clean))
        rows.append(FrameRow(clean, split, low, group=f"video {number}"))
    write_frames_manifest(tmp_path / "pairs.csv", rows)
    with pytest.raises(ManifestError, match="pictures of low quality are not degraded"):
        pairs((tmp_path / "pairs.csv",), trained["munit"]).setup("fit")

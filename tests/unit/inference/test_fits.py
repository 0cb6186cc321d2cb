"""Fits kept for a camera: found again by scans of its kind, refused where they are another's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom import Dataset

from rbs.errors import CheckpointError, OutputError
from rbs.inference import test_time_adaptation as adapt
from rbs.inference.fits import KeptFit, camera_of
from rbs.inference.load import load_for_scans
from rbs.inference.test_time_adaptation import AdaptingRestorer
from rbs.restorers.checkpoint import LoadedRestorer
from rbs.restorers.dncnn import DnCNN
from rbs.scans.scan import Provenance, Scan, View
from rbs.weights.shipped import file_sha256


def loaded(width: int = 8, sha256: str = "0" * 64) -> LoadedRestorer:
    torch.manual_seed(0)
    return LoadedRestorer(DnCNN(depth=3, width=width), "DnCNN restorer.safetensors", "1", sha256)


def a_scan(spacing_mm: tuple[float, float] = (2.4, 2.4), **header: str) -> Scan:
    dataset = Dataset()
    for name, value in {"Manufacturer": "Maker", "ManufacturerModelName": "Two heads", **header}.items():
        setattr(dataset, name, value)
    provenance = Provenance(header=dataset)
    return Scan(np.ones((1, 8, 8)), (View.ANTERIOR,), spacing_mm, 40.0, provenance=provenance)


def test_scans_of_one_camera_share_their_words() -> None:
    known = camera_of(a_scan())
    assert known == "Maker, Two heads, unknown, unknown, 2.400 mm, 2.400 mm"
    assert camera_of(a_scan(PatientID="another", AcquisitionDate="20260101")) == known
    detector = Dataset()
    detector.CollimatorGridName = "LEHR"
    others = [
        a_scan((1.2, 1.2)),
        a_scan(ManufacturerModelName="One head"),
        a_scan(DeviceSerialNumber="17"),
        a_scan(StationName="NM2"),
        a_scan(DetectorInformationSequence=[detector]),
    ]
    assert len({known, *map(camera_of, others)}) == 1 + len(others)
    assert camera_of(replace(a_scan(), provenance=Provenance())) is None


def test_the_first_fit_of_a_camera_serves_its_other_scans(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(adapt, "CROP", 32)
    monkeypatch.setattr(adapt, "STEPS", 4)
    monkeypatch.setattr(adapt, "JUDGED", 4)
    monkeypatch.setattr(adapt, "LEARNING_RATE", 1e-2)
    y, x = np.mgrid[:64, :48]
    truth = np.stack([30 + 25 * np.sign(np.sin(y / 1.2)), 30 + 25 * np.sign(np.sin(x / 1.2))])
    first, second = (np.random.default_rng(seed).poisson(truth / 2).astype(np.float32) for seed in (1, 2))
    own = AdaptingRestorer.of(loaded(), tmp_path / "fits")
    one, two = own.fitted(first, 0.5, "camera"), own.fitted(second, 0.5, "camera")
    (file,) = (tmp_path / "fits").iterdir()
    assert one.fit.steps
    sha256 = file_sha256(file)
    assert (two.fit.steps, two.fit.sha256, one.fit.sha256) == (0, sha256, sha256)
    assert one.fit.brief == two.fit.brief == f"fit {sha256[:12]}"
    assert f"fitted to its camera before, fit {sha256[:12]}, log-likelihood of held-out" in two.name
    for name, tensor in one.restorer.state_dict().items():
        assert torch.equal(tensor, two.restorer.state_dict()[name])
    written = file.read_bytes()
    assert own.fitted(second, 0.5, "another camera").fit.steps
    assert len(list(file.parent.iterdir())) == 2
    assert KeptFit(file.parent, "camera", loaded(sha256="1" * 64)).read() is None
    blank = np.random.default_rng(8).poisson(15.0, first.shape).astype(np.float32)
    other = own.fitted(blank, 0.5, "camera")  # which the camera's fit does not suit
    assert other.fit.steps or not other.fit.gain
    assert other.fit.sha256 == ""
    assert file.read_bytes() == written
    file.unlink()
    assert own.fitted(second, 0.5, "camera").fit.sha256 == file_sha256(file) != sha256


def test_a_folder_that_cannot_take_fits_is_refused_before_any(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="fits cannot be kept in it") as refusal:
            load_for_scans(tmp_path / "none.safetensors", adapt=True, fits=folder)
        assert "leave --fits out" in str(refusal.value)


def test_fits_of_other_weights_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    place = KeptFit(tmp_path, "camera", loaded())
    assert place.read() is None
    place.write(place.loaded.restorer)
    assert place.read().restorer.spec() == place.loaded.restorer.spec()
    for other in (replace(place, camera="another"), replace(place, loaded=loaded(sha256="1" * 64))):
        place.file.rename(other.file)
        with pytest.raises(CheckpointError, match="no fit of these weights to this camera"):
            other.read()
        other.file.rename(place.file)
    with pytest.raises(CheckpointError, match="no fit of these weights"):
        replace(place, loaded=loaded(width=4)).read()
    content = bytearray(place.file.read_bytes())
    content[-1] ^= 1
    place.file.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        place.read()

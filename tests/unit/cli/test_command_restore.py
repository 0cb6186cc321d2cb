"""`rbs restore`: files and folders, and everything it must refuse."""

import builtins
import errno
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from nm_files import expectation, poisson, write_nm
from scipy.ndimage import gaussian_filter

BOTH = ("anterior", "posterior")


def real_world(path: Path) -> np.ndarray:
    ds = pydicom.dcmread(path)
    return ds.pixel_array * float(ds.RealWorldValueMappingSequence[0].RealWorldValueSlope)


def test_a_file_is_restored_to_standard_counts(rbs, tmp_path: Path, weights: Path) -> None:
    counts = poisson(2)
    scan = write_nm(tmp_path / "in.dcm", counts, views=BOTH)
    out = tmp_path / "out.dcm"
    status, text, errors = rbs("restore", scan, out, "--checkpoint", weights, "--strength", "strong")
    assert (status, errors) == (0, "")
    filtered = gaussian_filter(2.0 * counts, (0, 1.5, 1.5), mode="nearest")
    np.testing.assert_allclose(real_world(out), filtered, rtol=1e-3, atol=0.006)
    assert f"in.dcm (anterior, posterior from ViewCodeSequence): {counts.sum():,} counts in" in text
    assert "at 20 cm/min (bias" in text
    written = pydicom.dcmread(out)
    assert written.ImageType[0] == "DERIVED"
    assert float(written.ScanVelocity) == pytest.approx(40 / 6, rel=1e-4)
    assert int(written.CountsAccumulated) == counts.sum()
    assert "NAFNet restorer.safetensors" in written.DerivationDescription


def test_another_standard_velocity_is_recorded(rbs, tmp_path: Path, weights: Path) -> None:
    counts = poisson()
    scan, out = write_nm(tmp_path / "in.dcm", counts), tmp_path / "out.dcm"
    assert rbs("restore", scan, out, "--checkpoint", weights, "--standard-velocity", 10)[0] == 0
    assert real_world(out).sum() == pytest.approx(4 * counts.sum(), rel=0.02)
    assert "10 cm/min" in pydicom.dcmread(out).DerivationDescription


@pytest.fixture
def head(weights: Path) -> Iterator[Path]:
    """An untrained head beside the weights: 0.05 root-counts everywhere."""
    from rbs.restorers.checkpoint import load_restorer
    from rbs.restorers.uncertainty import UncertaintyHead, head_file, save_uncertainty

    path = head_file(weights)
    save_uncertainty(path, UncertaintyHead(4, 4), load_restorer(weights).sha256, {})
    yield path
    path.unlink()


def test_the_strength_is_a_dial_that_the_header_names(
    rbs, tmp_path: Path, weights: Path, head: Path, capsys
) -> None:
    scan = write_nm(tmp_path / "in.dcm", poisson())
    images, deviations = {}, {}
    options = ("--checkpoint", weights, "--uncertainty", "--json")
    for strength in ("strong", "standard", "gentle", None):
        named = () if strength is None else ("--strength", strength)
        status, text, _ = rbs("restore", scan, out := tmp_path / f"{strength}.dcm", *options, *named)
        assert status == 0
        said = strength or "standard"
        assert json.loads(text)["files"][0]["strength"] == said
        for path in (out, tmp_path / f"{strength}_sd.dcm"):
            description = pydicom.dcmread(path).DerivationDescription
            assert f"NAFNet restorer.safetensors, strength {said}" in description
        images[strength], deviations[strength] = real_world(out), real_world(tmp_path / f"{strength}_sd.dcm")
    assert images["gentle"].sum() == pytest.approx(images["strong"].sum(), rel=1e-3)
    for values in (images, deviations):
        np.testing.assert_array_equal(values[None], values["standard"])
    assert images["strong"].std() < images["standard"].std() < images["gentle"].std()
    assert deviations["strong"].mean() < deviations["standard"].mean() < deviations["gentle"].mean()
    with pytest.raises(SystemExit):
        rbs("restore", scan, tmp_path / "x.dcm", "--strength", "soft")
    assert "invalid choice: 'soft'" in capsys.readouterr().err


def test_weights_may_be_adapted_to_the_scan(rbs, tmp_path: Path, weights: Path, monkeypatch) -> None:
    from rbs.inference import test_time_adaptation as adaptation

    def fit(restorer, rapid, exposure, kept=None):
        return adaptation.Fit(kept or restorer, 12.34, 0 if kept else 8)

    monkeypatch.setattr(adaptation, "fit_to_scan", fit)
    scan, fits = write_nm(tmp_path / "in.dcm", poisson()), tmp_path / "fits"
    said, short = {}, {}
    options = {"plain": [], "first": ["--adapt", "--fits", fits]}
    for name, chosen in (options | {"second": options["first"]}).items():
        out = tmp_path / f"{name}.dcm"
        status, text, errors = rbs("restore", scan, out, "--checkpoint", weights, "--json", *chosen)
        assert (status, errors) == (0, "")
        said[name] = json.loads(text)["files"][0]["fit"]
        assert (said[name] or "") in pydicom.dcmread(out).DerivationDescription
        (maker,) = pydicom.dcmread(out).ContributingEquipmentSequence
        short[name] = maker.ManufacturerModelName
    (file,) = fits.iterdir()
    known = f"fit {hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
    judged = f"{known}, log-likelihood of held-out counts +12.3"
    kept = f"NAFNet, strength standard, {known}"
    assert short == {"plain": "NAFNet, strength standard", "first": kept, "second": kept}
    assert said == {
        "plain": None,
        "first": f"fitted to the scan in 8 steps, {judged}",
        "second": f"fitted to its camera before, {judged}",
    }
    assert "fitted" not in pydicom.dcmread(tmp_path / "plain.dcm").DerivationDescription
    status, _, errors = rbs("restore", scan, tmp_path / "x.dcm", "--fits", fits)
    assert status == 1
    assert "--fits keeps what --adapt finds; add --adapt, or leave --fits out" in errors


def test_the_standard_deviation_is_written_beside_the_restored_file(
    rbs, tmp_path: Path, weights: Path, head: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write_nm(folder / "both.dcm", poisson(2), views=BOTH)
    for view in BOTH:  # restored together, written apart
        write_nm(folder / f"1.2.{len(view)}", poisson(), views=(view,), study="1.2.3")
    options = ("--checkpoint", weights, "--uncertainty", "--strength", "strong")
    status, text, errors = rbs("restore", folder, out, *options)
    assert (status, errors) == (0, "")
    names = {"both.dcm", "1.2.8", "1.2.9"}
    assert {path.name for path in out.iterdir()} == names | {"both_sd.dcm", "1.2.8_sd", "1.2.9_sd"}
    assert f"-> {out / 'both.dcm'} and both_sd.dcm" in text
    for name, sd in (("both.dcm", "both_sd.dcm"), ("1.2.8", "1.2.8_sd")):
        counts, stated = real_world(out / name), real_world(out / sd)
        s = 0.05 + 1e-4
        np.testing.assert_allclose(stated, np.sqrt(4 * counts * s**2 + 2 * s**4), atol=2e-3)
        restored, ds = pydicom.dcmread(out / name), pydicom.dcmread(out / sd)
        assert ds.StudyInstanceUID == restored.StudyInstanceUID
        assert ds.SeriesInstanceUID != restored.SeriesInstanceUID
        assert (
            "UncertaintyHead restorer_uncertainty.safetensors of NAFNet restorer.safetensors"
            in ds.DerivationDescription
        )
    # Neither is taken for a scan: not restored again, and refused where it is asked about.
    assert rbs("restore", out, tmp_path / "again", "--checkpoint", weights)[0] == 1
    shutil.copy(folder / "both.dcm", out / "new.dcm")
    status, text, errors = rbs("restore", out, tmp_path / "again", "--checkpoint", weights, "--uncertainty")
    assert (status, errors.count("was restored by rbs already")) == (0, 6)
    assert {path.name for path in (tmp_path / "again").iterdir()} == {"new.dcm", "new_sd.dcm"}
    status, text, errors = rbs("inspect", out)
    assert errors.count("it is a derived image, not an acquired one") == 6
    assert "new.dcm" in text


def test_without_the_option_nothing_is_stated(rbs, tmp_path: Path, weights: Path, head: Path) -> None:
    scan = write_nm(tmp_path / "in.dcm", poisson())
    assert rbs("restore", scan, tmp_path / "a.dcm", "--checkpoint", weights)[0] == 0
    assert rbs("restore", scan, tmp_path / "b.dcm", "--checkpoint", weights, "--uncertainty")[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"in.dcm", "a.dcm", "b.dcm", "b_sd.dcm"}
    np.testing.assert_array_equal(real_world(tmp_path / "a.dcm"), real_world(tmp_path / "b.dcm"))


def test_both_files_are_written_or_neither(
    rbs, tmp_path: Path, weights: Path, head: Path, monkeypatch
) -> None:
    scan = write_nm(tmp_path / "in.dcm", poisson())
    (tmp_path / "out_sd.dcm").write_text("precious")
    status, _, error = rbs("restore", scan, tmp_path / "out.dcm", "--checkpoint", weights, "--uncertainty")
    assert (status, error.count("\n")) == (1, 1)
    assert "out_sd.dcm: the output exists already" in error
    assert (tmp_path / "out_sd.dcm").read_text() == "precious"
    assert not (tmp_path / "out.dcm").exists()
    whole = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if "_sd" in self.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert rbs("restore", scan, tmp_path / "new.dcm", "--checkpoint", weights, "--uncertainty")[0] == 1
    assert not list(tmp_path.glob("new*"))
    write_nm(tmp_path / "folder" / "a.dcm", poisson())
    write_nm(tmp_path / "folder" / "a_sd.dcm", poisson())
    arguments = ("restore", tmp_path / "folder", tmp_path / "to", "--checkpoint", weights, "--uncertainty")
    status, _, error = rbs(*arguments)
    assert status == 1
    assert "would be called a_sd.dcm, as that of a.dcm; rename one of the two" in error


def test_an_uncertainty_that_cannot_be_stated_is_refused(rbs, tmp_path: Path, weights: Path) -> None:
    from rbs.restorers.uncertainty import UncertaintyHead, head_file, save_uncertainty

    scan, out = write_nm(tmp_path / "in.dcm", poisson()), tmp_path / "out.dcm"
    own = tmp_path / "restorer.safetensors"
    shutil.copy(weights, own)
    arguments = ("restore", scan, out, "--checkpoint", own, "--uncertainty")
    status, _, error = rbs(*arguments)
    assert status == 1
    assert error.startswith(f"rbs: {head_file(own)}: there is no such weight file; train one")
    save_uncertainty(head_file(own), UncertaintyHead(4, 4), "0" * 64, {})
    status, _, error = rbs(*arguments)
    assert status == 1
    assert (
        f"{head_file(own)}: it was trained on other weights than NAFNet restorer.safetensors; train" in error
    )
    status, _, error = rbs(*arguments, "--adapt")
    assert status == 1
    assert "which --adapt changes; leave one of the two out." in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("name", ["new/", "new", "new/below", "a.b/"])
def test_a_folder_to_write_to_may_be_new(rbs, tmp_path: Path, weights: Path, name: str) -> None:
    scan = write_nm(tmp_path / "in.dcm", poisson())
    assert rbs("restore", scan, f"{tmp_path}/{name}", "--checkpoint", weights)[0] == 0
    assert (tmp_path / name / "in.dcm").is_file()


def test_a_file_without_a_suffix_is_no_folder(rbs, tmp_path: Path, weights: Path) -> None:
    scan = write_nm(tmp_path / "in.dcm", poisson())
    (tmp_path / "taken").write_text("precious")
    status, _, error = rbs("restore", scan, tmp_path / "taken", "--checkpoint", weights)
    assert status == 1
    assert "taken: the output exists already" in error


def test_a_folder_can_be_run_again(rbs, tmp_path: Path, weights: Path) -> None:
    folder, out, log = tmp_path / "in", tmp_path / "out", tmp_path / "log.txt"
    write_nm(folder / "a.dcm", poisson())
    write_nm(folder / "deep" / "slow.dcm", poisson(), velocity=20)
    arguments = ("restore", folder, out, "--checkpoint", weights, "--skip-existing", "--log-file", log)
    assert rbs(*arguments)[0] == 1
    before = (out / "a.dcm").read_bytes()
    write_nm(folder / "b.dcm", poisson(seed=1))
    (folder / "deep" / "slow.dcm").unlink()
    status, text, errors = rbs(*arguments)
    assert status == 0
    assert text.count(" counts in, ") == 1
    assert errors == "skipped: 1 of 2 files, whose output exists\n"
    assert (out / "a.dcm").read_bytes() == before
    assert rbs(*arguments)[0] == 0  # with nothing left to do
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", time) for time, _ in lines)
    skipped = "skipped: has its output already"
    assert [words.split(" 20.0 cm/min")[0] for _, words in lines] == [
        "a.dcm restored",
        "deep/slow.dcm refused: there is nothing to restore:",
        f"a.dcm {skipped}",
        "b.dcm restored",
        f"a.dcm {skipped}",
        f"b.dcm {skipped}",
    ]
    assert "Secret" not in log.read_text()
    assert str(tmp_path) not in log.read_text()


def test_a_log_file_that_cannot_be_written_is_named(rbs, tmp_path: Path, weights: Path) -> None:
    scan = write_nm(tmp_path / "in.dcm", poisson())
    arguments = ("restore", scan, tmp_path / "out.dcm", "--checkpoint", weights, "--log-file", tmp_path)
    status, _, error = rbs(*arguments)
    assert status == 1
    assert error.startswith(f"rbs: {tmp_path}: it cannot be written")
    assert not (tmp_path / "out.dcm").exists()


def test_outcomes_as_one_json_document(rbs, tmp_path: Path, weights: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    counts = poisson(2)
    write_nm(folder / "a.dcm", counts, views=BOTH)
    write_nm(folder / "b.dcm", poisson(), velocity=20)
    status, text, errors = rbs("restore", folder, out, "--checkpoint", weights, "--json")
    assert status == 1
    assert "refused: " in errors
    document = json.loads(text)
    assert {name: document[name] for name in ("restored", "refused", "skipped")} == {
        "restored": 1,
        "refused": 1,
        "skipped": 0,
    }
    files = {Path(file["source"]).name: file for file in document["files"]}
    assert files["a.dcm"]["counts"] == counts.sum()
    assert files["a.dcm"]["views"] == list(BOTH)
    assert files["a.dcm"]["output"] == str(out / "a.dcm")
    assert files["b.dcm"]["outcome"] == "refused"
    assert "there is nothing to restore" in files["b.dcm"]["error"]
    assert "Secret" not in text


def test_the_shipped_weights_have_a_name(rbs, tmp_path: Path) -> None:
    scan = write_nm(tmp_path / "in.dcm", poisson())
    for name, options in (("a", ()), ("b", ("--checkpoint", "shipped")), ("c", ("--device", "cpu"))):
        assert rbs("restore", scan, tmp_path / f"{name}.dcm", *options)[0] == 0
    for name in ("b", "c"):
        np.testing.assert_array_equal(real_world(tmp_path / f"{name}.dcm"), real_world(tmp_path / "a.dcm"))


def test_a_device_that_is_not_there_is_named(rbs, tmp_path: Path, weights: Path, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    scan = write_nm(tmp_path / "in.dcm", poisson())
    for options, fault in (
        (("--checkpoint", weights), "PyTorch finds no CUDA device; use --device cpu."),
        ((), "ONNX Runtime has no CUDA provider here; pip install onnxruntime-gpu, or use --device cpu."),
    ):
        status, _, error = rbs("restore", scan, tmp_path / "out.dcm", "--device", "cuda", *options)
        assert (status, error) == (1, f"rbs: {fault}\n")
    assert rbs("restore", scan, tmp_path / "out.dcm", "--device", "auto", "--checkpoint", weights)[0] == 0


def test_the_range_of_the_weights_is_told(rbs, tmp_path: Path, weights: Path) -> None:
    scan = write_nm(tmp_path / "in.dcm", poisson(), PixelSpacing=[4.8, 4.8])
    status, text, _ = rbs("restore", scan, tmp_path / "out.dcm", "--checkpoint", weights)
    assert status == 0
    assert "warning: pixels of 4.80 mm is outside what the weights were trained on" in text


def test_a_folder_goes_on_after_a_refusal(rbs, tmp_path: Path, weights: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write_nm(folder / "a.dcm", poisson())
    write_nm(folder / "deep" / "b", poisson(2), views=BOTH)
    write_nm(folder / "slow.dcm", poisson(), velocity=20)
    (folder / "broken.dcm").write_bytes((folder / "a.dcm").read_bytes()[:-700])
    (folder / "notes.txt").write_text("not a scan")
    status, text, errors = rbs("restore", folder, out, "--checkpoint", weights)
    assert status == 1
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()) == ["a.dcm", "deep/b"]
    assert text.count(" counts in, ") == 2
    refused = [line for line in errors.splitlines() if line.startswith("refused: ")]
    assert len(refused) == 2
    assert any("slow.dcm: there is nothing to restore" in line for line in refused)
    assert any("broken.dcm: " in line for line in refused)
    assert "2 of 4 files were refused" in errors
    assert "notes.txt" not in text + errors


def test_restored_scans_in_the_folder_are_left_alone(rbs, tmp_path: Path, weights: Path) -> None:
    write_nm(tmp_path / "a.dcm", poisson())
    assert rbs("restore", tmp_path, tmp_path / "out", "--checkpoint", weights)[0] == 0
    status, text, errors = rbs("restore", tmp_path, tmp_path / "again", "--checkpoint", weights)
    assert status == 0
    assert f"skipped: {tmp_path / 'out' / 'a.dcm'}" in errors
    assert text.count(" counts in, ") == 1
    status, _, errors = rbs(
        "restore", tmp_path / "out" / "a.dcm", tmp_path / "b.dcm", "--checkpoint", weights
    )
    assert status == 1
    assert "derived image" in errors


def test_two_files_of_one_study_are_restored_together(rbs, tmp_path: Path, weights: Path) -> None:
    counts = poisson(2)
    for view, frame in zip(BOTH, counts, strict=True):
        write_nm(tmp_path / "in" / f"{view}.dcm", frame[None], views=(view,), study="1.2.3")
    own = "--checkpoint", weights, "--strength", "strong"
    status, text, _ = rbs("restore", tmp_path / "in", tmp_path / "out", *own)
    assert status == 0
    assert ", with posterior.dcm)" in text
    for view, frame in zip(BOTH, counts, strict=True):
        filtered = gaussian_filter(2.0 * frame, 1.5, mode="nearest")
        np.testing.assert_allclose(
            real_world(tmp_path / "out" / f"{view}.dcm"), filtered, rtol=1e-3, atol=0.006
        )


def truncated(path: Path) -> None:
    write_nm(path, poisson())
    path.write_bytes(path.read_bytes()[:-1000])


def picture(path: Path) -> None:
    write_nm(path, poisson(), SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)


CT = "1.2.840.10008.5.1.4.1.1.2"
BAD = {
    "truncated": (truncated, "truncated|pixel"),
    "lossy": (lambda path: write_nm(path, poisson(), LossyImageCompression="01"), "lossily"),
    "colour": (picture, "colour|RGB"),
    "ct": (lambda path: write_nm(path, poisson(), SOPClassUID=CT, Modality="CT"), "CT"),
    "empty": (lambda path: path.write_bytes(b""), "empty|DICOM"),
    "text": (lambda path: path.write_text("Dear colleague,\n" * 50), "DICOM"),
    "missing": (lambda path: None, "no such file"),
    "folder without DICOM": (lambda path: path.mkdir(), "scan .DICOM., picture or video"),
    "unknown velocity": (lambda path: write_nm(path, poisson(), velocity=None), "velocity"),
    "unknown view": (lambda path: write_nm(path, poisson(), views=("",)), "view"),
    "standard scan": (lambda path: write_nm(path, poisson(), velocity=20), "nothing to restore"),
    "doubled": (lambda path: write_nm(path, 2 * poisson()), "noise variance"),
    "nearly empty": (lambda path: write_nm(path, poisson(level=2.0)), "too few counts"),
    "derived": (
        lambda path: write_nm(path, poisson(), ImageType=["DERIVED", "SECONDARY", "WHOLE BODY", "EMISSION"]),
        "derived image",
    ),
    "two energy windows": (
        lambda path: write_nm(path, poisson(2), EnergyWindowVector=[1, 2], NumberOfEnergyWindows=2),
        "2 energy windows",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_sentence(rbs, tmp_path: Path, weights: Path, name: str) -> None:
    make, fault = BAD[name]
    scan = tmp_path / "scan.dcm"
    make(scan)
    status, text, error = rbs("restore", scan, tmp_path / "out.dcm", "--checkpoint", weights)
    assert (status, text) == (1, "")
    assert error.startswith(f"rbs: {scan}: ")
    assert error.endswith(".\n")
    assert error.count("\n") == 1
    assert re.search(fault, error), error
    assert "; " in error.removeprefix(f"rbs: {scan}: "), "it lacks a remedy"
    assert "Secret" not in error
    assert {path.name for path in tmp_path.iterdir()} <= {"scan.dcm"}


@pytest.mark.parametrize(
    ("option", "contradicted", "fault"),
    [
        (
            ("--view", "anterior"),
            {"views": ("posterior",)},
            "its ViewCodeSequence says posterior, but anterior",
        ),
        (("--velocity", 40), {"velocity": 20}, "its ScanVelocity says 20 cm/min, but 40 cm/min was given"),
    ],
    ids=["view", "velocity"],
)
def test_an_option_is_for_the_files_of_a_folder_that_do_not_say(
    rbs, tmp_path: Path, weights: Path, option, contradicted, fault: str
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write_nm(folder / "silent.dcm", poisson(), views=("",) if "--view" in option else ("anterior",))
    if "--velocity" in option:
        write_nm(folder / "silent.dcm", poisson(), velocity=None)
    write_nm(folder / "agrees.dcm", poisson())
    write_nm(folder / "contradicts.dcm", poisson(), **contradicted)
    status, text, errors = rbs("restore", folder, out, "--checkpoint", weights, *option)
    assert status == 1
    assert sorted(path.name for path in out.iterdir()) == ["agrees.dcm", "silent.dcm"]
    assert f"refused: {folder / 'contradicts.dcm'}: {fault}" in errors
    assert "for this file, or correct its header." in errors
    assert ("(anterior from option)" in text) == ("--view" in option)


def test_no_export_is_passed_over_in_silence(rbs, tmp_path: Path, weights: Path, monkeypatch) -> None:
    folder = tmp_path / "in"
    scan = write_nm(folder / "1.2.840.1", poisson())
    for name in ("IM0002", "closed.ima", "locked"):
        shutil.copy(scan, folder / name)
    (folder / "IM0003").write_bytes(b"")
    (folder / "IM0004").write_bytes(scan.read_bytes()[:100])
    (folder / "1.2.840.5").write_bytes(b"")
    (folder / "README").write_text("Whole-body scans of the phantom study. " * 9)
    (folder / "notes.txt").write_text("")
    (folder / "pictures.zip").write_bytes(b"PK" + bytes(500))
    opened = io.open

    def no_entry(path, *args, **options):
        if Path(path).name in ("closed.ima", "locked"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *args, **options)

    for module in (io, builtins):
        monkeypatch.setattr(module, "open", no_entry)
    status, text, errors = rbs("restore", folder, tmp_path / "out", "--checkpoint", weights)
    assert status == 1
    assert text.count(" counts in, ") == 2
    refused = sorted(line.split(": ")[1] for line in errors.splitlines() if line.startswith("refused: "))
    unfit = ("1.2.840.5", "IM0003", "IM0004", "closed.ima", "locked")
    assert refused == [str(folder / name) for name in unfit]


def test_a_file_without_preamble_is_restored(rbs, tmp_path: Path, weights: Path) -> None:
    ds = pydicom.Dataset()
    ds.update(pydicom.dcmread(write_nm(tmp_path / "new.dcm", poisson())))
    (tmp_path / "in").mkdir()
    ds.save_as(tmp_path / "in" / "old", implicit_vr=True, little_endian=True)
    assert rbs("restore", tmp_path / "in", tmp_path / "out", "--checkpoint", weights)[0] == 0
    assert (tmp_path / "out" / "old").is_file()


@pytest.mark.filterwarnings("error:.*Invalid value:UserWarning")  # they quote what may be a name
def test_damaged_headers_stop_only_their_own_files(rbs, tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "in"
    data = write_nm(folder / "whole.dcm", poisson()).read_bytes()
    header = len(data) - 2 * 64 * 48
    # What pydicom decodes only when it is asked for: a UID of another type, a deflated file that is
    # not.
    study = data.index(b"\x20\x00\x0d\x00UI")
    (folder / "study.dcm").write_bytes(data[: study + 4] + b"FD" + data[study + 6 :])
    (folder / "deflated.dcm").write_bytes(data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"))
    rng = np.random.default_rng(7)
    for number in range(150):
        damaged = bytearray(data)
        for position in rng.integers(128, header, rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        (folder / f"{number:03d}.dcm").write_bytes(damaged)
    status, text, errors = rbs("restore", folder, tmp_path / "out", "--checkpoint", weights)
    assert status == 1
    assert "whole.dcm" in text
    restored, refused = text.count(" counts in, "), errors.count("refused: ")
    assert restored + refused == 153
    assert restored > 30
    assert "Secret" not in text + errors


def test_hot_pixels_are_clipped_with_a_warning(rbs, tmp_path: Path, weights: Path) -> None:
    y, x = np.mgrid[:256, :128]
    bladder = 4000 * np.exp(-((y - 150) ** 2 + (x - 64) ** 2) / 8)
    counts = np.random.default_rng(0).poisson([expectation(256, 128) + bladder])
    scan, out = write_nm(tmp_path / "in.dcm", counts), tmp_path / "out.dcm"
    status, text, _ = rbs("restore", scan, out, "--checkpoint", weights)
    assert status == 0
    clipped = re.search(r"warning: pixels clipped at 3,277 counts, the most a file holds: (\d+)", text)
    assert int(clipped[1]) == (pydicom.dcmread(out).pixel_array == 32767).sum() > 0
    stored = real_world(out).sum()
    assert f"{stored:,.0f} out at 20 cm/min (bias {100 * (stored / counts.sum() / 2 - 1):+.1f} %)" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(rbs, tmp_path: Path, weights: Path) -> None:
    scan = write_nm(tmp_path / "scan.dcm", poisson())
    scan.chmod(0)
    status, _, error = rbs("restore", scan, tmp_path / "out.dcm", "--checkpoint", weights)
    assert status == 1
    assert str(scan) in error


def test_an_output_is_never_replaced(rbs, tmp_path: Path, weights: Path) -> None:
    scan, out = write_nm(tmp_path / "scan.dcm", poisson()), tmp_path / "out.dcm"
    out.write_text("precious")
    status, _, error = rbs("restore", scan, out, "--checkpoint", weights)
    assert status == 1
    assert f"{out}: the output exists already" in error
    assert out.read_text() == "precious"
    assert rbs("restore", scan, scan, "--checkpoint", weights)[0] == 1
    assert rbs("restore", tmp_path, out, "--checkpoint", weights)[0] == 1


@pytest.mark.parametrize("kind", ["missing", "text", "truncated", "another architecture"])
def test_weights_that_do_not_fit_are_refused(rbs, tmp_path: Path, weights: Path, kind: str) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    file = tmp_path / "w.safetensors"
    if kind == "text":
        file.write_text("weights")
    elif kind == "truncated":
        file.write_bytes(weights.read_bytes()[:-64])
    elif kind == "another architecture":
        with safe_open(weights, "pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            metadata = content.metadata()
        save_file({f"other.{name}": tensor for name, tensor in tensors.items()}, file, metadata=metadata)
    scan = write_nm(tmp_path / "scan.dcm", poisson())
    status, _, error = rbs("restore", scan, tmp_path / "out.dcm", "--checkpoint", file)
    assert status == 1
    assert error.startswith(f"rbs: {file}: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out.dcm").exists()


def test_a_disk_that_fills_up_leaves_nothing(rbs, tmp_path: Path, weights: Path, monkeypatch) -> None:
    scan, out = write_nm(tmp_path / "scan.dcm", poisson()), tmp_path / "out" / "out.dcm"

    def write_half(self: Path, data: bytes) -> None:
        self.write_text("half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    status, _, error = rbs("restore", scan, out, "--checkpoint", weights)
    assert status == 1
    assert f"{out}: the disk is full" in error
    assert list(out.parent.iterdir()) == []


def test_a_disk_that_is_really_full_leaves_nothing(
    rbs, tmp_path: Path, weights: Path, small_disk: Path
) -> None:
    scan = write_nm(tmp_path / "scan.dcm", poisson())
    status, _, error = rbs("restore", scan, small_disk / "out.dcm", "--checkpoint", weights)
    assert status == 1
    assert "the disk is full" in error
    assert list(small_disk.iterdir()) == []

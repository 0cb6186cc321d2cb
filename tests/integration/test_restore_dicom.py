"""A real scan through the whole bedside path, its result read by software that is not ours."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from judges import judge

EXPLAINED = (
    # The NM module knows only PRIMARY; a restored image is not made of detected events alone: in
    # the general definition of Image Type (PS3.3 C.7.6.1.1.2) SECONDARY is the word for that.
    "Unrecognized enumerated value <SECONDARY> for value 2 of attribute <Image Type>",
)


@pytest.fixture(scope="module")
def source() -> Path:
    folder = os.environ.get("RBS_TEST_DATA")
    file = Path(folder or "") / "bone" / "nm1_anterior_10cm_per_min.dcm"
    if folder is None or not file.is_file():
        pytest.skip("set RBS_TEST_DATA to the folder of the test data")
    return file


@pytest.fixture(scope="module")
def files(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from rbs.cli.main import main

    folder = tmp_path_factory.mktemp("restore")
    paths = {name: folder / f"{name}.dcm" for name in ("rapid", "rest", "restored")}
    view = ["--view", "anterior"]
    thin = [str(source), str(paths["rapid"]), "--velocity", "40", "--remainder", str(paths["rest"]), *view]
    assert main(["thin", *thin]) == 0
    assert main(["restore", str(paths["rapid"]), str(paths["restored"]), "--uncertainty"]) == 0
    return paths | {"restored_sd": folder / "restored_sd.dcm"}


def counts_of(path: Path) -> np.ndarray:
    highdicom = pytest.importorskip("highdicom")
    return np.asarray(highdicom.imread(path).get_frame(1, apply_real_world_transform=True), dtype=np.float64)


def test_the_restored_scan_is_closer_to_the_truth_than_the_rapid_one(files: dict[str, Path]) -> None:
    rapid, rest = (pydicom.dcmread(files[name]).pixel_array.astype(float) for name in ("rapid", "rest"))
    restored = counts_of(files["restored"])
    # The remainder, scaled to 20 cm/min, is an independent scan; its own Poisson noise is taken
    # off.
    scale = float(pydicom.dcmread(files["rest"]).ScanVelocity) * 6 / 20
    noise = rest.mean() * scale**2

    def error(estimate: np.ndarray) -> float:
        return float(np.mean((estimate - rest * scale) ** 2) - noise)

    assert 0 <= error(restored) < 0.25 * error(rapid * 40 / 20)


def test_the_scale_reads_back_as_standard_counts(files: dict[str, Path]) -> None:
    rapid = pydicom.dcmread(files["rapid"])
    assert counts_of(files["restored"]).sum() == pytest.approx(2 * rapid.pixel_array.sum(), rel=0.02)
    restored = pydicom.dcmread(files["restored"])
    assert restored.StudyInstanceUID == rapid.StudyInstanceUID
    assert restored.SourceImageSequence[0].ReferencedSOPInstanceUID == rapid.SOPInstanceUID
    assert restored.ContentQualification == "RESEARCH"


@pytest.mark.parametrize("name", ["rapid", "restored", "restored_sd"])
def test_an_independent_judge_finds_nothing_unexplained(files: dict[str, Path], name: str) -> None:
    judged = subprocess.run([judge("dciodvfy"), files[name]], capture_output=True, text=True)
    lines = (judged.stdout + judged.stderr).splitlines()
    assert any("NMImage" in line for line in lines)
    errors = [line for line in lines if line.startswith("Error")]
    assert [line for line in errors if not any(part in line for part in EXPLAINED)] == []

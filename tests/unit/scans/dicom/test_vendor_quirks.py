"""Every camera's file: read to the very counts that were put in, or refused with file, fault and remedy."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from vendor_files import QUIRKS, TWO

from rbs.errors import ScanError
from rbs.scans.dicom.pixels import LOSSLESS
from rbs.scans.dicom.reader import read_nm

READ = [name for name, quirk in QUIRKS.items() if quirk.refused is None]
REFUSED = [name for name, quirk in QUIRKS.items() if quirk.refused]


@pytest.mark.parametrize("name", READ)
def test_read(name: str, tmp_path: Path) -> None:
    quirk = QUIRKS[name]
    scan = read_nm(quirk.write(tmp_path / "scan.dcm"), **quirk.options)
    np.testing.assert_array_equal(scan.counts, quirk.counts if quirk.read is None else quirk.read)
    assert scan.provenance.view_rule == quirk.rule
    assert scan.views == (quirk.scan.get("views") or quirk.views or scan.views)
    for attribute, value in quirk.scan.items():
        assert getattr(scan, attribute) == value, attribute


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    quirk = QUIRKS[name]
    assert quirk.refused is not None
    fault, remedy = quirk.refused
    path = quirk.write(tmp_path / "scan.dcm")
    with pytest.raises(ScanError, match=fault) as caught:
        read_nm(path, **quirk.options)
    assert caught.value.file == path
    assert remedy in (caught.value.remedy or "")
    assert "Secret" not in str(caught.value)


def test_every_transfer_syntax_that_is_read_has_its_file(tmp_path: Path) -> None:
    files = [QUIRKS[name].write(tmp_path / f"{number}.dcm") for number, name in enumerate(READ)]
    metas = [pydicom.dcmread(file, force=True).file_meta for file in files]
    assert {meta.get("TransferSyntaxUID") for meta in metas} >= LOSSLESS


def test_a_dose_size_and_weight_of_zero_are_unknown(tmp_path: Path) -> None:
    header = read_nm(QUIRKS["dose, size and weight 0"].write(tmp_path / "a.dcm")).provenance.header
    assert header is not None
    assert "PatientSize" not in header
    assert "PatientWeight" not in header
    assert "RadionuclideTotalDose" not in header.RadiopharmaceuticalInformationSequence[0]
    known = read_nm(QUIRKS["two frames, coded views"].write(tmp_path / "b.dcm")).provenance.header
    assert known is not None
    assert (known.PatientSize, known.PatientWeight) == (1.27, 25.1)


def test_the_window_that_was_chosen_describes_the_scan(tmp_path: Path) -> None:
    quirk = QUIRKS["several energy windows, the second chosen"]
    header = read_nm(quirk.write(tmp_path / "a.dcm"), energy_window=2).provenance.header
    assert header is not None
    assert (header.NumberOfFrames, header.NumberOfEnergyWindows) == (2, 1)
    (window,) = header.EnergyWindowInformationSequence
    assert window.EnergyWindowName == "scatter"
    assert quirk.read is not None
    assert header.CountsAccumulated == quirk.read.sum() != TWO.sum()

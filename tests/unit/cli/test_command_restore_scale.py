"""`rbs restore --scale 2`: a coarse scan on twice the matrix, and everything it must refuse."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from nm_files import poisson, write_nm

import rbs as package
from rbs.restorers.checkpoint import save_restorer
from rbs.restorers.nafnet import NAFNet
from rbs.restorers.semantic_nafnet import SemanticNAFNet
from rbs.scans.counts import block_sums
from rbs.weights.shipped import ENLARGING, SHIPPED

BOTH = ("anterior", "posterior")
COARSE = {"PixelSpacing": [4.6, 4.6]}


@pytest.fixture(scope="module")
def enlarging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained restorer: a Gaussian filter of 1.5 coarse pixels, cut in four."""
    path = tmp_path_factory.mktemp("x2") / "x2.safetensors"
    net = NAFNet(width=4, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,), scale=2)
    save_restorer(path, net, {"spacing_mm": [4.5, 4.6]})
    return path


def counts_of(path: Path) -> np.ndarray:
    ds = pydicom.dcmread(path)
    return ds.pixel_array * float(ds.RealWorldValueMappingSequence[0].RealWorldValueSlope)


def test_a_coarse_scan_gets_twice_the_matrix(rbs, tmp_path: Path, enlarging: Path, weights: Path) -> None:
    counts = poisson(2)
    scan, out = write_nm(tmp_path / "in.dcm", counts, views=BOTH, **COARSE), tmp_path / "out.dcm"
    status, text, errors = rbs("restore", scan, out, "--scale", 2, "--checkpoint", enlarging)
    assert (status, errors) == (0, "")
    assert "warning" not in text
    ds = pydicom.dcmread(out)
    assert (ds.Rows, ds.Columns, list(ds.PixelSpacing)) == (128, 96, [2.3, 2.3])
    assert "each pixel of 4.6 x 4.6 mm cut into 2 x 2 of 2.3 x 2.3 mm" in ds.DerivationDescription
    assert "NAFNet x2.safetensors, strength standard" in ds.DerivationDescription
    assert int(ds.CountsAccumulated) == counts.sum()
    # The sums over four are what the filter gives on coarse pixels.
    plain = tmp_path / "plain.dcm"
    assert rbs("restore", scan, plain, "--checkpoint", weights)[0] == 0
    np.testing.assert_allclose(block_sums(counts_of(out), 2, 2), counts_of(plain), rtol=0.02, atol=0.05)


@pytest.mark.parametrize("strength", ["gentle", "strong"])
def test_it_has_strengths(rbs, tmp_path: Path, enlarging: Path, strength: str) -> None:
    counts = poisson(2)
    scan, out = write_nm(tmp_path / "in.dcm", counts, views=BOTH, **COARSE), tmp_path / "out.dcm"
    options = ("--scale", 2, "--checkpoint", enlarging, "--strength", strength)
    assert rbs("restore", scan, out, *options)[0] == 0
    assert counts_of(out).sum() == pytest.approx(2 * counts.sum(), rel=0.01)


def test_two_views_in_two_files_of_a_folder(rbs, tmp_path: Path, enlarging: Path) -> None:
    for view in BOTH:
        write_nm(tmp_path / "in" / f"{view}.dcm", poisson(), views=(view,), study="1.2.3", **COARSE)
    options = ("--scale", 2, "--checkpoint", enlarging)
    status, text, _ = rbs("restore", tmp_path / "in", tmp_path / "out", *options)
    assert status == 0
    assert text.count(", with ") == 2
    for view in BOTH:
        ds = pydicom.dcmread(tmp_path / "out" / f"{view}.dcm")
        assert (ds.Rows, ds.Columns, list(ds.PixelSpacing)) == (128, 96, [2.3, 2.3])


def test_what_does_not_go_together_is_said(rbs, tmp_path: Path, enlarging: Path, weights: Path) -> None:
    fine = write_nm(tmp_path / "fine.dcm", poisson())
    coarse = write_nm(tmp_path / "coarse.dcm", poisson(), **COARSE)
    x2, plain = ("--checkpoint", enlarging), ("--checkpoint", weights)
    cases = (
        (fine, ("--scale", 2, *x2), "its pixels of 2.30 x 2.30 mm are fine already"),
        (coarse, x2, "as many rows and columns as the scan; restore with it by `rbs restore --scale 2`"),
        (coarse, ("--scale", 2, *plain), "keep the pixels of the scan; name weights trained with scale 2"),
        (coarse, ("--checkpoint", ENLARGING), "restore with it by `rbs restore --scale 2`"),
        (coarse, ("--scale", 2, "--checkpoint", SHIPPED), "name weights trained with scale 2"),
        (coarse, ("--scale", 2, "--adapt", *x2), "--adapt compares counts pixel by pixel"),
        (coarse, ("--scale", 2, "--uncertainty", *x2), "--uncertainty compares counts pixel by pixel"),
    )
    for scan, options, fault in cases:
        status, _, errors = rbs("restore", scan, tmp_path / "out.dcm", *options)
        assert status == 1
        assert fault in errors
        assert errors.count("\n") == 1
    assert not (tmp_path / "out.dcm").exists()


def test_other_commands_refuse_such_weights(rbs, tmp_path: Path, enlarging: Path, make_cohort) -> None:
    manifest = make_cohort(tmp_path / "cohort", splits=("test",))
    status, _, errors = rbs("evaluate", manifest, "--stage1", enlarging, "--output", tmp_path / "table")
    assert status == 1
    assert "twice as many rows and columns" in errors


def test_facts_that_the_header_lacks_are_said(rbs, tmp_path: Path) -> None:
    path, sizes = tmp_path / "facts.safetensors", {"channels": [4, 6, 8], "blocks": [1, 1, 1]}
    net = SemanticNAFNet(sizes, width=4, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,))
    for parameter in net.parameters():
        parameter.data.normal_(std=0.1)
    save_restorer(path, net, {"spacing_mm": [4.5, 4.6]})
    known = {"PatientAge": "006Y", "PatientSize": 1.2, "PatientWeight": 22, **COARSE}
    given = {"all": known, "some": known | {"PatientSize": 0, "PatientAge": "016Y"}}
    for name, changes in given.items():
        scan = write_nm(tmp_path / f"{name}.dcm", poisson(), **changes)
        options = ("--scale", 2, "--checkpoint", path)
        status, text, _ = rbs("restore", scan, tmp_path / f"{name}_out.dcm", *options)
        assert status == 0
        missing = {"all": "activity", "some": "height, activity"}[name]
        assert f"it states no {missing}: restored without" in text
    told, other = (counts_of(tmp_path / f"{name}_out.dcm") for name in given)
    assert (told != other).any()


def test_python_restores_on_twice_the_matrix(tmp_path: Path, enlarging: Path) -> None:
    scan = write_nm(tmp_path / "in.dcm", poisson(2), views=BOTH, **COARSE)
    restored = package.restore(scan, checkpoint=enlarging, scale=2)
    assert restored.counts.shape == (2, 128, 96)
    assert restored.spacing_mm == (2.3, 2.3)
    assert restored.velocity == 20

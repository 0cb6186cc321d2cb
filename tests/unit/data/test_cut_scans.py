"""Training samples and evaluated pairs of scans whose lowest counts were cut."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from rbs.data.bone_scans import RBSDataModule
from rbs.data.datasets import collate
from rbs.data.loading import LoadedCase, load_case
from rbs.data.manifest import Case
from rbs.data.samples import Crops, WholeScans
from rbs.distillation.balance import GradientBalance
from rbs.distillation.cascade import CascadeOutput
from rbs.distillation.objective import cascade_losses
from rbs.errors import ManifestError, RbsError
from rbs.evaluation.scans.metrics import nc_mse
from rbs.evaluation.scans.pairs import load_pair
from rbs.losses import PoissonDeviance, SquaredError
from rbs.scans.censoring import completed, cut_counts
from rbs.scans.dicom.writer import PatientHeader, write_recovered_nm
from rbs.scans.scan import Scan, View
from rbs.tasks.validation import scan_scores

CUT = 2


def body() -> np.ndarray:
    """Expected counts of 4 a pixel with stripes of 20, air around it."""
    y, x = np.mgrid[:192, :128]
    inside = (x - 64) ** 2 / 45**2 + (y - 96) ** 2 / 80**2 < 1
    return gaussian_filter(inside * (4.0 + 16 * (np.sin(x / 5.0) > 0.6)), 1.2)[None]


def loaded(cut: int = CUT) -> LoadedCase:
    counts = completed(np.random.default_rng(0).poisson(body()), cut).astype(np.float32)
    return LoadedCase(None, counts, None, None, None, (View.ANTERIOR,), (2.3, 2.3), cut=cut)


def crops(case: LoadedCase, **changes) -> Crops:
    options = {
        "pairs": "split",
        "realisations": None,
        "exposures": (0.5, 0.5),
        "crop": (128, 96),
        "length": 8,
        "single_view_probability": 0.0,
        "foci": 0.0,
        "scenes": 0.0,
        "seed": 0,
    }
    return Crops([Case("P1", "train", (), ())], [case], **{**options, **changes})


@pytest.mark.parametrize("realisations", [None, 2])
def test_targets_stay_cut_and_inputs_are_completed(realisations: int | None) -> None:
    samples = crops(loaded(), realisations=realisations)
    batch = collate([samples[index] for index in range(4)])
    assert batch["cut"].tolist() == [CUT] * 4
    target, rapid = batch["target"], batch["rapid"]
    assert not ((target > 0) & (target <= CUT)).any()
    assert ((rapid > 0) & (rapid <= CUT)).any()
    assert (rapid == rapid.round()).all()


def test_inputs_owe_nothing_to_targets() -> None:
    """Where both halves were cut, what is shown in the one does not tell the other."""
    truth = np.full((1, 256, 256), 3.0)
    counts = completed(np.random.default_rng(1).poisson(truth), CUT).astype(np.float32)
    case = LoadedCase(None, counts, None, None, None, (View.ANTERIOR,), (2.3, 2.3), cut=CUT)
    samples = crops(case, crop=(256, 256))
    pairs = [(samples[i]["rapid"][0].numpy(), samples[i]["target"][0].numpy()) for i in range(8)]
    for rapid, target in pairs:
        assert abs(np.corrcoef(rapid.ravel(), target.ravel())[0, 1]) < 4 / 256
        assert rapid.mean() == pytest.approx(1.5, rel=0.06)


def test_scans_that_are_not_cut_have_no_cut() -> None:
    assert "cut" not in crops(loaded(0))[0]
    assert "cut" not in WholeScans([Case("P1", "val", (), ())], [loaded(0)], seed=0)[0]


def test_validation_judges_a_cut_scan_by_its_likelihood() -> None:
    sample = WholeScans([Case("P1", "val", (), ())], [loaded()], seed=0)[0]
    batch = collate([sample])
    truth = torch.from_numpy(body()).float()[None]
    good = scan_scores(truth, batch)
    poor = [scan_scores(factor * truth, batch) for factor in (0.9, 1.1)]
    assert good["deviance"] < min(score["deviance"] for score in poor)
    assert good["nc_nmse"] < min(score["nc_nmse"] for score in poor)


def test_losses_that_need_all_counts_refuse_cut_targets() -> None:
    out = CascadeOutput(torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
    cascade = type("None", (), {"skd": None, "scm": None, "trains": "both"})()
    arguments = (cascade, out, torch.zeros(1, 1, 8, 8), torch.ones(1))
    given = {"balance": GradientBalance({}), "facts": {"cut": torch.tensor([CUT])}}
    assert cascade_losses(*arguments, losses=[PoissonDeviance()], **given)["rec1"] < 1
    with pytest.raises(RbsError, match="SquaredError needs all counts"):
        cascade_losses(*arguments, losses=[SquaredError()], **given)


@pytest.fixture
def files(tmp_path: Path) -> dict[View, Path]:
    """The two views of a patient, of which more was cut in one than in the other."""
    rng, written = np.random.default_rng(2), {}
    for view, cut in ((View.ANTERIOR, 1), (View.POSTERIOR, 2)):
        counts = cut_counts(rng.poisson(body()), cut).astype(np.uint16)
        written[view] = tmp_path / f"{view}.dcm"
        write_recovered_nm(
            written[view],
            Scan(counts, (view,), (2.3, 2.3), patient_id="P1", cut=cut),
            patient=PatientHeader("P1"),
            study_seed="P1",
            uid_seed=view,
            description="cut",
        )
    return written


def test_a_case_has_one_cut_and_is_completed(files: dict[View, Path]) -> None:
    case = load_case(Case("P1", "test", (), tuple(files.values())))
    assert case.cut == 2
    assert case.standard.sum() == pytest.approx(2 * body().sum(), rel=0.06)
    pair = load_pair(Case("P1", "test", (), tuple(files.values())))
    assert pair.target.cut == 2
    assert pair.rapid.sum() == pytest.approx(body().sum(), rel=0.1)
    assert 0 < pair.target.judged.sum() < pair.target.mask.sum()
    truth = np.concatenate([body(), body()[..., ::-1]])
    assert abs(nc_mse(truth, pair.target)) < 0.1 * nc_mse(0.9 * truth, pair.target)


def test_foci_cannot_be_added_to_cut_scans(files: dict[View, Path], tmp_path: Path) -> None:
    rows = [f"P1,{split},,{files[view].name},20" for split, view in (("train", View.ANTERIOR),)]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(["patient,split,rapid,standard,standard_velocity", *rows]) + "\n")
    data = RBSDataModule(manifest, foci=1.0, crop=(64, 64))
    data._kept["val"] = []
    with pytest.raises(ManifestError, match="foci cannot be added"):
        data.setup("fit")

"""What stands beside a truth file."""

import json

import pytest

from rbs.data.anatomy import Focus, read_anatomy
from rbs.errors import ManifestError
from rbs.synthetic.cohort import write_cohort


def told(folder, **changes):
    lesion = {"region": "spine", "row": 10, "column": 20, "depth_mm": 3.0, "fwhm_mm": 9.0, "contrast": 2.0}
    content = {
        "lesions": [lesion, lesion | {"kind": "fracture", "angle": 0.1}],
        "landmarks_row_column": {"L3": [5, 6.5]},
    } | changes
    (folder / "child.json").write_text(json.dumps(content))
    return folder / "truth.npz"


def test_foci_and_landmarks(tmp_path):
    anatomy = read_anatomy(told(tmp_path))
    assert anatomy.foci == (
        Focus("spine", 10, 20, 9.0, 2.0),
        Focus("spine", 10, 20, 9.0, 2.0, "fracture"),
    )
    assert anatomy.landmarks == {"L3": (5.0, 6.5)}


def test_a_phantom_as_it_is_written(tmp_path):
    write_cohort(tmp_path / "out", 3, 5, workers=1, progress=False)
    anatomy = read_anatomy(tmp_path / "out" / "P0001" / "truth.npz")
    assert "distal femoral physis -1" in anatomy.landmarks


def test_nothing_beside_it_is_no_fault(tmp_path):
    assert read_anatomy(tmp_path / "truth.npz") is None
    assert read_anatomy(None) is None


@pytest.mark.parametrize(
    "changes", [{"lesions": [{"row": 1}]}, {"lesions": 3}, {"landmarks_row_column": {"L3": [1]}}]
)
def test_a_damaged_description_is_named(tmp_path, changes):
    with pytest.raises(ManifestError, match=r"child\.json: it does not describe a phantom"):
        read_anatomy(told(tmp_path, **changes))
    (tmp_path / "child.json").write_text("{")
    with pytest.raises(ManifestError, match=r"child\.json"):
        read_anatomy(tmp_path / "truth.npz")

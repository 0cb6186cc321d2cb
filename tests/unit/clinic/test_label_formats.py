"""Files of label maps."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rbs.clinic.label_formats import FORMATS
from rbs.scans.dicom.writer import Derivation
from rbs.scans.scan import Scan, View

LABELS = np.arange(10, dtype=np.uint8).reshape(1, 2, 5)
SCAN = Scan(np.ones((1, 2, 5), np.uint16), (View.ANTERIOR,), (2.0, 3.0), 40.0)
MADE_BY = Derivation("a.safetensors", "0.2.0", "ab" * 32)


def test_the_format_is_not_told_by_the_name(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    for form in ("png", "nifti"):
        FORMATS[form].write(tmp_path / f"{form}.labels", LABELS, SCAN, MADE_BY)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "png.labels")), LABELS[0])
    image = nibabel.Nifti1Image.from_bytes((tmp_path / "nifti.labels").read_bytes())
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, LABELS)

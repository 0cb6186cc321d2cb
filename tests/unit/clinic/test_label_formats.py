"""Files of label maps."""

import gzip
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


def test_a_picture_is_a_png_under_any_name(tmp_path: Path) -> None:
    FORMATS["png"].write(tmp_path / "labels", LABELS, SCAN, MADE_BY)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "labels")), LABELS[0])


def test_a_volume_is_nifti_under_any_name(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    for name, decoded in (("labels", bytes), ("labels.nii.gz", gzip.decompress)):
        FORMATS["nifti"].write(tmp_path / name, LABELS, SCAN, MADE_BY)
        image = nibabel.Nifti1Image.from_bytes(decoded((tmp_path / name).read_bytes()))
        np.testing.assert_array_equal(np.asarray(image.dataobj).T, LABELS)

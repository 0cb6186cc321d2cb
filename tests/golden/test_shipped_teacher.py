"""The shipped teacher finds the regions of an unseen child: seed 5; it was adapted to seed 1."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from segmenters import given

from rbs.segmentation.adapters import load_teacher
from rbs.segmentation.dice import DiceTally, regions_found
from rbs.synthetic.cohort import make_patient
from rbs.weights.shipped import FOLDER, file_sha256

GOLDEN = {"skull": 0.912, "spine": 0.689, "legs": 0.738}


def test_it_finds_large_regions_of_a_fresh_child() -> None:
    patient = make_patient(2, seed=5)
    counts, labels = (
        torch.from_numpy(np.stack([a[0], a[1][:, ::-1]]).copy())  # posterior views are shown mirrored
        for a in (2 * patient.rapid.astype(np.float32), patient.phantom.labels.astype(np.int64))
    )
    tally = DiceTally()
    with torch.no_grad():
        (found,) = regions_found(load_teacher(FOLDER / "teacher"), *given(counts[None]))
    tally.add(0, "P2", "rapid", found, labels)
    (row,) = tally.rows("lora", "test")
    dice = {name: float(row[name]) for name in GOLDEN}
    assert dice == pytest.approx(GOLDEN, abs=0.02), dice


def test_it_is_the_one_its_card_tells_of() -> None:
    card = json.loads((FOLDER / "teacher" / "card.json").read_text())
    assert card["sha256"] == file_sha256(FOLDER / "teacher" / card["file"])
    assert {"licence", "commands", "seed", "data"} <= card.keys()


def test_all_that_ships_is_small() -> None:
    files = [file for file in FOLDER.rglob("*") if file.suffix in (".safetensors", ".onnx")]
    assert len(files) == 11
    assert sum(file.stat().st_size for file in files) < 17e6

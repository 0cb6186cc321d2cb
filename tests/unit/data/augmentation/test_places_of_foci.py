"""Places with and without a focus, in a crop as it is flipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_crops import training_batch

from rbs.data.augmentation.places import APART, draw_places
from rbs.data.bone_scans import RBSDataModule
from rbs.errors import RbsError

SPACING = (2.26, 2.26)


def test_as_many_empty_places_lie_in_tracer_and_away_from_foci() -> None:
    image = np.zeros((2, 96, 96), np.float32)
    image[:, :, 40:] = 5
    foci = np.array([[10, 50], [60, 90], [80, 45]])
    empty = []
    for seed in range(40):
        table = draw_places(image, SPACING, foci, 8, np.random.default_rng(seed))
        np.testing.assert_array_equal(table[:3], np.column_stack([foci, [1, 1, 1]]))
        assert (table[3:6, 2] == 0).all()
        assert (table[6:] == -1).all()
        empty.extend(table[3:6, :2])
    away = np.abs(np.array(empty)[:, None] - foci).max(axis=-1)
    assert away.min() > APART
    assert np.quantile(np.array(empty)[:, 1], 0.02) > 30


def test_more_foci_than_rows_and_nowhere_else_to_look() -> None:
    image, rng = np.ones((1, 32, 32), np.float32), np.random.default_rng(0)
    table = draw_places(image, SPACING, np.full((5, 2), 16), 4, rng)
    assert table.tolist() == [[16, 16, 1]] * 2 + [[-1] * 3] * 2
    assert (draw_places(image, SPACING, np.empty((0, 2), int), 4, rng) == -1).all()


def with_foci(manifest: Path, **settings) -> dict:
    return training_batch(manifest, 48, **{"pairs": "expectation", "foci": 3.0} | settings)


def test_places_of_a_batch_are_where_its_foci_lie_after_flips(tiny_cohort: Path, monkeypatch) -> None:
    module_name = "rbs.data.augmentation.lesions"
    monkeypatch.setattr(f"{module_name}.COLD_SHARE", 0.0)
    monkeypatch.setattr(f"{module_name}.FWHM_MM", (9.7, 9.8))  # about a pixel of the tiny cohort
    monkeypatch.setattr(f"{module_name}.CONTRAST", (1e4, 1.1e4))
    batch = with_foci(tiny_cohort, places=8, foci=1.0)
    assert batch["places"].shape == (48, 8, 3)
    assert batch["places"].dtype == torch.int64
    found = 0
    for image, places in zip(batch["expectation"].sum(dim=1), batch["places"], strict=True):
        present = places[places[:, 2] == 1]
        if len(present) == 1:
            row, column = divmod(int(image.argmax()), 64)
            assert present[0].tolist() == [row, column, 1]
            found += 1
    assert found > 8
    assert len({tuple(flip) for flip in batch["flip"].tolist()}) == 4


def test_asking_for_places_changes_nothing_else(tiny_cohort: Path) -> None:
    plain, asked = with_foci(tiny_cohort), with_foci(tiny_cohort, places=8)
    assert set(asked) - set(plain) == {"places"}
    for name, value in plain.items():
        assert value == asked[name] if isinstance(value, list) else torch.equal(value, asked[name])


@pytest.mark.parametrize(
    "changes", [{"places": 3}, {"places": 8, "foci": 0.0}, {"places": 8, "pairs": "split"}]
)
def test_places_need_foci_in_known_expectations(changes) -> None:
    with pytest.raises(RbsError, match=r"places, .* do not go together"):
        RBSDataModule("manifest.csv", **{"pairs": "expectation", "foci": 3.0} | changes)

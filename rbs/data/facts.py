"""Facts of children as batch entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from rbs.data.datasets import other_patients
from rbs.data.loading import LoadedCase
from rbs.data.manifest import Case

FactsOf = Literal["own", "others"]
"""Whose facts a sample carries: the child's, or those of the next patient as a placebo."""


def facts_entry(
    of: FactsOf | None, cases: Sequence[Case], scans: Sequence[LoadedCase], row: int
) -> dict[str, Tensor]:
    """The entry "facts" of a sample, float32 (F,); {} where none are asked for.

    Args:
        of: Whose facts.
        cases: Cases.
        scans: What was read of them.
        row: The case.
    """
    if of is None:
        return {}
    return {"facts": torch.from_numpy(scans[facts_row(of, cases, row)].facts.numbers())}


def facts_row(of: FactsOf, cases: Sequence[Any], row: int) -> int:
    """Row of the case whose facts a case is given; its own where there is no other patient."""
    return row if of == "own" else next(other_patients(cases, row), row)

"""Facts of a child and its examination that a header may state: age, size, activity."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from rbs.scans.dicom.reader import positive_number
from rbs.scans.ranges import ACTIVITY, AGE, HEIGHT, WEIGHT
from rbs.scans.scan import Array

if TYPE_CHECKING:
    from pydicom import Dataset

_TYPICAL = {"age_y": 7.0, "height_cm": 120.0, "weight_kg": 24.0, "activity_mbq": 200.0}
_SPREAD = {"age_y": 0.8, "height_cm": 0.25, "weight_kg": 0.6, "activity_mbq": 0.6}
"""Standard deviation of the logarithm, about that of children from one to seventeen years."""

NUMBERS = 2 * len(_TYPICAL)
"""Numbers that `Facts.numbers` gives."""

_RANGES = {"age_y": AGE, "height_cm": HEIGHT, "weight_kg": WEIGHT, "activity_mbq": ACTIVITY}

_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
"""Years of a unit of a DICOM age."""


@dataclass(frozen=True)
class Facts:
    """What is known of a child; None for what is not, which is never guessed.

    A value outside its range (`rbs.scans.ranges`) is a mistake or in another unit, and counts as
    unknown. The velocity of its scan is not among them: restorers are given the exposure.

    Attributes:
        age_y: Age, years.
        height_cm: Height, cm.
        weight_kg: Weight, kg.
        activity_mbq: Activity given, MBq.
    """

    age_y: float | None = None
    height_cm: float | None = None
    weight_kg: float | None = None
    activity_mbq: float | None = None

    def __post_init__(self) -> None:
        for name, usual in _RANGES.items():
            if (value := getattr(self, name)) is not None and value not in usual:
                object.__setattr__(self, name, None)

    def numbers(self) -> Array:
        r"""The facts as a network reads them, float32 (NUMBERS,).

        .. math::
            z_k = \frac{\ln v_k - \ln \bar v_k}{s_k}, \qquad m_k = 1

        of a known fact; z = m = 0 of an unknown one. All z come first.
        """
        values, known = np.zeros(len(_TYPICAL)), np.zeros(len(_TYPICAL))
        for place, (name, typical) in enumerate(_TYPICAL.items()):
            if (value := getattr(self, name)) is not None:
                values[place] = math.log(value / typical) / _SPREAD[name]
                known[place] = 1
        return np.concatenate([values, known]).astype(np.float32)

    def filled(self, other: Facts) -> Facts:
        """The same, with what is unknown taken from another statement of them."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return Facts(**{n: getattr(other, n) if value is None else value for n, value in own.items()})

    @property
    def missing(self) -> tuple[str, ...]:
        """Facts that are not known, in words."""
        words = {"age_y": "age", "height_cm": "height", "weight_kg": "weight", "activity_mbq": "activity"}
        return tuple(word for name, word in words.items() if getattr(self, name) is None)


def facts_of(header: Dataset | None) -> Facts:
    """Facts that a header states; zeros, as workstations write them, are none."""
    if header is None:
        return Facts()
    tracers: Any = header.get("RadiopharmaceuticalInformationSequence") or [{}]
    return Facts(
        age_y=years_of(str(header.get("PatientAge") or "")),
        height_cm=positive_number(header.get("PatientSize"), 100),
        weight_kg=positive_number(header.get("PatientWeight")),
        activity_mbq=positive_number(tracers[0].get("RadionuclideTotalDose")),
    )


def years_of(age: str) -> float | None:
    """Years of a DICOM age such as 006Y or 018M; None of anything else."""
    years = positive_number(age[:-1], _YEARS.get(age[-1:].upper(), 0))
    return None if years is None else round(years, 2)

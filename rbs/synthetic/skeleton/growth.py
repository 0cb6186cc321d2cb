"""Growth of children: size, proportions, dose, counts and the activity of growth plates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rbs.errors import RbsError

Sex = Literal["F", "M"]
OLDEST = 18.0
YOUNGEST = 0.25

# Medians by age in years, drawn through the reference sizes of the dietary reference intake tables.
_AGES = (0.33, 0.8, 2.0, 6.0, 11.0, 16.0)
_HEIGHT_CM = {"F": (63, 72, 90, 117, 147, 163), "M": (64, 72, 91, 118, 147, 174)}
_WEIGHT_KG = {"F": (6.8, 8.8, 12.8, 21.5, 40, 57), "M": (7, 9, 13, 22, 40, 64)}

# EANM dosage card: MBq of a Tc-99m bone tracer by kg.
_DOSE_KG = (3.5, 10, 20, 30, 40, 50)
_DOSE_MBQ = (40, 95, 170, 240, 310, 375)

# Counts of one view at 20 cm/min by kg.
_COUNTS_KG = (10, 20, 30, 50, 70)
_COUNTS = (0.23e6, 0.36e6, 0.45e6, 0.60e6, 0.84e6)

_PHYSIS_PEAK = {"F": (11.0, 8.3), "M": (13.0, 8.2)}


@dataclass(frozen=True)
class Child:
    """Whom a phantom stands for.

    Attributes:
        age_y: Age, years.
        sex: "F" or "M".
        height_cm: Standing height, cm.
        weight_kg: Body weight, kg.
        dose_mbq: Administered activity of Tc-99m, MBq.
    """

    age_y: float
    sex: Sex
    height_cm: float
    weight_kg: float
    dose_mbq: float


def draw_child(age_y: float, sex: Sex, rng: np.random.Generator) -> Child:
    """A child of this age and sex with a height, a weight and a dose that vary as children do.

    Raises:
        RbsError: The age lies outside 0.25-18 years or the sex is neither "F" nor "M".
    """
    if not YOUNGEST <= age_y <= OLDEST:
        raise RbsError(
            f"no phantom can be {age_y:g} years old", remedy=f"ask for {YOUNGEST:g}-{OLDEST:g} years"
        )
    if sex not in _PHYSIS_PEAK:
        raise RbsError(f"unknown sex {sex!r}", remedy='use "F" or "M"')
    tall = float(np.clip(rng.normal(), -2, 2))
    height = float(np.interp(age_y, _AGES, _HEIGHT_CM[sex])) * (1 + 0.04 * tall)
    weight = float(np.exp(np.interp(age_y, _AGES, np.log(_WEIGHT_KG[sex]))))
    weight *= (1 + 0.08 * tall) * float(np.exp(np.clip(rng.normal(0, 0.11), -0.22, 0.3)))
    return Child(age_y, sex, height, weight, dose_mbq(weight) * float(rng.uniform(0.92, 1.08)))


def dose_mbq(weight_kg: float) -> float:
    """Activity by the EANM dosage card, MBq."""
    return float(np.interp(weight_kg, _DOSE_KG, _DOSE_MBQ))


def expected_counts(weight_kg: float) -> float:
    """Expected counts of one view at 20 cm/min, log-log through the reference weights."""
    x, y, at = np.log(_COUNTS_KG), np.log(_COUNTS), np.log(weight_kg)
    if at < x[0]:
        return float(np.exp(y[0] + (at - x[0]) * (y[1] - y[0]) / (x[1] - x[0])))
    return float(np.exp(np.interp(at, x, y)))


def head_fraction(age_y: float) -> float:
    """Height of the head as a fraction of the height of the body."""
    return float(np.interp(age_y, (0.5, 2, 6, 12, 18), (0.24, 0.20, 0.17, 0.14, 0.13)))


def hip_fraction(age_y: float) -> float:
    """Distance of the hip joints from the vertex as a fraction of the height of the body."""
    return float(
        np.interp(age_y, (0.5, 1, 2, 4, 6, 10, 14, 18), (0.61, 0.60, 0.57, 0.54, 0.52, 0.49, 0.48, 0.48))
    )


def physis_ratio(age_y: float, sex: Sex) -> float:
    """Planar density of the distal femoral growth plate relative to the femoral diaphysis.

    Rises from about 3 in infancy to 8.3 in girls of 11 and 8.2 in boys of 13 years, fades after 16
    as plates close.
    """
    peak_age, peak = _PHYSIS_PEAK[sex]
    width = 5.2 if age_y < peak_age else 4.0
    open_ratio = 3 + (peak - 3) * np.exp(-0.5 * ((age_y - peak_age) / width) ** 2)
    still_open = 1 / (1 + np.exp((max(age_y, 16.0) - 17.5) / 0.5)) if age_y > 16 else 1.0
    return float(1.3 + (open_ratio - 1.3) * still_open)

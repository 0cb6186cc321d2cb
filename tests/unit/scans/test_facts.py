"""Facts of a child: what a header states is read, and what it does not is never guessed."""

import numpy as np
import pytest
from pydicom import Dataset

from rbs.scans.facts import NUMBERS, Facts, facts_of, years_of


def header(**values: object) -> Dataset:
    ds = Dataset()
    for name, value in values.items():
        setattr(ds, name, value)
    return ds


def tracer(dose: object) -> list[Dataset]:
    return [header(RadionuclideTotalDose=dose)]


@pytest.mark.parametrize(
    ("age", "years"), [("006Y", 6.0), ("018M", 1.5), ("026W", 0.5), ("", None), ("000Y", None), ("6", None)]
)
def test_ages(age: str, years: float | None) -> None:
    assert years_of(age) == years


def test_a_header_tells_what_it_states() -> None:
    told = header(
        PatientAge="006Y",
        PatientSize=1.18,
        PatientWeight=22,
        RadiopharmaceuticalInformationSequence=tracer(190),
    )
    assert facts_of(told) == Facts(6.0, 118.0, 22.0, 190.0)
    assert facts_of(told).missing == ()


@pytest.mark.parametrize(
    "ds",
    [
        None,
        Dataset(),
        header(PatientAge="", PatientSize=0, RadiopharmaceuticalInformationSequence=tracer(0)),
        header(RadiopharmaceuticalInformationSequence=[]),
    ],
)
def test_zeros_and_gaps_are_unknown(ds: Dataset | None) -> None:
    assert facts_of(ds) == Facts()
    assert facts_of(ds).missing == ("age", "height", "weight", "activity")
    assert not facts_of(ds).numbers().any()


def test_values_in_other_units_are_unknown() -> None:
    """Size in cm where DICOM has m, weight in g, dose in Bq, a year of birth for an age."""
    told = header(
        PatientAge="999Y",
        PatientSize=118,
        PatientWeight=22_000,
        RadiopharmaceuticalInformationSequence=tracer(190e6),
    )
    assert facts_of(told) == Facts()
    assert facts_of(told).missing == ("age", "height", "weight", "activity")
    assert Facts(height_cm=1.18).filled(Facts(height_cm=118.0)) == Facts(height_cm=118.0)


def test_numbers_say_which_facts_are_known() -> None:
    typical = Facts(age_y=7.0, weight_kg=24.0).numbers()
    assert typical.dtype == np.float32
    # A typical value is 0, as an unknown one is; the indicator tells the two apart.
    np.testing.assert_allclose(typical, [0, 0, 0, 0, 1, 0, 1, 0], atol=1e-6)
    older = Facts(age_y=14.0).numbers()
    assert older[0] > 0.5
    assert older.shape == (NUMBERS,)


def test_one_statement_fills_the_gaps_of_another() -> None:
    assert Facts(age_y=5.0).filled(Facts(age_y=6.0, height_cm=110.0)) == Facts(5.0, 110.0)

from dataclasses import replace

import numpy as np
import pytest

from rbs.description.sentences import TOPICS, Statement
from rbs.description.truth import stands_out, statements_of
from rbs.scans.scan import align
from rbs.synthetic.cohort import Acquisition, Patient, draw_patient, record_of
from rbs.synthetic.skeleton import SPACING_MM, VIEWS


def drawn(seed: int) -> Patient:
    return draw_patient(np.random.SeedSequence(seed), Acquisition())


@pytest.fixture(scope="module")
def child() -> Patient:
    return drawn(5)


def truth(patient: Patient, record: dict) -> dict[str, Statement]:
    found = statements_of(
        record,
        align(patient.phantom.expectation, VIEWS),
        align(patient.phantom.labels, VIEWS),
        SPACING_MM,
    )
    assert all(one in topic.sentences for one, topic in zip(found, TOPICS, strict=True))
    return {topic.name: one for topic, one in zip(TOPICS, found, strict=True)}


def focus(child: Patient, **changes) -> dict:
    row, column = child.phantom.marks["femoral diaphysis +1"]
    usual = {"kind": "hot", "region": "legs", "row": round(row), "column": round(column), "contrast": 4.0}
    return usual | {"fwhm_mm": 15.0, "length_mm": 15.0} | changes


def test_a_whole_child_is_told_of(child) -> None:
    found = truth(child, record_of(child.phantom))
    age = child.phantom.child.age_y
    groups = {"infant": (0, 2), "young child": (2, 6), "school child": (6, 12), "adolescent": (12, 17)}
    low, high = groups[found["<age>"].grade]
    assert low <= age < high
    assert found["<coverage>"].grade == ("outside" if child.phantom.partial else "whole")


def test_foci_are_counted_on_their_side_and_those_that_do_not_stand_out_are_not(child) -> None:
    record = record_of(child.phantom)
    faint = focus(child, fwhm_mm=4.0, length_mm=4.0, contrast=1.5)
    assert not stands_out(faint)
    for lesions, grade in (
        ([], "none"),
        ([faint], "none"),
        ([focus(child)], "one"),
        ([focus(child)] * 3, "a few"),
    ):
        found = truth(child, record | {"lesions": lesions})
        assert found["<hot foci legs left>"].grade == grade
        assert found["<hot foci legs right>"].grade == "none"
    cold = focus(child, kind="cold", contrast=0.2, fwhm_mm=20.0, length_mm=20.0)
    found = truth(child, record | {"lesions": [cold]})
    assert (found["<cold foci legs>"].grade, found["<hot foci legs left>"].grade) == ("some", "none")


def test_a_plate_ten_times_as_bright_is_intense_and_greater_on_its_side(child) -> None:
    row, column = (round(at) for at in child.phantom.marks["distal femoral physis -1"])
    expectation = child.phantom.expectation.copy()
    expectation[0, row - 4 : row + 5, column - 6 : column + 7] *= 10
    brighter = replace(child, phantom=replace(child.phantom, expectation=expectation))
    found = truth(brighter, record_of(child.phantom))
    assert found["<growth plate right>"].grade == "intense"
    assert (found["<comparison>"].side, found["<comparison>"].grade) == ("right", "greater")


def test_what_was_not_scanned_is_said_to_be_outside(child) -> None:
    record = record_of(child.phantom)
    marks = {n: p for n, p in record["landmarks_row_column"].items() if "knee" not in n and "ankle" not in n}
    for name in ("distal femoral physis -1", "distal femoral physis +1"):
        marks.pop(name)
    found = truth(child, record | {"partial": True, "landmarks_row_column": marks})
    assert found["<coverage>"] == Statement("coverage", "legs", grade="outside")
    assert found["<growth plate left>"].grade == found["<comparison>"].grade == "outside"
    assert found["<bladder>"].grade != "outside"


def test_the_injection_site_is_found_among_hot_spots_of_no_focus() -> None:
    for seed, place, side in ((102, "hand", "left"), (107, "elbow", "right")):
        patient = drawn(seed)
        assert patient.phantom.injected
        assert patient.phantom.lesions
        found = truth(patient, record_of(patient.phantom))["<injection site>"]
        assert (found.region, found.side) == (place, side)

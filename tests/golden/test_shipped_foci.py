"""The shipped networks name the foci of an unseen child: seed 4711, on which odds alone were fitted."""

from __future__ import annotations

import json

import pytest

from rbs.clinic.describe_scans import describe_scan
from rbs.description.sentences import LEFT, RIGHT, Statement
from rbs.inference.description import load_scan_describer
from rbs.scans.scan import Scan
from rbs.synthetic.cohort import make_patient
from rbs.synthetic.skeleton import SPACING_MM, VIEWS
from rbs.weights.shipped import DESCRIBER, SEGMENTER, file_sha256

GOLDEN = {Statement("hot foci", "thorax", side, "one"): 0.93 for side in (LEFT, RIGHT)}
"""Sentences on foci of the child and their confidence. It has them, and one in the right leg."""


def test_foci_of_a_child_are_named() -> None:
    child = make_patient(81, seed=4711)
    scan = Scan(child.rapid, VIEWS, (SPACING_MM, SPACING_MM), velocity=40.0)
    described = describe_scan([scan], load_scan_describer())
    found = {one.statement: one.confidence for one in described.sentences if one.statement.kind == "hot foci"}
    assert found == pytest.approx(GOLDEN, abs=0.02), found


def test_the_odds_are_those_of_the_shipped_segmenter() -> None:
    card = json.loads(DESCRIBER.with_suffix(".json").read_text())
    assert card["foci_of_segmenter"] == file_sha256(SEGMENTER), "run scripts/fit_foci.py"

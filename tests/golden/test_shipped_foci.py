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

GOLDEN = {LEFT: 0.90, RIGHT: 0.87}
"""Confidence that there is a focus in the left side of the pelvis; of the mirrored child, in the right.

The child has it, and others in spine, thorax and legs that are not named.
"""


def test_a_focus_of_a_child_is_named_on_its_side() -> None:
    rapid, loaded = make_patient(112, seed=4711).rapid, load_scan_describer()
    for side, counts in ((LEFT, rapid), (RIGHT, rapid[..., ::-1])):
        scan = Scan(counts, VIEWS, (SPACING_MM, SPACING_MM), velocity=40.0)
        said = describe_scan([scan], loaded).sentences
        found = {one.statement: one.confidence for one in said if one.statement.kind == "hot foci"}
        wanted = {Statement("hot foci", "pelvis", side, "one"): GOLDEN[side]}
        assert found == pytest.approx(wanted, abs=0.02), found


def test_the_odds_are_those_of_the_shipped_segmenter() -> None:
    card = json.loads(DESCRIBER.with_suffix(".json").read_text())
    assert card["foci_of_segmenter"] == file_sha256(SEGMENTER), "run scripts/fit_foci.py"

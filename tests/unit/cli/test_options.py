"""Options that commands share: results as JSON."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rbs.cli.options import print_result, within
from rbs.scans.ranges import SPACING, VELOCITY
from rbs.scans.scan import View


@dataclass
class Fit:
    """A result with all that JSON has no word for."""

    file: Path
    view: View
    error: float
    counts: tuple[int, ...]


def test_json_is_one_document_without_nan(capsys) -> None:
    document = {
        "fit": Fit(Path("a.dcm"), View.ANTERIOR, float("nan"), (1, 2)),
        "table": pd.DataFrame({"x": [1.5, np.nan], "n": [1, 2], "name": ["a", None]}),
        "numbers": [np.float32(2), np.int64(3), np.array([np.inf, 1.0]), True, None],
        Path("key"): "text",
    }
    print_result(argparse.Namespace(json=True), document, "for a reader")
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "fit": {"file": "a.dcm", "view": "anterior", "error": None, "counts": [1, 2]},
        "table": [{"x": 1.5, "n": 1, "name": "a"}, {"x": None, "n": 2, "name": None}],
        "numbers": [2.0, 3, [None, 1.0], True, None],
        "key": "text",
    }


def test_without_json_the_text_is_printed(capsys) -> None:
    print_result(argparse.Namespace(json=False), {"a": 1}, "for a reader")
    assert capsys.readouterr().out == "for a reader\n"


@pytest.mark.parametrize("text", ["0", "-1", "1e300", "nan", "inf", "fast"])
def test_a_velocity_or_spacing_out_of_range_is_no_argument(text: str) -> None:
    for possible in (VELOCITY, SPACING):
        with pytest.raises((argparse.ArgumentTypeError, ValueError)):
            within(possible)(text)
    assert within(VELOCITY)("40") == 40.0


def test_text_cannot_steer_the_terminal(capsys) -> None:
    print_result(argparse.Namespace(json=False), None, "caf\udce9\x1b[31m.dcm: 3 counts\nnext")
    assert capsys.readouterr().out == "caf\\udce9\\x1b[31m.dcm: 3 counts\nnext\n"

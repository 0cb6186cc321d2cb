"""Refusals."""

import ast
import pickle
from pathlib import Path

import pytest

import rbs
from rbs.errors import ScanError, printable

HOUSE = Path(rbs.__file__).parent
MINE = sorted(
    path for part in ("scans", "clinic", "node", "cli", "utils") for path in (HOUSE / part).rglob("*.py")
)


@pytest.mark.parametrize("path", MINE, ids=lambda path: str(path.relative_to(HOUSE)))
def test_every_refusal_carries_a_remedy(path: Path) -> None:
    for call in ast.walk(ast.parse(path.read_text())):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            name, given = call.func.id, {keyword.arg for keyword in call.keywords}
            if name in ("RbsError", "ScanError", "OutputError", "CheckpointError", "ManifestError"):
                assert "remedy" in given, f"{path}:{call.lineno}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Müller, 測定, emoji 🦴", "Müller, 測定, emoji 🦴"),
        ("\x1b[2J\x07\r\n", r"\x1b[2J\x07\r\n"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("caf\udce9.dcm", r"caf\udce9.dcm"),
        ("\u2028\u00a0\U000e0041", r"\u2028\xa0\U000e0041"),
    ],
)
def test_what_is_unprintable_is_escaped_once(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    printable(text).encode()


def test_long_text_loses_its_middle() -> None:
    shown = printable("a" * 5000 + "z")
    assert len(shown) <= 1000
    assert shown.startswith("aaa")
    assert shown.endswith("aaz")
    assert printable(shown) == shown
    assert len(printable("a" * 5000, None)) == 5000


def test_errors_are_safe_to_print_also_after_a_worker_process() -> None:
    error = ScanError("it says \x1b[31mred\n", file="caf\udce9\x1b.dcm", remedy="look\u202e")
    error = pickle.loads(pickle.dumps(error))
    assert str(error) == r"caf\udce9\x1b.dcm: it says \x1b[31mred\n; look\u202e."
    assert error.file == Path("caf\udce9\x1b.dcm")
    assert error.fault.isprintable()

"""Refusals."""

import ast
from pathlib import Path

import pytest

import rbs

HOUSE = Path(rbs.__file__).parent
MINE = sorted(path for part in ("scans", "clinic", "cli", "utils") for path in (HOUSE / part).rglob("*.py"))


@pytest.mark.parametrize("path", MINE, ids=lambda path: str(path.relative_to(HOUSE)))
def test_every_refusal_carries_a_remedy(path: Path) -> None:
    for call in ast.walk(ast.parse(path.read_text())):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            name, given = call.func.id, {keyword.arg for keyword in call.keywords}
            if name in ("RbsError", "ScanError", "OutputError", "CheckpointError", "ManifestError"):
                assert "remedy" in given, f"{path}:{call.lineno}"

"""The page of results and README's headline table are what the CSV files of docs/results say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("section", "title", "text", "command", "commit", "seed", "machine", "date", "columns")


@pytest.fixture(scope="module")
def results() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results", ROOT / "scripts" / "results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_files_say(results):
    assert results.PAGE.read_text(encoding="utf-8") == results.page(), "run `make results`"


def test_the_headline_table_of_readme_is_what_the_files_say(results):
    text = results.README.read_text(encoding="utf-8")
    assert text == results.with_block(text), "run `make results`"


def test_every_file_has_provenance_and_every_entry_a_file(results):
    entries = results.index()
    assert {path.stem for path in results.FOLDER.glob("*.csv")} == set(entries)
    for name, entry in entries.items():
        assert all(str(entry.get(field, "")).strip() for field in NEEDED), name


def test_every_column_is_shown(results):
    for name, entry in results.index().items():
        shown = {column + end for column, *_ in entry["columns"] for end in ("", "_low", "_high", "_sd")}
        rows = results.read_rows(name)
        assert all(set(row) <= shown and None not in row.values() for row in rows), name
        assert {column for column, *_ in entry["columns"]} <= set(rows[0]), name


def test_links_to_results_meet_a_heading(results):
    anchors = {results.slug(title) for title in re.findall(r"^#+ (.+)$", results.page(), re.MULTILINE)}
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "rbs" / "weights" / "README.md"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        pattern = r"\]\(#([^)]+)\)" if page == results.PAGE else r"results\.md#([^)\s]+)\)"
        assert set(re.findall(pattern, text)) <= anchors, page.name


@pytest.mark.parametrize(
    ("row", "sign", "digits", "expected"),
    [
        ({"x": "34.9", "x_low": "33.9", "x_high": "36.0"}, "", "", "34.9 (33.9–36.0)"),
        ({"x": "0.06", "x_low": "-0.43", "x_high": "0.52"}, "+", "", "+0.06 (−0.43 to +0.52)"),
        ({"x": "5.2", "x_sd": "0.2"}, "", "", "5.2 ± 0.2"),
        ({"x": "", "x_low": "0.5", "x_high": "2"}, "", "", "0.5–2"),
        ({"x": "38.45"}, "", "1", "38.5"),
        ({"x": "-0.0"}, "+", "", "−0.0"),
        ({"x": "<0.001"}, "+", "1", "<0.001"),
    ],
)
def test_values_are_shown_as_they_stand(results, row, sign, digits, expected):
    assert results.shown(row, "x", sign, digits) == expected


def test_a_place_without_a_value_is_refused(results):
    with pytest.raises(KeyError, match="has no psnr_truth_db of nobody"):
        results.filled("{fresh_children/nobody/psnr_truth_db}")
    with pytest.raises(ValueError, match=r"README\.md lacks"):
        results.with_block("a README without markers")


def test_the_block_stands_between_its_markers(results):
    text = f"before\n{results.BEGIN}\nold numbers\n{results.END}\nafter\n"
    block = results.with_block(text)
    assert block.startswith("before\n")
    assert block.endswith("\nafter\n")
    assert results.readme_block() in block
    assert "old numbers" not in block
    assert results.with_block(block) == block

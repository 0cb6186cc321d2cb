"""The version that a release states: one in the package, the citation and the changelog."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
NEWEST = re.search(r"^## \[(\d[^]]*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


@pytest.fixture
def citation():
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_newest_entry_of_the_changelog_is_this_version():
    assert NEWEST[1] == VERSION


def test_the_citation_names_this_version_and_its_date(citation):
    assert (citation["version"], citation["date-released"]) == (VERSION, NEWEST[2])

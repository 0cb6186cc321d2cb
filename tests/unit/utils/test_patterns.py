"""Regular expressions of users cannot hang a command."""

import pytest

from rbs.errors import RbsError
from rbs.utils import patterns
from rbs.utils.patterns import compiled, search


def test_a_search_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "LONGEST_S", 0.1)
    assert search(compiled("(?P<patient>[0-9]+)_"), "in/0042_A.png")["patient"] == "0042"
    assert search(compiled("b"), "a") is None
    with pytest.raises(RbsError, match=r"\(a\|aa\)\+\$ takes too long on 'a+!'"):
        search(compiled("(a|aa)+$"), "a" * 60 + "!")


@pytest.mark.parametrize("text", ["(", "a{99999999999999999999}", "(" * 10_000])
def test_what_is_no_pattern_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="it is no regular expression"):
        compiled(text)

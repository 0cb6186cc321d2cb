"""Numbers and their nouns."""

from rbs.utils.words import counted


def test_one_has_no_s():
    assert [counted(n, "patient") for n in (0, 1, 2)] == ["0 patients", "1 patient", "2 patients"]

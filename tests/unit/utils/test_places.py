"""Records name files, and not where they lie."""

from pathlib import Path

import pytest

from rbs.utils.places import command_without_places, without_places


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("/home/alice/ward 7/manifest.csv", "manifest.csv"),
        (Path("/home/alice/runs/"), "runs"),
        ("~/scans/a.dcm", "a.dcm"),
        ("../alice/a.dcm", "a.dcm"),
        ("C:\\Users\\alice\\a.dcm", "a.dcm"),
        ("\\\\server\\alice\\a.dcm", "a.dcm"),
        ("--data.manifest=/home/alice/manifest.csv", "--data.manifest=manifest.csv"),
        ("data/phantoms/manifest.csv", "data/phantoms/manifest.csv"),
        ("rbs.tasks.restoration.RestorationTask", "rbs.tasks.restoration.RestorationTask"),
        ("counts/pixel", "counts/pixel"),
        ("", ""),
        (0.5, 0.5),
        (None, None),
    ],
)
def test_of_a_path_the_name_is_kept(value: object, kept: object) -> None:
    assert without_places(value) == kept
    assert without_places({"a": [value, {"b": value}]}) == {"a": [kept, {"b": kept}]}


def test_a_command_stays_one() -> None:
    words = ["rbs", "evaluate", "/home/alice/my scans/m.csv", "--stage1=/srv/w.safetensors", "--seed", "1"]
    assert command_without_places(words) == "rbs evaluate m.csv --stage1=w.safetensors --seed 1"

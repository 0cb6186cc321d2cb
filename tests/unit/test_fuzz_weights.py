"""A few hundred damaged weights and notes (`tests/fuzz_weights.py` takes thousands)."""

from pathlib import Path

import fuzz_weights
import pytest

from rbs.errors import CheckpointError


def test_damaged_files_give_the_same_or_are_refused(tmp_path: Path) -> None:
    outcomes, wrong = fuzz_weights.fuzz(tmp_path, range(250), seed=3)
    assert wrong == []
    for kind in ("restorer", "second restorer", "cascade", "head", "checkpoint", "export"):
        assert outcomes[f"{kind}: refused"] > 5, kind
    for kind in ("prior", "notes"):
        assert outcomes[f"{kind}: as the intact file"] > 5, kind


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda loaded: loaded | {"restored": loaded["restored"] + 1}, "something else than the intact"),
        (lambda loaded: 1 / 0, "ZeroDivisionError"),
        (lambda loaded: (_ for _ in ()).throw(CheckpointError("it is bad")), "a bad refusal"),
        (
            lambda loaded: (_ for _ in ()).throw(CheckpointError("x allocate", file="a", remedy="b")),
            "refusal",
        ),
        (lambda loaded: (__import__("planted_module"), loaded)[1], "it imported what it names"),
    ],
)
def test_the_judge_condemns(fault, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, calls = fuzz_weights._restored, []

    def bad(path: Path) -> object:
        calls.append(path)
        # The first call of each of the two restorers makes what all others are compared with.
        found = good(path)
        return found if len(calls) <= 3 else fault(found) or found

    monkeypatch.setattr(fuzz_weights, "_restored", bad)
    monkeypatch.setattr(fuzz_weights, "_safetensors", lambda path, rng: "nothing")
    _, wrong = fuzz_weights.fuzz(tmp_path, range(12), seed=3)
    assert wrong
    assert all(said in text for text in wrong)

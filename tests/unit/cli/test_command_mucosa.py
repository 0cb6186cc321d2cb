"""`rbs mucosa` on the command line."""

from pathlib import Path


def test_mucosa_is_written_once_and_refusals_are_one_sentence(rbs, tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    status, text, _ = rbs("mucosa", out, "--videos", 3, "--frames", 1, "--size", 64, "--seed", 2)
    assert (status, text) == (0, f"3 videos of 1 frames: {out / 'manifest.csv'}\n")
    assert len(list((out / "images").iterdir())) == len(list((out / "masks").iterdir())) == 3

    status, _, error = rbs("mucosa", out, "--videos", 3, "--frames", 1, "--size", 64, "--seed", 3)
    assert (status, error.count("\n")) == (1, 1)
    assert "repeat the settings named in its mucosa.json" in error

    status, _, error = rbs("mucosa", tmp_path / "two", "--videos", 2)
    assert (status, error.count("\n")) == (1, 1)
    assert "ask for 3 to 999 videos" in error
    assert not (tmp_path / "two").exists()

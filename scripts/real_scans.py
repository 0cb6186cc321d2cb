"""Turn results of `rbs evaluate-real` into the tables of docs/results: means, every view, and foci.

    rbs evaluate-real SCAN... --output OUT
    python scripts/real_scans.py OUT
    make results

Rows and columns are those of OUT: evaluate further weights or scans into the same folder first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from rbs.report.real_scans import FOCI as CLASSES

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "results"
MEANS, VIEWS, FOCI = "real_scans", "real_scans_views", "real_foci"


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="folder of `rbs evaluate-real`")
    results = parser.parse_args().results
    table = pd.read_csv(results / "real_scans.csv")
    means(table).to_csv(FOLDER / f"{MEANS}.csv", index=False)
    foci(table).to_csv(FOLDER / f"{FOCI}.csv", index=False)
    views(pd.read_csv(results / "scores.csv")).to_csv(FOLDER / f"{VIEWS}.csv", index=False)


def means(table: pd.DataFrame) -> pd.DataFrame:
    """A row a method: NC-PSNR and difference to the reference at each speed, mean count bias.

    Args:
        table: real_scans.csv.
    """
    rows: dict[str, dict[str, str]] = {}
    biases = table.groupby("label")["count_bias"].mean()
    for line in table.to_dict("records"):
        label, speed = str(line["label"]), key(str(line["speed"]))
        row = rows.setdefault(label, {"method": label, "count_bias_percent": rounded(biases[label])})
        row[f"nc_psnr_{speed}_db"] = rounded(line["nc_psnr"])
        for end in ("", "_low", "_high"):
            row[f"difference_{speed}_db{end}"] = rounded(line[f"difference{end}"])
    return pd.DataFrame(list(rows.values()))


def views(scores: pd.DataFrame) -> pd.DataFrame:
    """A row a view and speed: NC-PSNR of each method, mean over draws.

    Args:
        scores: scores.csv.
    """
    place = scores["scan"] + ", " + scores["view"] + ", " + scores["speed"]
    table = scores.assign(view=place).groupby(["view", "method"], sort=False)["nc_psnr"].mean().unstack()
    return table.reindex(columns=scores["method"].unique()).map(rounded).reset_index()


def foci(table: pd.DataFrame) -> pd.DataFrame:
    """A row a method: contrast of foci kept at each speed, %.

    Args:
        table: real_scans.csv.
    """
    rows: dict[str, dict[str, str]] = {}
    for line in table.to_dict("records"):
        label, speed = str(line["label"]), key(str(line["speed"]))
        row = rows.setdefault(label, {"method": label})
        for kind in CLASSES:
            for end in ("", "_low", "_high"):
                row[f"{kind}_{speed}_percent{end}"] = rounded(100 * line[f"{kind}_kept{end}"], 0)
    return pd.DataFrame(list(rows.values()))


def key(speed: str) -> str:
    """Speed as a part of a column's name."""
    return speed.removesuffix(" cm/min").replace(" ", "_")


def rounded(value: float, digits: int = 2) -> str:
    """A value as text; empty for NaN."""
    return "" if value != value else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()

"""Learning curves of an ablation's trainings: were they over when they ended?

The learning rate falls to zero at the end of every training, which flattens any curve. A curve that
is flat by the rule here shows that the training came to its end, not that a longer one would come
no further; a curve that still rises shows that it did not even do that.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from rbs.multirun.ablation.definition import NETWORKS, Ablation, Runs
from rbs.report.figures import small_multiples
from rbs.report.tables import training_logs
from rbs.utils.files import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = ("psnr_truth", "nc_psnr", "psnr")
"""Validation scores, the first that a training has is its curve; all in dB."""

LAST_PART, FLAT_DB = 0.25, 0.05
RULE = f"a curve is flat where its last quarter of steps gained less than {FLAT_DB} dB"
COLUMNS = ["regime", "row", "seed", "network", "metric", "step", "value"]


def curves_of(ablation: Ablation, runs: Runs) -> pd.DataFrame:
    """Validation curves of all finished runs.

    Returns:
        Columns regime, row, seed, network, metric, step, value.

    Raises:
        RbsError: A log cannot be read.
    """
    parts = [pd.DataFrame(columns=COLUMNS)]
    for key in (key for key in ablation.keys if key in runs and runs[key].state == "finished"):
        for network, curve in _curves(runs[key].folder).items():
            place: dict[str, Any] = {
                "regime": key.regime,
                "row": key.row,
                "seed": key.seed,
                "network": network,
            }
            parts.append(curve.assign(**place)[COLUMNS])
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def _curves(folder: Path) -> dict[str, pd.DataFrame]:
    """Columns metric, step and value, by network."""
    logs = training_logs(versions(folder, "metrics.csv"))
    table = logs[0].table if logs else pd.DataFrame()
    found = {}
    for network, suffix in zip(NETWORKS, ("", "_f2"), strict=True):
        names = [name for name in METRICS if f"val/{name}{suffix}" in table]
        if names:
            points = table[["step", f"val/{names[0]}{suffix}"]].dropna().set_axis(["step", "value"], axis=1)
            found[network] = points.assign(metric=names[0])
    return found


def last_gains(curves: pd.DataFrame) -> pd.DataFrame:
    """Gain of each curve over its last quarter of steps.

    It is the last value minus the last one at or before three quarters of the steps; NaN of a curve
    without such a point.

    Args:
        curves: As `curves_of` makes them.

    Returns:
        Columns regime, row, seed, network, gain, flat; `flat` is False where the gain is unknown.
    """
    rows = []
    names = ["regime", "row", "seed", "network"]
    for place, curve in curves.groupby(names, sort=False):
        ordered = curve.sort_values("step")
        earlier = ordered[ordered["step"] <= (1 - LAST_PART) * ordered["step"].max()]
        gain = float(ordered["value"].iloc[-1] - earlier["value"].iloc[-1]) if len(earlier) else float("nan")
        rows.append([*place, gain, gain < FLAT_DB])
    return pd.DataFrame(rows, columns=[*names, "gain", "flat"])


def curves_figure(ablation: Ablation, curves: pd.DataFrame) -> Figure | None:
    """A panel a regime and network, a line a row: means over seeds; None without a curve."""
    panels = list(curves.groupby(["regime", "network"], sort=False))
    if not panels:
        return None
    import matplotlib.pyplot as plt

    figure, axes = small_multiples(len(panels), 2, 6.4, 4.2)
    labels = {row.name: row.label for row in ablation.rows}
    regimes = {regime.name: regime.label for regime in ablation.regimes}
    colours = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    rows = list(dict.fromkeys(curves["row"]))
    for axis, ((regime, network), panel) in zip(axes, panels, strict=True):
        for name, lines in panel.groupby("row", sort=False):
            row = str(name)
            mean = lines.groupby("step")["value"].mean()
            place = rows.index(row)
            style = "-" if place < len(colours) else "--"
            colour = colours[place % len(colours)]
            axis.plot(mean.index, mean, style, color=colour, linewidth=1.2, label=labels.get(row, "stage 1"))
        axis.set_title(f"{regimes[str(regime)]}: {network}", fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.set_ylabel(f"{panel['metric'].iloc[0]} of validation, dB", fontsize=8)
        axis.legend(fontsize=5.5, frameon=False, ncols=2)
    figure.tight_layout()
    return figure

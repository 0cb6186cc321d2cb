"""What came of a sweep: sweep.csv, sweep.md, and parallel coordinates as SVG and PNG."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rbs.multirun.runs import Run
from rbs.multirun.sweep.definition import Sweep
from rbs.multirun.sweep.distributions import Parameter
from rbs.multirun.sweep.runner import history, result
from rbs.utils.files import whole_file
from rbs.utils.markdown import markdown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHADES = "viridis"
_DARKEST_TO_BRIGHTEST = 0.9
"""The share of the colours that is used: the brightest yellow is lost on white."""


def write_results(sweep: Sweep, runs: Sequence[Run], output: Path) -> pd.DataFrame:
    """Write tables and figure of all runs so far.

    Returns:
        The table, best run first: run, state, the metric's last value, iterations, minutes,
        parameters.
    """
    table = results_table(sweep, runs)
    with whole_file(output / "sweep.csv", overwrite=True) as path:
        table.to_csv(path, index=False)
    with whole_file(output / "sweep.md", overwrite=True) as path:
        path.write_text(_page(sweep, runs, table), encoding="utf-8")
    figure = parallel_coordinates(sweep, table)
    if figure is not None:
        for kind in ("svg", "png"):
            with whole_file(output / f"sweep.{kind}", overwrite=True) as path:
                figure.savefig(path, dpi=150, bbox_inches="tight")
    return table


def results_table(sweep: Sweep, runs: Sequence[Run]) -> pd.DataFrame:
    """See `write_results`."""
    metric = sweep.metric.name if sweep.metric else ""
    rows = [
        {
            "run": run.folder.name,
            "state": run.state,
            **({metric: result(sweep, run)} if metric else {}),
            **({"iterations": len(history(run.folder, metric))} if metric else {}),
            "minutes": round(run.seconds / 60, 2),
            **{p.name: run.about["values"][p.name] for p in sweep.parameters},
        }
        for run in runs
    ]
    table = pd.DataFrame(rows)
    if sweep.metric is None or table.empty:
        return table
    # A stopped run's last value is an early one: it stands below all that finished.
    table[metric] = pd.to_numeric(table[metric])
    order = table.assign(_early=table["state"] != "finished").sort_values(
        ["_early", metric], ascending=[True, not sweep.metric.maximise], kind="stable"
    )
    return order.drop(columns="_early").reset_index(drop=True)


def _page(sweep: Sweep, runs: Sequence[Run], table: pd.DataFrame) -> str:
    counted = ", ".join(f"{n} {state}" for state, n in Counter(run.state for run in runs).items())
    goal = ""
    if sweep.metric:
        goal = f"; {'maximise' if sweep.metric.maximise else 'minimise'} `{sweep.metric.name}` (last value)"
    text = f"# {sweep.name}\n\n`{sweep.file.name}`, {sweep.method}{goal}. Runs: {counted}.\n\n"
    text += markdown(list(table.columns), [[_cell(value) for value in row] for row in table.to_numpy()])
    best = table[table["state"] == "finished"].head(1) if sweep.metric else table[:0]
    for name in best.get("run", []):
        run = next(run for run in runs if run.folder.name == name)
        text += f"\nThe best run that finished, {name}:\n\n    {shlex.join(run.command)}\n"
    return text


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def parallel_coordinates(sweep: Sweep, table: pd.DataFrame) -> Figure | None:
    """A line a run through its values of all parameters to its metric; None where there is nothing to draw.

    Early-stopped runs are dashed: their metric is of an earlier iteration.
    """
    from matplotlib import colormaps
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    if sweep.metric is None or table.empty or not table[sweep.metric.name].notna().any():
        return None
    metric = sweep.metric.name
    drawn = table[table[metric].notna()]
    varied = [p for p in sweep.parameters if drawn[p.name].map(str).nunique() > 1]
    scales = [_Scale(p.name, list(drawn[p.name]), p) for p in varied]
    scales.append(_Scale(metric, [float(value) for value in drawn[metric]], None))
    figure = Figure(figsize=(2.2 * max(2, len(scales)), 3.6))
    axes = figure.add_subplot()
    shade = Normalize(drawn[metric].min(), drawn[metric].max())
    # The best are drawn last, on top.
    order = np.argsort(drawn[metric].to_numpy() * (1 if sweep.metric.maximise else -1), kind="stable")
    for row in order:
        axes.plot(
            range(len(scales)),
            [scale.heights[row] for scale in scales],
            color=colormaps[_SHADES](_DARKEST_TO_BRIGHTEST * shade(drawn[metric].iloc[row])),
            linestyle="-" if drawn["state"].iloc[row] == "finished" else (0, (4, 3)),
            linewidth=1.6,
        )
    for place, scale in enumerate(scales):
        scale.draw(axes, place)
    axes.set(xlim=(-0.15, len(scales) - 0.55), ylim=(-0.06, 1.06))
    axes.set_xticks(range(len(scales)), [_short(scale.name) for scale in scales])
    axes.tick_params(axis="x", length=0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    aim = "higher" if sweep.metric.maximise else "lower"
    axes.set_title(f"{sweep.name}: {aim} {metric} is better; dashed: stopped early", fontsize=9, loc="left")
    return figure


class _Scale:
    """One upright axis: heights from 0 to 1, and the labels beside it.

    Args:
        name: As printed.
        values: A value a run.
        parameter: Of what; None for the metric.
    """

    def __init__(self, name: str, values: list[Any], parameter: Parameter | None) -> None:
        self.name = name
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        listed = parameter is not None and "values" in parameter.settings
        if not numbers or listed:
            kinds = list(dict.fromkeys(map(str, parameter.settings["values"] if listed else values)))  # type: ignore[union-attr]
            places = {kind: i / max(1, len(kinds) - 1) for i, kind in enumerate(kinds)}
            self.heights = [places[str(value)] for value in values]
            self.labels = [(places[kind], kind) for kind in kinds]
            return
        logarithmic = parameter is not None and parameter.logarithmic and min(values) > 0
        at = [math.log(v) if logarithmic else float(v) for v in values]
        low, span = min(at), (max(at) - min(at)) or 1.0
        self.heights = [(v - low) / span for v in at]
        marks = [low + span * share for share in (0, 0.25, 0.5, 0.75, 1)]
        ticks = [math.exp(mark) if logarithmic else mark for mark in marks]
        digits = next((d for d in range(3, 9) if len({f"{t:.{d}g}" for t in ticks}) == len(ticks)), 9)
        self.labels = [((m - low) / span, f"{t:.{digits}g}") for m, t in zip(marks, ticks, strict=True)]

    def draw(self, axes: Axes, place: int) -> None:
        axes.plot([place, place], [0, 1], color="0.4", linewidth=0.8, zorder=0)
        for height, label in self.labels:
            axes.annotate(
                label,
                (place, height),
                xytext=(3, 0),
                textcoords="offset points",
                fontsize=7,
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            )


def _short(name: str) -> str:
    """A parameter as its axis is named: what all of them begin with says nothing."""
    return name.replace("init_args.", "").removeprefix("model.")

"""Results of a sweep: sweep.csv, sweep.md, and parallel coordinates as SVG and PNG."""

from __future__ import annotations

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
from rbs.multirun.sweep.runner import history
from rbs.report.searches import printed_column
from rbs.utils.files import whole_file, write_text
from rbs.utils.markdown import markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHADES = "viridis"
_BRIGHTEST = 0.9
"""Part of the colour map that is used: its brightest yellow is lost on white."""


def write_results(sweep: Sweep, runs: Sequence[Run], output: Path) -> pd.DataFrame:
    """Write tables and figure of all runs so far.

    Returns:
        The table, best run first: run, state, the metric's last value, iterations, minutes,
        parameters.
    """
    table = results_table(sweep, runs)
    with whole_file(output / "sweep.csv", overwrite=True) as path:
        table.to_csv(path, index=False)
    write_text(output / "sweep.md", _page(sweep, runs, table))
    figure = parallel_coordinates(sweep, table)
    if figure is not None:
        for kind in ("svg", "png"):
            with whole_file(output / f"sweep.{kind}", overwrite=True) as path:
                figure.savefig(path, dpi=150, bbox_inches="tight")
    return table


def results_table(sweep: Sweep, runs: Sequence[Run]) -> pd.DataFrame:
    """See `write_results`."""
    rows = []
    for run in runs:
        row: dict[str, Any] = {"run": run.folder.name, "state": run.state}
        if sweep.metric:
            values = history(run.folder, sweep.metric.name)
            row |= {sweep.metric.name: values[-1] if values else None, "iterations": len(values)}
        rows.append(row | {"minutes": round(run.seconds / 60, 2), **run.about["values"]})
    table = pd.DataFrame(rows)
    if sweep.metric is None or table.empty:
        return table
    # A stopped run's last value is an early one: it stands below all that finished.
    metric = sweep.metric.name
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
    text = f"# {sweep.title}\n\n`{sweep.file.name}`, {sweep.method}{goal}. Runs: {counted}.\n\n"
    columns = [printed_column(table[name]) for name in table]
    text += markdown(list(table.columns), list(zip(*columns, strict=True)))
    best = table[table["state"] == "finished"].head(1) if sweep.metric else table[:0]
    for name in best.get("run", []):
        run = next(run for run in runs if run.folder.name == name)
        text += f"\nThe best run that finished, {name}:\n\n    {shlex.join(run.command)}\n"
    return text


def parallel_coordinates(sweep: Sweep, table: pd.DataFrame) -> Figure | None:
    """A line a run through its parameters to its metric; None where no run has a value.

    Early-stopped runs are dashed: their metric is of an earlier iteration.
    """
    from matplotlib import colormaps
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    if sweep.metric is None or table.empty or not table[sweep.metric.name].notna().any():
        return None
    metric = sweep.metric.name
    # The best are drawn last, on top.
    drawn = table[table[metric].notna()].sort_values(metric, ascending=sweep.metric.maximise, kind="stable")
    varied = [p for p in sweep.parameters if drawn[p.name].map(str).nunique() > 1]
    axes_ = [(p.name, *_axis(list(drawn[p.name]), p)) for p in varied]
    axes_.append((metric, *_axis(list(drawn[metric]), None)))
    figure = Figure(figsize=(2.2 * max(2, len(axes_)), 3.6))
    axes = figure.add_subplot()
    shade = Normalize(drawn[metric].min(), drawn[metric].max())
    for row, (state, value) in enumerate(zip(drawn["state"], drawn[metric], strict=True)):
        axes.plot(
            [heights[row] for _, heights, _ in axes_],
            color=colormaps[_SHADES](_BRIGHTEST * shade(value)),
            linestyle="-" if state == "finished" else (0, (4, 3)),
            linewidth=1.6,
        )
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}
    for place, (_, _, ticks) in enumerate(axes_):
        axes.plot([place, place], [0, 1], color="0.4", linewidth=0.8, zorder=0)
        for height, label in ticks:
            axes.text(place + 0.02, height, label, fontsize=7, va="center", bbox=box)
    # What all parameters begin with tells none apart.
    names = [name.replace("init_args.", "").removeprefix("model.") for name, _, _ in axes_]
    axes.set_xticks(range(len(axes_)), names)
    axes.set(xlim=(-0.15, len(axes_) - 0.55), ylim=(-0.06, 1.06), yticks=[])
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)
    aim = "higher" if sweep.metric.maximise else "lower"
    axes.set_title(f"{sweep.title}: {aim} {metric} is better; dashed: stopped early", fontsize=9, loc="left")
    return figure


def _axis(values: list[Any], parameter: Parameter | None) -> tuple[list[float], list[tuple[float, str]]]:
    """One upright axis: heights of the values from 0 to 1, and (height, label) of its ticks."""
    from matplotlib.colors import LogNorm, Normalize

    listed = list(map(str, parameter.values)) if parameter and parameter.categorical else []
    if listed or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        listed = list(dict.fromkeys(listed or map(str, values)))
        heights = np.linspace(0, 1, len(listed)) if len(listed) > 1 else np.zeros(1)
        places = dict(zip(listed, heights.tolist(), strict=True))
        return [places[str(value)] for value in values], [(height, name) for name, height in places.items()]
    logarithmic = parameter is not None and parameter.logarithmic and min(values) > 0
    norm = (LogNorm if logarithmic else Normalize)(min(values), max(values))
    marks = np.linspace(0, 1, 5)
    labels = printed_column(pd.Series(np.asarray(norm.inverse(marks), dtype=float)))
    return np.asarray(norm(values)).tolist(), list(zip(marks.tolist(), labels, strict=True))

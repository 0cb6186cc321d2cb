"""The benchmark's one table: how well each method restores, what that costs, and how to make it again."""

from __future__ import annotations

import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rbs.errors import CheckpointError
from rbs.evaluation.endoscopy.metrics import FrameTarget
from rbs.evaluation.endoscopy.pairs import FramePair
from rbs.evaluation.methods import Method, restorer_method
from rbs.evaluation.peers import Classical
from rbs.evaluation.scans.classical import available
from rbs.evaluation.scans.metrics import Target
from rbs.evaluation.scans.pairs import ScanPair
from rbs.report.tables import Evaluation
from rbs.restorers.base import Restorer
from rbs.restorers.checkpoint import load_restorer
from rbs.utils.files import versions, whole_file
from rbs.utils.markdown import latex, markdown

Array = npt.NDArray[Any]
Restore = Callable[[Any], Array]

SHAPE = (2, 1024, 256)
"""Views, rows and columns of the scan that costs are measured on."""
FRAME_SHAPE = (3, 256, 320)
"""Colours, rows and columns of the frame that costs are measured on."""

REPEATS, LONG_S = 3, 20.0
"""A restoration is timed so many times, or until that many seconds have gone."""

FILE = "benchmark"
"""Stem of the tables: .csv holds all, .md and .tex what fits on a page."""


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        folder: Where `rbs fit` wrote it.
        weights: Its restorer.safetensors.
        config: The configuration it was made with, complete.
    """

    folder: Path
    weights: Path
    config: Path

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Find what a finished training left.

        Raises:
            CheckpointError: It left no weights, or no configuration.
        """
        weights = folder / "restorer.safetensors"
        if not weights.is_file():
            remedy = "train it with `make benchmark`, which goes on where a training was interrupted"
            raise CheckpointError(
                "it holds no restorer.safetensors of a finished training", file=folder, remedy=remedy
            )
        configs = versions(folder, "config.yaml")
        if not configs:
            raise CheckpointError(
                "it holds no version_*/config.yaml, so nobody can tell how its weights were made",
                file=folder,
                remedy="name the folder that `rbs fit` wrote",
            )
        return cls(folder, weights, configs[-1])

    def method(self) -> Method:
        """Its row of the table, named as its folder.

        Raises:
            CheckpointError: The weights cannot be used.
        """
        loaded = load_restorer(self.weights)
        name = self.folder.name
        return restorer_method(name, f"{name} ({type(loaded.restorer).__name__})", loaded)


@dataclass(frozen=True)
class Cost:
    """What restoring one scan of `SHAPE`, or one frame of `FRAME_SHAPE`, takes on this machine.

    Attributes:
        seconds: Median time, s, of up to `REPEATS` restorations after one that is not counted.
        memory_mb: Peak memory, MB: what a process holds that does nothing else, or on a GPU, what
            is allocated there.
        parameters: Number of weights; None without a network.
        macs: Multiply-adds of convolutions, matrix products and attention: half of what PyTorch's
            counter of floating-point operations says. All steps and tiles of an iterative restorer
            count; elementwise operations and normalisations do not. None without a network.
    """

    seconds: float
    memory_mb: float
    parameters: int | None = None
    macs: int | None = None


def cost_of(job: Path | Restore, shape: tuple[int, int, int] = SHAPE) -> Cost:
    """Measure in a fresh process, where nothing else is in memory.

    Args:
        job: Weights of a restorer; or a function that can be pickled.
        shape: Views or colours, rows and columns.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, job, shape).result()


def _measure(job: Path | Restore, shape: tuple[int, int, int]) -> Cost:
    pair = example(shape)
    parameters = macs = None
    restore: Restore
    if isinstance(job, Path):
        loaded = load_restorer(job)
        parameters = sum(weight.numel() for weight in loaded.restorer.parameters())
        macs = multiply_adds(loaded.restorer, shape)
        restore = restorer_method("", "", loaded).restore
    else:
        restore = job
    restore(pair)
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < LONG_S:
        start = time.perf_counter()
        restore(pair)
        times.append(time.perf_counter() - start)
    return Cost(statistics.median(times), _peak_memory_mb(), parameters, macs)


def example(shape: tuple[int, int, int] = SHAPE) -> ScanPair | FramePair:
    """A rapid scan of one count a pixel, or a noisy frame; no restorer here takes longer for another."""
    rng = np.random.default_rng(0)
    if shape[0] == FRAME_SHAPE[0]:
        frame = rng.random(shape, np.float32)
        return FramePair("example", frame, FrameTarget(frame, np.ones(shape[1:], bool)))
    target = Target(rng.poisson(2.0, shape), 1.0, (2.26, 2.26))
    return ScanPair("example", rng.poisson(1.0, shape), 0.5, target)


def multiply_adds(restorer: Restorer, shape: tuple[int, int, int] = SHAPE) -> int:
    """Multiply-adds of restoring one scan or frame; see `Cost`."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    x, exposure = torch.ones(1, *shape), torch.full((1,), 0.5)
    # Not in inference mode, which hides linear layers from the counter.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        restorer.eval()(x, exposure)
    return counter.get_total_flops() // 2


def _peak_memory_mb() -> float:
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands ru_maxrss on to a process that is spawned: the peak would be that of who
        # spawned it.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def machine() -> str:
    """What costs were measured on."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} threads of a CPU ({platform.machine()}), PyTorch {torch.__version__}"


def measure_costs(evaluation: Evaluation, runs: list[Run]) -> dict[str, Cost]:
    """What each classical peer, as it was tuned, and each run costs; by name of the method."""
    from tqdm import tqdm

    jobs: dict[str, Path | Restore] = {run.folder.name: run.weights for run in runs}
    tuned = {method["name"]: method["settings"] for method in evaluation.settings["methods"]}
    for peer in _classical(evaluation):
        if peer.name in tuned:
            jobs[peer.name] = partial(peer.restore, **{peer.parameter: tuned[peer.name][peer.parameter]})
    bar = tqdm(jobs.items(), desc="measuring costs", unit="method")
    return {name: cost_of(job, _shape(evaluation)) for name, job in bar}


def _classical(evaluation: Evaluation) -> tuple[Classical, ...]:
    if not evaluation.of_frames:
        return available()
    from rbs.evaluation.endoscopy.classical import peers

    return peers(evaluation.settings["preset"])


def _shape(evaluation: Evaluation) -> tuple[int, int, int]:
    """Of the image that costs are measured on."""
    return FRAME_SHAPE if evaluation.of_frames else SHAPE


def table(evaluation: Evaluation, runs: list[Run], costs: dict[str, Cost]) -> pd.DataFrame:
    """A row a method: every metric with its interval, costs, and what it was made with.

    Args:
        evaluation: Of all methods.
        runs: The trained ones.
        costs: By name of the method.

    Returns:
        Columns method, label; for each metric NAME, NAME_low, NAME_high; parameters, macs, seconds,
        memory_mb, steps, sha256, config, command.
    """
    described = {method["name"]: method for method in evaluation.settings["methods"]}
    labels = evaluation.references | evaluation.labels
    by_name = {run.folder.name: run for run in runs}
    rows = []
    for name, scores in evaluation.summary.groupby("method", sort=False):
        row: dict[str, Any] = {"method": name, "label": labels.get(str(name), name)}
        for metric, mean, low, high in scores[["metric", "mean", "low", "high"]].itertuples(index=False):
            row |= {metric: mean, f"{metric}_low": low, f"{metric}_high": high}
        if str(name) in costs:
            row |= vars(costs[str(name)])
        settings = described.get(name, {}).get("settings", {})
        row |= {"steps": settings.get("steps"), "sha256": settings.get("sha256")}
        if str(name) in by_name:
            config = by_name[str(name)].config
            row |= {"config": str(config), "command": f"rbs fit --config {config}"}
        rows.append(row)
    return pd.DataFrame(rows)


def write(output: Path, rows: pd.DataFrame, evaluation: Evaluation) -> None:
    """Write the table as benchmark.csv, .md and .tex.

    Args:
        output: Folder.
        rows: As `table` makes them.
        evaluation: What they are of.

    Raises:
        OutputError: A file cannot be written.
    """
    shown = printed(rows, evaluation)
    units, image = evaluation.units, "frame" if evaluation.of_frames else "scan"
    note = (
        f"Mean over {evaluation.settings['patients']} {units} (95 % bootstrap interval over {units});"
        f" {evaluation.settings['aggregation']}. Costs of one {image} of"
        f" {' x '.join(map(str, _shape(evaluation)))} pixels on {machine()}: multiply-adds of convolutions,"
        " matrix products and attention; median time; peak memory of a process that does nothing else (of the"
        " GPU where there is one)."
        f" Made by: {evaluation.settings['command']}"
    )
    head, lines = list(shown.columns), shown.to_numpy().tolist()
    comment = "".join(f"% {line}\n" for line in note.splitlines())
    for suffix, text in (("md", f"{markdown(head, lines)}\n{note}\n"), ("tex", comment + latex(head, lines))):
        with whole_file(output / f"{FILE}.{suffix}", overwrite=True) as path:
            path.write_text(text, encoding="utf-8")
    with whole_file(output / f"{FILE}.csv", overwrite=True) as path:
        rows.to_csv(path, index=False, float_format="%.7g")


def printed(rows: pd.DataFrame, evaluation: Evaluation) -> pd.DataFrame:
    """The columns that fit on a page, as text."""
    columns: dict[str, list[str]] = {"Method": [str(label) for label in rows["label"]]}
    for metric in evaluation.settings["metrics"]:
        name = metric["name"]
        if metric.get("printed", True) and name in rows:
            # SSIM needs a third digit, decibels and percents do not.
            digits = 2 if metric["unit"] else 3
            head = f"{metric['label']}, {metric['unit']}" if metric["unit"] else metric["label"]
            values = rows[[name, f"{name}_low", f"{name}_high"]].to_numpy(dtype=float)
            columns[head] = [_interval(mean, low, high, digits) for mean, low, high in values]
    if evaluation.of_frames and "seconds" in rows:
        rows = rows.assign(rate=1 / rows["seconds"])
    for name, head, unit, digits in (
        ("parameters", "Parameters, M", 1e6, 2),
        ("macs", "Multiply-adds, G", 1e9, 0),
        ("seconds", "ms a frame", 1e-3, 0) if evaluation.of_frames else ("seconds", "s a scan", 1, 2),
        ("rate", "Frames a second", 1, 1),
        ("memory_mb", "Peak memory, GB", 1e3, 2),
    ):
        if name in rows:
            columns[head] = ["" if pd.isna(value) else f"{value / unit:.{digits}f}" for value in rows[name]]
    for name, head, length in (("sha256", "SHA-256", 12), ("config", "Configuration", None)):
        if name in rows:
            columns[head] = ["" if pd.isna(value) else str(value)[:length] for value in rows[name]]
    return pd.DataFrame(columns)


def _interval(mean: float, low: float, high: float, digits: int) -> str:
    if pd.isna(mean):
        return ""
    return f"{mean:.{digits}f}" + ("" if pd.isna(low) else f" ({low:.{digits}f} to {high:.{digits}f})")

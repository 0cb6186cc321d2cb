"""Benchmark: one table of the quality, the cost and the origin of each method."""

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
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rbs.evaluation.methods import Method, restorer_method
from rbs.evaluation.peers import Classical
from rbs.evaluation.scans.classical import available
from rbs.evaluation.scans.metrics import Target
from rbs.evaluation.scans.pairs import ScanPair
from rbs.multirun.runs import Training
from rbs.report.tables import Evaluation
from rbs.restorers.base import Restorer
from rbs.restorers.checkpoint import load_restorer
from rbs.scans.scan import Array
from rbs.utils.files import whole_file, write_text
from rbs.utils.markdown import latex, markdown
from rbs.utils.words import counted

if TYPE_CHECKING:
    from rbs.evaluation.endoscopy.pairs import FramePair

Restore = Callable[[Any], Array]

SHAPE = (2, 1024, 256)
"""Views, rows and columns of the scan that costs are measured on."""
FRAME_SHAPE = (3, 256, 320)
"""Colours, rows and columns of the frame that costs are measured on."""

REPEATS, LONG_S = 3, 20.0
"""A restoration is timed so many times, or until that many seconds have gone."""

FILE = "benchmark"
"""Stem of the tables: .csv holds all, .md and .tex what fits on a page."""


def method_of(training: Training) -> Method:
    """A training as a row of the table, named as its folder.

    Raises:
        CheckpointError: The weights cannot be used.
    """
    loaded = load_restorer(training.weights)
    name = training.folder.name
    return restorer_method(name, f"{name} ({type(loaded.restorer).__name__})", loaded)


@dataclass(frozen=True)
class Cost:
    """Cost of restoring one scan of `SHAPE`, or one frame of `FRAME_SHAPE`, on this machine.

    Attributes:
        seconds: Median time, s, of up to `REPEATS` restorations after one that is not counted.
        memory_mb: Peak memory, MB, of a process that does nothing else; on a GPU, of what is
            allocated there.
        parameters: Number of weights; None without a network.
        macs: Multiply-adds of convolutions, matrix products and attention: half the floating-point
            operations that PyTorch counts. All steps and tiles of an iterative restorer count;
            elementwise operations and normalisations do not. None without a network.
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
    restore: Any = job
    if isinstance(job, Path):
        loaded = load_restorer(job)
        parameters = sum(weight.numel() for weight in loaded.restorer.parameters())
        macs = multiply_adds(loaded.restorer, shape)
        restore = restorer_method("", "", loaded).restore
    restore(pair)
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < LONG_S:
        start = time.perf_counter()
        restore(pair)
        times.append(time.perf_counter() - start)
    return Cost(statistics.median(times), _peak_memory_mb(), parameters, macs)


def example(shape: tuple[int, int, int] = SHAPE) -> ScanPair | FramePair:
    """A rapid scan of one count a pixel, or a noisy frame; times do not depend on the content."""
    rng = np.random.default_rng(0)
    if shape[0] == FRAME_SHAPE[0]:
        # Imported here, for it brings Lightning along, which a process that measures need not load.
        from rbs.evaluation.endoscopy.metrics import FrameTarget
        from rbs.evaluation.endoscopy.pairs import FramePair

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
        # Linux passes ru_maxrss on to a spawned process: it would be the peak of the process that
        # spawned it.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def machine() -> str:
    """Name of the processor or GPU, for tables of costs."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} threads of a CPU ({platform.machine()}), PyTorch {torch.__version__}"


def measure_costs(evaluation: Evaluation, trainings: list[Training]) -> dict[str, Cost]:
    """Cost of each classical peer, as it was tuned, and of each training; by name of the method."""
    from tqdm import tqdm

    jobs: dict[str, Path | Restore] = {training.folder.name: training.weights for training in trainings}
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
    """Shape of the image that costs are measured on."""
    return FRAME_SHAPE if evaluation.of_frames else SHAPE


def table(evaluation: Evaluation, trainings: list[Training], costs: dict[str, Cost]) -> pd.DataFrame:
    """A row a method: every metric with its interval, costs, and origin.

    Args:
        evaluation: Evaluation of all methods.
        trainings: The trained ones.
        costs: By name of the method.

    Returns:
        Columns method, label; for each metric NAME, NAME_low, NAME_high; parameters, macs, seconds,
        memory_mb, steps, sha256, config, command.
    """
    settings = {method["name"]: method["settings"] for method in evaluation.settings["methods"]}
    labels = evaluation.references | evaluation.labels
    configs = {training.folder.name: training.config for training in trainings}
    rows = []
    for name, scores in evaluation.summary.groupby("method", sort=False):
        row: dict[str, Any] = {"method": name, "label": labels.get(str(name), name)}
        for metric, mean, low, high in scores[["metric", "mean", "low", "high"]].itertuples(index=False):
            row |= {metric: mean, f"{metric}_low": low, f"{metric}_high": high}
        row |= vars(costs[str(name)]) if str(name) in costs else {}
        row |= {key: settings.get(name, {}).get(key) for key in ("steps", "sha256")}
        if config := configs.get(str(name)):
            row |= {"config": str(config), "command": f"rbs fit --config {config}"}
        rows.append(row)
    return pd.DataFrame(rows)


def write(output: Path, rows: pd.DataFrame, evaluation: Evaluation) -> None:
    """Write the table as benchmark.csv, .md and .tex.

    Args:
        output: Folder.
        rows: As `table` makes them.
        evaluation: Evaluation of all methods.

    Raises:
        OutputError: A file cannot be written.
    """
    units, image = evaluation.units, "frame" if evaluation.of_frames else "scan"
    note = (
        f"Mean over {counted(evaluation.settings['patients'], units.removesuffix('s'))} (95 % bootstrap"
        f" interval over {units}); {evaluation.settings['aggregation']}. Costs of one {image} of"
        f" {' x '.join(map(str, _shape(evaluation)))} pixels on {machine()}: multiply-adds of convolutions,"
        " matrix products and attention; median time; peak memory of a process that does nothing else (of the"
        f" GPU where there is one). Made by: {evaluation.settings['command']}"
    )
    with whole_file(output / f"{FILE}.csv", overwrite=True) as path:
        rows.to_csv(path, index=False, float_format="%.7g")
    shown = printed(rows, evaluation)
    head, lines = list(shown.columns), shown.to_numpy().tolist()
    comment = "".join(f"% {line}\n" for line in note.splitlines())
    for suffix, text in (("md", f"{markdown(head, lines)}\n{note}\n"), ("tex", comment + latex(head, lines))):
        write_text(output / f"{FILE}.{suffix}", text)


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
            columns[head] = rows[name].fillna("").astype(str).str[:length].tolist()
    return pd.DataFrame(columns)


def _interval(mean: float, low: float, high: float, digits: int) -> str:
    if pd.isna(mean):
        return ""
    return f"{mean:.{digits}f}" + ("" if pd.isna(low) else f" ({low:.{digits}f} to {high:.{digits}f})")

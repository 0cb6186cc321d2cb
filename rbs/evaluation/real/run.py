"""Evaluation of methods on slow real scans, restoration by restoration, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rbs.errors import RbsError
from rbs.evaluation.methods import Method
from rbs.evaluation.real.foci import DEFINITION, focus_contrasts
from rbs.evaluation.real.pictures import write_pictures
from rbs.evaluation.real.record import Job, Record
from rbs.evaluation.real.scans import RealScan, Speed
from rbs.evaluation.real.tables import best_peer, summarise
from rbs.evaluation.run import now, write
from rbs.evaluation.scans.metrics import PEAK_DEFINITION
from rbs.evaluation.scans.pairs import ScanPair
from rbs.report.real_scans import TABLE, as_markdown, read_real_scans
from rbs.scans.body import MASK_DEFINITION
from rbs.scans.fidelity import count_bias, decibels, noise_corrected_mse
from rbs.scans.scan import Array
from rbs.utils.files import claim_folder, write_text
from rbs.utils.version import VERSION

MARK = "evaluate-real.json"
DEFINITIONS = {
    "peak": f"{PEAK_DEFINITION}; here of all counts that the rapid scan does not hold",
    "mask": f"{MASK_DEFINITION}; likewise; of a scan whose lowest counts an export cut, NC-PSNR leaves out "
    "the pixels that may well have been cut",
    "nc_psnr": "of a view: 10 log10(P² / (mean((T - Q/q)²) - mean(Q)/q²)) over the body in that view, Q the "
    "counts that the rapid scan does not hold, at the exposure q, and P the peak of both views",
    "foci": DEFINITION,
    "aggregation": "mean of dB over the draws of a view, then over the views of a scan, then over scans; "
    "95 % bootstrap that resamples scans, views and draws",
    "seed": "the number of the draw, mixed with the counts of the scan and the speed",
}


def evaluate_real(
    scans: Sequence[RealScan],
    speeds: Sequence[Speed],
    draws: int,
    peers: Sequence[Method],
    trained: Sequence[Method],
    output: Path,
    *,
    against: str | None = None,
    command: str = "",
) -> pd.DataFrame:
    """Thin slow scans to faster ones, restore these, and compare with all counts left over.

    Writes scores.csv, real_scans.csv and .md, pictures/SCAN.png and, last, settings.json. What was
    restored before into the same folder is not restored again, whatever else is asked for: an
    interrupted evaluation goes on, and another method or scan costs its own restorations alone.

    Args:
        scans: The scans.
        speeds: Speeds; a scan is thinned to those faster than itself.
        draws: Rapid scans drawn of each scan and speed.
        peers: The scaled rapid scan and classical peers.
        trained: Restorers.
        output: Folder, new, empty or of an earlier evaluation of real scans.
        against: Method that all others are compared with; None for the best peer.
        command: The command line, for the settings.

    Returns:
        The table, as `rbs.evaluation.real.tables.summarise` makes it.

    Raises:
        OutputError: `output` holds something else, or cannot be written.
        RbsError: `against` is no method, or two methods have one name.
    """
    from tqdm import tqdm

    methods = [*peers, *trained]
    names = [method.name for method in methods]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RbsError(f"two methods are called '{twice}'", remedy="rename the file of weights")
    if against is not None and against not in names:
        raise RbsError(f"there is no method '{against}'", remedy=f"compare with one of {', '.join(names)}")
    claim_folder(output, MARK, {"evaluate-real": 1}, other="results of another version")
    record = Record(output / "restorations")
    jobs = list_jobs(scans, speeds, draws, methods)
    for job in tqdm(jobs, desc="evaluating", unit="restoration"):
        if record.scores(job) is None:
            pair = job.scan.pair(job.speed, job.draw)
            estimate = job.method.restore(pair)
            record.save(job, score(estimate, pair), estimate)
    rows = [_columns(job) | row for job in jobs for row in record.scores(job) or ()]
    scores = pd.DataFrame(rows)
    reference = against or best_peer(scores, [peer.name for peer in peers])
    labels = {method.name: method.label for method in methods}
    table = summarise(scores, labels, reference)
    settings = {
        "rbs": VERSION,
        "written": now(),
        "scans": [_describe(scan) for scan in scans],
        "speeds": [speed.label for speed in speeds],
        "draws": draws,
        "methods": [method.describe() for method in methods],
        "reference": {"name": reference, "label": labels[reference], "asked for": against is not None},
        "pictures": write_pictures(output / "pictures", jobs, record),
        "command": command,
        **DEFINITIONS,
    }
    write(output, {"scores": scores, TABLE: table}, settings)
    write_text(output / f"{TABLE}.md", as_markdown(read_real_scans(output)))
    return table


def list_jobs(
    scans: Sequence[RealScan], speeds: Sequence[Speed], draws: int, methods: Sequence[Method]
) -> list[Job]:
    """All restorations, draw by draw: an interrupted evaluation has fewer draws of all scans.

    The first draw at the first speed of each scan is pictured.
    """
    return [
        Job(scan, speed, draw, method, pictured=draw == 1 and speed == scan.speeds(speeds)[0])
        for draw in range(1, draws + 1)
        for scan in scans
        for speed in scan.speeds(speeds)
        for method in methods
    ]


def score(estimate: Array, pair: ScanPair) -> list[dict[str, Any]]:
    """Scores of a restoration, standard counts (V, H, W), one entry a view."""
    target, rows, foci = pair.target, [], focus_contrasts(estimate, pair)
    for k, view in enumerate(pair.views):
        own = slice(k, k + 1)
        error = noise_corrected_mse(estimate[own], target.counts[own], target.exposure, target.judged[own])
        relative = error / target.peak**2
        bias = count_bias(estimate[own], target.standard[own], target.mask[own])
        figures = {"nc_nmse": relative, "nc_psnr": decibels(relative), "count_bias": bias}
        rows.append({"view": str(view), **figures, **foci[k]})
    return rows


def _columns(job: Job) -> dict[str, Any]:
    """First columns of scores.csv."""
    names = {"scan": job.scan.name, "speed": job.speed.label, "draw": job.draw, "method": job.method.name}
    return names | {"exposure": job.speed.share(job.scan.velocity)}


def _describe(scan: RealScan) -> dict[str, Any]:
    views = [str(view) for view in scan.views]
    counts = int(scan.scan.counts.sum())
    return {
        "name": scan.name,
        "views": views,
        "velocity": scan.velocity,
        "counts": counts,
        "sha256": scan.digest,
    }

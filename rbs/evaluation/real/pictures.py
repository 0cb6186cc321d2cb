"""Pictures of restored real scans: every method beside the rapid scan and the counts left over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rbs.evaluation.real.record import Job, Record
from rbs.report.figures import DPI, views_figure
from rbs.report.pictures import file_name
from rbs.scans.scan import Array
from rbs.utils.files import whole_file


def write_pictures(folder: Path, jobs: Sequence[Job], record: Record) -> dict[str, str]:
    """Write a picture a scan, FOLDER/SCAN.png: inverse grey, one window for all.

    Args:
        folder: The folder, made if need be. What it shows is as private as the scans.
        jobs: All restorations.
        record: Holds the pictured ones.

    Returns:
        Name of the file of each scan.

    Raises:
        OutputError: A picture cannot be written.
    """
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    pictured: dict[str, list[Job]] = {}
    for job in jobs:
        if job.pictured:
            pictured.setdefault(job.scan.name, []).append(job)
    files: dict[str, str] = {}
    for name, own in pictured.items():
        first = own[0]
        target = first.scan.pair(first.speed, first.draw).target
        panels: dict[str, Array] = {}
        for job in own:
            if (estimate := record.picture(job)) is not None:
                panels[f"{job.method.label}, {job.speed.label}" if job is first else job.method.label] = (
                    estimate
                )
        panels["all other counts"] = target.standard
        figure = views_figure(panels, first.scan.views, target.peak, first.scan.scan.spacing_mm)
        plain = f"{file_name(name)}.png"
        files[name] = f"{len(files)}-{plain}" if plain in files.values() else plain
        with whole_file(folder / files[name], overwrite=True) as path:
            figure.savefig(path, dpi=DPI)
        plt.close(figure)
    return files

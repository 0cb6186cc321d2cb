"""Assessment by model observers: foci, detection, noise, sharpness, consistency.

Every scan of a split is restored and searched for what was lost or made up. Where the truth is
known, some children are also drawn many times over: that is what observers, noise and sharpness
need.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rbs.data.manifest import Case, Manifest
from rbs.errors import RbsError
from rbs.evaluation.methods import RAPID, Method
from rbs.evaluation.observers.areas import arrays, bound, place_areas, summarise_areas
from rbs.evaluation.observers.calibration import (
    BLOCK,
    LEVELS,
    bootstrap_deviation,
    calibration_by_counts,
    calibration_by_truth,
    calibration_error,
    coverage,
)
from rbs.evaluation.observers.consistency import check_consistency
from rbs.evaluation.observers.observers import bootstrap_mean
from rbs.evaluation.observers.simulation import (
    DOG,
    LAGUERRE_GAUSS,
    STANDARD,
    STANDARD_AUC,
    Rows,
    blank_study,
    detection_study,
    texture_study,
)
from rbs.evaluation.observers.task_metrics import focus_scores, found_foci, plate_scores
from rbs.evaluation.parts import Part, Parts
from rbs.evaluation.peers import best, tune
from rbs.evaluation.run import UNFINISHED, now, refuse_results, write
from rbs.evaluation.scans.classical import GAUSSIAN, gaussian
from rbs.evaluation.scans.images import ScanSet
from rbs.evaluation.scans.pairs import ScanPair, load_pair

log = logging.getLogger(__name__)

TRUTH = "truth"
"""Row of the known expectation, where only counts are compared."""

BOOTSTRAP = "bootstrap"
"""Row of the parametric bootstrap, which stated deviations are compared with."""

BOOTSTRAP_DRAWS = 8

_TABLES = (
    *("foci", "lesions", "growth_plates", "consistency", "clusters", "places"),
    *("spectra", "impulses", "blanks", "uncertainty", "coverage"),
)

_OBSERVERS = {DOG: "observer", LAGUERRE_GAUSS: "observer, Laguerre-Gauss channels"}
"""Studies of the two model observers."""


@dataclass(frozen=True)
class _Unit:
    """A piece of work that is finished or not: rows by table, and arrays."""

    name: str
    work: Callable[[], tuple[dict[str, Rows], dict[str, Any]]]


def assess(
    manifest: Manifest,
    output: Path,
    trained: Sequence[Method],
    *,
    children: int = 6,
    draws: int = 16,
    split: str = "test",
    seed: int = 1,
    command: str = "",
    overwrite: bool = False,
) -> pd.DataFrame:
    """Run all studies and write their tables; finished ones are kept in `output`/unfinished.

    Args:
        manifest: The cases. The Gaussian filter is tuned on its validation split.
        output: Folder: summary.csv, one CSV a study, and, last, settings.json.
        trained: Methods beside the rapid scan and the Gaussian filter.
        children: How many phantoms are drawn many times over, evenly spaced by age.
        draws: How often each of them is, a multiple of 4 from 8 on; a quarter of that for noise.
        split: "test" (or "val", "train").
        seed: Seed of all draws.
        command: The command line, for the settings.
        overwrite: Whether results already in `output` may be replaced.

    Returns:
        The summary: columns study, group, method, quantity, unit, n, mean, low, high.

    Raises:
        ManifestError: The split is empty.
        OutputError: `output` holds results already, or cannot be written.
        RbsError: A case cannot be read, or a setting cannot be meant.
    """
    from tqdm import tqdm

    images = ScanSet(manifest, split)
    cases = images.cases
    if draws < 8 or draws % 4 or children < 1:
        fault = f"{draws} draws of {children} children cannot be halved into training and testing observers"
        raise RbsError(fault, remedy="use a multiple of 4 from 8 on, and one child at least")
    refuse_results(output, overwrite=overwrite)
    settings: dict[str, Any] = {
        **images.origin(),
        "seed": seed,
        "children": children,
        "draws": draws,
        "trained": [m.describe() for m in trained],
    }
    inputs = {**settings, "files": images.stamps()}
    parts = Parts(output / UNFINISHED, inputs)
    methods = [RAPID, *_gaussian(parts, images), *trained]
    drawn = _spread_by_age([case for case in cases if case.truth], children)
    units = list(_units(cases, drawn, methods, draws, seed))
    tables: dict[str, Rows] = {name: [] for name in _TABLES}
    detections: list[dict[str, Any]] = []
    for number, unit in enumerate(progress := tqdm(units, desc="assessing", unit="study"), start=1):
        progress.set_postfix_str(unit.name)
        part = parts.load(number)
        if part is None:
            rows, arrays = unit.work()
            part = Part([{"table": name, **row} for name in rows for row in rows[name]], [], None, arrays)
            parts.save(number, part)
        for row in part.scores:
            tables[row["table"]].append({key: value for key, value in row.items() if key != "table"})
        if part.pictures:
            detections.append(dict(part.pictures))
    frames = {name: pd.DataFrame(rows) for name, rows in tables.items() if rows}
    if detections:
        frames["areas"] = place_areas(detections, trained[0].name if trained else None)
    summary = summarise_tables(frames, seed)
    settings |= {
        "written": now(),
        "command": command,
        "scans": len(cases),
        "drawn": [case.patient for case in drawn],
        "methods": [m.describe() for m in methods],
        "intervals": "95 % bootstrap over patients, 2000 resamples, this seed",
        "observer": "a focus is so strong that the ideal observer of a standard scan has AUC"
        f" {STANDARD_AUC:.3f}; of half its counts it then has {bound(0.5):.3f}, the bound of all processing",
    }
    write(output, {"summary": summary, **frames}, settings)
    parts.remove()
    return summary


def _gaussian(parts: Parts, images: ScanSet) -> list[Method]:
    """The tuned Gaussian filter, tuned once."""
    from functools import partial

    if not images.validation:
        log.warning("the Gaussian is left out: there is no validation split to tune it on")
        return []
    part = parts.load(0)
    if part is None:
        sigma = best(tune([GAUSSIAN], images.validation_pairs())[0])
        part = Part([{"sigma_mm": sigma}], [], None, {})
        parts.save(0, part)
    sigma = float(part.scores[0]["sigma_mm"])
    restore = partial(gaussian, sigma_mm=sigma)
    return [Method("gaussian", f"Gaussian, {sigma:g} mm", restore, {"sigma_mm": sigma, "tuned_on": "val"})]


def _spread_by_age(cases: Sequence[Case], count: int) -> list[Case]:
    order = sorted(cases, key=lambda case: case.age_y or 0.0)
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [order[place] for place in places]


def _units(
    cases: Sequence[Case], drawn: Sequence[Case], methods: Sequence[Method], draws: int, seed: int
) -> Iterator[_Unit]:
    for case in cases:
        yield _Unit(f"{case.patient} scan", lambda case=case: (_scan(case, methods), {}))  # type: ignore[misc]
    stating = [method for method in methods if method.deviation]
    for case in drawn:
        yield _Unit(
            f"{case.patient} detection",
            lambda case=case: _detection(load_pair(case), methods, draws, seed),  # type: ignore[misc]
        )
        yield _Unit(
            f"{case.patient} texture",
            lambda case=case: _texture(load_pair(case), methods, draws // 4, seed),  # type: ignore[misc]
        )
        for method in stating[:1]:  # those of other strengths are of the same restorer
            yield _Unit(
                f"{case.patient} bootstrap",
                lambda case=case, method=method: (_bootstrap(load_pair(case), method, seed), {}),  # type: ignore[misc]
            )
    if drawn:
        yield _Unit("blank", lambda: _blank(load_pair(drawn[0]), methods, draws // 4, seed))


def _scan(case: Case, methods: Sequence[Method]) -> dict[str, Rows]:
    """The scan as acquired, restored once by every method."""
    pair = load_pair(case)
    target, tables = pair.target, {name: Rows() for name in _TABLES}
    answers = {method.name: method.restore(pair) for method in methods}
    for method in methods:
        if method.deviation:
            _test_deviation(tables, pair, method.name, answers[method.name], method.deviation(pair))
    for name, answer in answers.items():
        _compare_counts(tables, pair, name, answer)
    if target.expectation is None:
        return tables
    if pair.motion is None:
        _compare_counts(tables, pair, TRUTH, target.expectation)
    raw = {method.name: method.raw for method in methods}
    shown = {name: pair.to_target(answer, raw=raw[name]) for name, answer in answers.items()}
    for name, answer in {**shown, STANDARD: target.standard}.items():
        known = {"patient": pair.patient, "method": name}
        found = found_foci(answer, target)
        assert found is not None  # the expectation is known
        lesions = "unknown" if target.anatomy is None else "some" if target.anatomy.foci else "none"
        counts = {
            "hallucinated": len(found.hallucinated),
            "lost": len(found.lost),
            "true_foci": found.true_foci,
        }
        tables["foci"].append({**known, "lesions": lesions, "views": len(answer), **counts})
        for score in focus_scores(answer, target):
            classes = {"size_class": score.size_class, "contrast_class": score.contrast_class}
            values = {name: value for name, value in asdict(score).items() if name != "focus"}
            tables["lesions"].append({**known, **asdict(score.focus), **classes, **values})
        tables["growth_plates"].append({**known, **asdict(plate_scores(answer, target))})
    return tables


def _test_deviation(tables: dict[str, Rows], pair: ScanPair, name: str, answer: Any, deviation: Any) -> None:
    """Test a stated deviation by an independent scan, and by the expectation where known."""
    target, known = pair.target, {"patient": pair.patient, "method": name}
    estimate, s = pair.to_target(answer), pair.to_target(deviation)
    row: dict[str, Any] = {}
    for what, block in (("pixel", 1), ("block", BLOCK)):
        calibration = calibration_by_counts(estimate, s, target.counts, target.exposure, target.mask, block)
        row |= {f"{what}_z": calibration.z, f"{what}_error_by_counts": calibration.error}
        if target.expectation is not None:
            by_truth = calibration_by_truth(estimate, s, target.expectation, target.mask, block)
            row[f"{what}_error"] = by_truth
    if target.expectation is not None:
        found = coverage(estimate, s, target.expectation, target.mask)
        row["calibration_error"] = calibration_error(found)
        for level in LEVELS:
            alike = [entry for entry in found if entry.level == level]
            row[f"covered_{level}"] = float(
                np.average([e.covered for e in alike], weights=[e.pixels for e in alike])
            )
        tables["coverage"] += [known | asdict(entry) for entry in found]
    tables["uncertainty"].append(known | row)


def _bootstrap(pair: ScanPair, method: Method, seed: int) -> dict[str, Rows]:
    """Deviation by the parametric bootstrap, tested as a method's own."""

    def restore(rapid: Any) -> Any:
        return method.restore(replace(pair, rapid=rapid))

    tables, answer = {name: Rows() for name in _TABLES}, method.restore(pair)
    deviation = bootstrap_deviation(restore, answer, pair.exposure, BOOTSTRAP_DRAWS, seed)
    _test_deviation(tables, pair, BOOTSTRAP, answer, deviation)
    return tables


def _compare_counts(tables: dict[str, Rows], pair: ScanPair, name: str, answer: Any) -> None:
    found = check_consistency(pair.rapid, answer, pair.exposure, pair.target.spacing_mm)
    known = {"patient": pair.patient, "method": name}
    values = {name: getattr(found, name) for name in ("blocks", "deviance", "expected", "spread", "ratio")}
    tables["consistency"].append({**known, **values, "clusters": len(found.clusters)})
    for cluster in found.clusters:
        tables["clusters"].append({**known, **asdict(cluster), "view": pair.views[cluster.view]})


def _detection(
    pair: ScanPair, methods: Sequence[Method], draws: int, seed: int
) -> tuple[dict[str, Rows], dict[str, Any]]:
    found = detection_study(pair, {m.name: m.restore for m in methods}, draws, seed)
    names = ("row", "column", "size_mm", "contrast")
    known = {"patient": pair.patient, "draws": draws, "seed": seed}
    rows = [known | {name: getattr(place, name) for name in names} for place in found.places]
    return {"places": rows}, arrays(found)


def _texture(
    pair: ScanPair, methods: Sequence[Method], draws: int, seed: int
) -> tuple[dict[str, Rows], dict[str, Any]]:
    spectra, responses = texture_study(pair, methods, draws, seed)
    known = {"patient": pair.patient, "seed": seed}
    return {"spectra": [known | row for row in spectra], "impulses": [known | row for row in responses]}, {}


def _blank(
    pair: ScanPair, methods: Sequence[Method], draws: int, seed: int
) -> tuple[dict[str, Rows], dict[str, Any]]:
    rows = blank_study(methods, pair.exposure, pair.target.spacing_mm, draws, seed)
    return {"blanks": [{"seed": seed, **row} for row in rows]}, {}


def summarise_tables(tables: dict[str, pd.DataFrame], seed: int) -> pd.DataFrame:
    """Means over patients' scans, lesions or places, with intervals that resample patients.

    Args:
        tables: The tables of `assess`.
        seed: Seed of the resampling.

    Returns:
        Columns study, group, method, quantity, unit, n, mean, low, high.
    """
    rows: Rows = []

    def add(
        study: str, group: str, method: str, quantity: str, unit: str, values: Any, patients: Any
    ) -> None:
        numbers = np.asarray(values, dtype=float)
        kept = int(np.isfinite(numbers).sum())
        if kept:
            mean, low, high = bootstrap_mean(
                np.where(np.isfinite(numbers), numbers, np.nan), np.asarray(patients), seed
            )
            names = {"study": study, "group": group, "method": method, "quantity": quantity, "unit": unit}
            rows.append({**names, "n": kept, "mean": mean, "low": low, "high": high})

    def add_table(
        name: str,
        study: str,
        group: str | None,
        quantities: dict[str, str],
        rename: Callable[[Any], str] = str,
    ) -> None:
        if name not in tables:
            return
        keys = ["method"] if group is None else [group, "method"]
        for key, part in tables[name].groupby(keys, sort=group is not None):
            label = "all" if group is None else rename(key[0])
            for quantity, unit in quantities.items():
                if quantity not in part:
                    continue
                patients = part["patient"] if "patient" in part else part["draw"]
                add(study, label, str(key[-1]), quantity, unit, part[quantity], patients)

    tables = {name: _derived(name, table) for name, table in tables.items()}
    for group in (None, "size_class", "contrast_class"):
        add_table("lesions", "lesions", group, {"recovery": "of the truth's", "cnr": ""})
    plates = {"peak": "of the truth's", "fwhm": "of the truth's", "asymmetry_error": "%"}
    add_table("growth_plates", "growth plates", None, plates)
    per_view = {"hallucinated": "a view", "lost": "a view"}
    add_table("foci", "foci", "lesions", per_view, lambda key: f"lesions: {key}")
    add_table("blanks", "blank images", "image", {"hallucinated": "a view"})
    add_table("consistency", "consistency", None, {"ratio": "of the expected deviance", "clusters": "a scan"})
    noise = {"variance": "% of a standard scan's", "mean_frequency_per_mm": "1/mm"}
    add_table("spectra", "noise", None, noise)
    response = {"fwhm_mm": "mm", "gain": "of its counts"}
    add_table("impulses", "impulse response", "impulse_counts", response, lambda k: f"{k:g} counts")
    claims = {f"covered_{level}": f"claimed {level}" for level in LEVELS}
    errors = {
        f"{what}_error{by}": "of what is stated" for by in ("", "_by_counts") for what in ("pixel", "block")
    }
    add_table("uncertainty", "uncertainty", None, claims | {"calibration_error": "", "pixel_z": "", **errors})
    if "coverage" in tables:
        for (decile, level, method), part in tables["coverage"].groupby(
            ["decile", "level", "method"], sort=False
        ):
            tenth, name, patients = f"tenth {decile}", str(method), part["patient"]
            add("coverage", tenth, name, f"covered_{level}", f"claimed {level}", part["covered"], patients)
            if level == LEVELS[-1]:
                add("coverage", tenth, name, "mean_count", "counts", part["mean_count"], patients)
    if "areas" in tables:
        for row in summarise_areas(tables["areas"], seed):
            study, group = _OBSERVERS[row.pop("channels")], f"{row.pop('size_mm'):g} mm"
            rows.append({"study": study, "group": group, "unit": "", **row})
    return pd.DataFrame(rows)


def _derived(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Table with the summarised quantities: per view, absolute, in per cent of the mean."""
    if name == "lesions":
        return table.assign(cnr=table["cnr"].abs())
    if name in ("foci", "blanks"):
        counted = [column for column in ("hallucinated", "lost") if column in table]
        return table.assign(**{column: table[column] / table["views"] for column in counted})
    if name == "spectra":
        first = table.drop_duplicates(["patient", "method"])
        return first.assign(variance=100 * first["variance"] / first["mean_count"])
    return table


def printed_table(summary: pd.DataFrame) -> str:
    """The summary as one table: a row a study, group and quantity, a column a method."""
    keys = ["study", "group", "quantity", "unit"]
    table = summary.pivot(index=keys, columns="method", values="mean")
    order = summary[keys].drop_duplicates()
    table = table.loc[
        [tuple(row) for row in order.itertuples(index=False)], summary["method"].drop_duplicates()
    ]
    printed = table.map(lambda value: "" if math.isnan(value) else f"{value:.3g}")
    return str(printed.reset_index().to_string(index=False))

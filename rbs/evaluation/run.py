"""Evaluation of scans or frames, case by case, resumable, and written whole."""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from rbs.data.manifest import manifest_record
from rbs.errors import OutputError, RbsError
from rbs.evaluation.methods import Method
from rbs.evaluation.pairs import Pair
from rbs.evaluation.parts import Part, Parts
from rbs.evaluation.peers import Classical, tuned_methods
from rbs.evaluation.scans.metrics import Metric
from rbs.evaluation.set_metrics.fid_kid import SET_METRICS, Inception, set_scores
from rbs.evaluation.statistics.differences import differences
from rbs.evaluation.statistics.summary import by_patient, summarise
from rbs.scans.scan import Array
from rbs.utils.files import whole_file, write_json
from rbs.utils.version import VERSION

log = logging.getLogger(__name__)

SETTINGS, UNFINISHED = "settings.json", "unfinished"
PICTURED = 3
"""Cases whose pictures are kept, at most."""


@dataclass(frozen=True)
class Kind:
    """Words for the images of an evaluation.

    Attributes:
        images: "scans" or "frames", as settings.json says.
        case: One of them.
        unit: Unit of the statistics, which may have several cases.
    """

    images: str
    case: str
    unit: str


SCANS, FRAMES = Kind("scans", "scan", "patient"), Kind("frames", "frame", "group")


class ImageSet(ABC):
    """Images of one split of a manifest: how they are loaded, tuned on and scored.

    Attributes:
        kind: Scans or frames.
        metrics: Metrics of every evaluation of this kind.
        reference: Name of the images that all others are compared with as a set.
        definitions: Definitions for settings.json: peak, mask, aggregation, references, tiles.
        manifest: The manifest's file.
        split: Name of the split.
        cases: Cases of the split.
        validation: Cases of the validation split, which classical peers are tuned on.
    """

    kind: ClassVar[Kind]
    metrics: ClassVar[tuple[Metric, ...]]
    reference: ClassVar[str]
    definitions: ClassVar[Mapping[str, Any]]

    def __init__(self, manifest: Path, split: str, cases: Sequence[Any], validation: Sequence[Any]) -> None:
        self.manifest, self.split, self.cases, self.validation = manifest, split, cases, validation

    @abstractmethod
    def pair(self, case: Any, place: int) -> Pair:
        """Read a case; `place` is its number in its split."""

    @abstractmethod
    def files(self, case: Any) -> Iterable[Path | None]:
        """All files of a case."""

    @abstractmethod
    def baseline(self) -> Method:
        """The degraded image as it is, the first row of the table."""

    @abstractmethod
    def peers(self) -> Sequence[Classical]:
        """Classical peers before they are tuned."""

    @abstractmethod
    def columns(self, case: Any, place: int, pair: Any) -> dict[str, Any]:
        """First columns of the table of all cases."""

    @abstractmethod
    def reference_scores(self, pair: Any, metrics: Sequence[Metric]) -> dict[str, dict[str, float]]:
        """Scores of rows that no method made, by name of the row and metric."""

    @abstractmethod
    def reference_images(self, pair: Any) -> dict[str, Array]:
        """Images that no method made, `reference` among them, for figures of the whole split."""

    @abstractmethod
    def tiles(self, image: Array, target: Any) -> Array:
        """Tiles of an image as the feature network takes them, uint8 (N, 3, h, w)."""

    @abstractmethod
    def pictures(self, pair: Any) -> dict[str, Array]:
        """Arrays that pictures of a case need beside the estimates."""

    @abstractmethod
    def picture(self, image: Array) -> Array:
        """An image as it is kept for pictures."""

    @abstractmethod
    def caption(self, case: Any, place: int, pair: Any) -> dict[str, Any]:
        """Description of a pictured case for settings.json."""

    def region_biases(self, estimate: Array, target: Any) -> dict[str, float]:
        """Bias of each labelled region, %; none without labels."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Further settings that decide the pairs."""
        return {}

    def summary_of(self, parts: Sequence[Part]) -> dict[str, Any]:
        """Further settings that follow from the finished cases."""
        return {}

    def pictured(self) -> list[int]:
        """Up to three cases, evenly spaced.

        Chosen before anything is restored: pictures picked by their score would flatter or damn.
        """
        count = len(self.cases)
        return np.linspace(0, count - 1, min(PICTURED, count)).round().astype(int).tolist()

    def origin(self) -> dict[str, Any]:
        """Version, manifest and split, for settings.json."""
        return {
            "rbs": VERSION,
            **manifest_record(self.manifest),
            "split": self.split,
            **self.settings(),
        }

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of every file, by which a changed file is noticed."""
        files = (file for case in (*self.cases, *self.validation) for file in self.files(case) if file)
        return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}

    def validation_pairs(self) -> Iterator[Pair]:
        """Pairs of the validation split, one at a time."""
        from tqdm import tqdm

        bar = tqdm(self.validation, desc="tuning", unit=self.kind.case)
        return (self.pair(case, place) for place, case in enumerate(bar))

    def tuned_peers(self) -> list[Method]:
        """The classical peers, tuned; none without a validation split."""
        if not self.validation:
            log.warning("the classical peers are left out: there is no validation split to tune them on")
            return []
        return tuned_methods(self.peers(), self.validation_pairs())

    def score(
        self,
        place: int,
        methods: Sequence[Method],
        metrics: Sequence[Metric],
        inception: Inception | None,
        *,
        pictured: bool,
    ) -> Part:
        """Restore a case by every method and score all."""
        case = self.cases[place]
        pair = self.pair(case, place)
        target, columns = pair.target, self.columns(case, place, pair)
        unit = {"patient": pair.patient, "case": place}
        rows = self.reference_scores(pair, metrics)
        scores = [{**columns, "method": name, **values} for name, values in rows.items()]
        regions: list[dict[str, Any]] = []
        features: dict[str, Array] = {}
        pictures = self.pictures(pair) if pictured else {}
        if inception:
            for name, image in self.reference_images(pair).items():
                features[name] = inception.features(self.tiles(image, target))
        for method in methods:
            estimate = pair.to_target(method.restore(pair), raw=method.raw)
            values = {m.name: m.compute(estimate, target) for m in metrics}
            scores.append({**columns, "method": method.name, **values})
            for region, bias in self.region_biases(estimate, target).items():
                regions.append({**unit, "method": method.name, "region": region, "bias_percent": bias})
            if inception:
                features[method.name] = inception.features(self.tiles(estimate, target))
            if pictured:
                pictures[method.name] = self.picture(estimate)
        caption = self.caption(case, place, pair) if pictured else None
        return Part(scores, regions, caption, {f"{place}/{k}": v for k, v in pictures.items()}, features)


def evaluate(
    images: ImageSet,
    output: Path,
    *,
    trained: Sequence[Method] = (),
    extra_metrics: Sequence[Metric] = (),
    inception: Inception | None = None,
    against: str | None = None,
    command: str = "",
    overwrite: bool = False,
) -> pd.DataFrame:
    """Score every method on every case of a split; one case is held in memory at a time.

    Writes per_CASE.csv, per_UNIT.csv, regions.csv, differences.csv, sets.csv, pictures.npz,
    summary.csv and, last, settings.json: without it the results are not whole. Older results stay
    until all cases are finished. Finished cases are kept in `output`/unfinished until then; the
    same call resumes from them.

    Args:
        images: The cases.
        output: Folder.
        trained: Methods beside the degraded image and the classical ones.
        extra_metrics: Metrics beside those of the kind of images.
        inception: For FID and KID; None to do without.
        against: Method that all others are compared with; None for the best peer of each metric,
            the peers being all methods but `trained`.
        command: The command line, for the settings.
        overwrite: Whether results already in `output` may be replaced.

    Returns:
        The summary, as `rbs.evaluation.statistics.summary.summarise` makes it.

    Raises:
        OutputError: `output` holds results already, or cannot be written.
        RbsError: A case cannot be read, or `against` is no method.
    """
    from tqdm import tqdm

    metrics = (*images.metrics, *extra_metrics)
    origin = images.origin()
    inputs = {
        **origin,
        "metrics": [m.describe() for m in metrics],
        "trained": [m.describe() for m in trained],
        "inception": inception.sha256 if inception else None,
        "files": images.stamps(),
    }
    refuse_results(output, overwrite=overwrite)
    unfinished = Parts(output / UNFINISHED, inputs)
    peers = [images.baseline(), *images.tuned_peers()]
    methods = [*peers, *trained]
    names = [m.name for m in methods]
    if against is not None and against not in names:
        raise RbsError(f"there is no method '{against}'", remedy=f"compare with one of {', '.join(names)}")
    pictured = images.pictured()
    parts: list[Part] = []
    for place in tqdm(range(len(images.cases)), desc="evaluating", unit=images.kind.case):
        part = unfinished.load(place)
        if part is None:
            part = images.score(place, methods, metrics, inception, pictured=place in pictured)
            unfinished.save(place, part)
        parts.append(part)
    per_case = pd.DataFrame([row for part in parts for row in part.scores])
    per_unit = by_patient(per_case, metrics)
    summary = summarise(per_unit, metrics)
    kind, named_unit = images.kind, {"patient": images.kind.unit}
    tables = {
        f"per_{kind.case}": per_case.rename(columns=named_unit),
        f"per_{kind.unit}": per_unit.rename(columns=named_unit),
        "regions": pd.DataFrame([row for part in parts for row in part.regions]),
        "differences": differences(per_unit, metrics, names, [m.name for m in peers], against=against),
        "sets": set_scores(_joined([part.features for part in parts]), images.reference),
        "summary": summary,
    }
    settings = {
        "images": kind.images,
        "written": now(),
        "patients": int(per_unit["patient"].nunique()),
        "scans": len(parts),
        "metrics": [m.describe() for m in metrics],
        "methods": [m.describe() for m in methods],
        "peers": [m.name for m in peers],
        "against": against,
        "tuned_on": "val",
        "sets": [m.describe() for m in SET_METRICS] if inception else [],
        "inception_sha256": inception.sha256 if inception else None,
        "pictures": [parts[place].shown for place in pictured],
        **origin,
        "command": command,
        **images.summary_of(parts),
        **images.definitions,
        **({} if inception else {"tiles": None}),
    }
    pictures = {name: array for part in parts for name, array in part.pictures.items()}
    write(output, tables, settings, pictures)
    unfinished.remove()
    return summary


def refuse_results(output: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds results.

    Raises:
        OutputError: It does, and they must not be replaced.
    """
    if (output / SETTINGS).exists() and not overwrite:
        raise OutputError("it holds results already", file=output, remedy="choose another or use --overwrite")


def now() -> str:
    """The time, for settings.json."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def interrupted_after(
    output: Path, next_output: Path, manifest: Path, trained: Sequence[Method], command: str
) -> bool:
    """True if this command finished its evaluation and was interrupted before its next results.

    Args:
        output: Folder of the evaluation.
        next_output: Folder of the results that follow it.
        manifest: The manifest.
        trained: The trained methods.
        command: The command line.
    """
    if not (output / SETTINGS).is_file() or (next_output / SETTINGS).exists():
        return False
    settings = json.loads((output / SETTINGS).read_text(encoding="utf-8"))
    described = json.loads(json.dumps([m.describe() for m in trained], default=str))
    return (
        settings.get("command") == command
        and settings.get("manifest_sha256") == hashlib.sha256(manifest.read_bytes()).hexdigest()
        and settings["methods"][len(settings["methods"]) - len(described) :] == described
    )


def _joined(features: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Features of all cases, a set a name; a reference that some cases lack is left out."""
    names = [name for name in features[0] if all(name in case for case in features)]
    return {name: np.concatenate([case[name] for case in features]) for name in names}


def write(
    output: Path,
    tables: Mapping[str, pd.DataFrame],
    settings: Mapping[str, Any],
    pictures: Mapping[str, Array] | None = None,
) -> None:
    """Write results: tables as <name>.csv, pictures, and last the settings.

    Raises:
        OutputError: A file cannot be written.
    """
    # Whoever finds no settings knows that the rest may be of two runs.
    (output / SETTINGS).unlink(missing_ok=True)
    if pictures is not None:
        with whole_file(output / "pictures.npz", overwrite=True) as path:
            np.savez_compressed(path, allow_pickle=False, **pictures)
    for name, table in tables.items():
        with whole_file(output / f"{name}.csv", overwrite=True) as path:
            table.to_csv(path, index=False, float_format="%.7g")
    write_json(output / SETTINGS, settings, default=str)

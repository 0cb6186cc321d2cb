"""An ablation as its YAML file describes it, and the trainings behind its rows.

Regimes are ways to be given data, rows are variants of an experiment, and each row is trained in
each regime with each seed. Trainings depend on each other: all rows start from the stage 1 of their
regime and seed, and a row may go on from the cascade of another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from rbs.data.frames_manifest import FramesManifest, is_frames_manifest
from rbs.data.manifest import Case, Manifest, write_manifest
from rbs.errors import OutputError, RbsError
from rbs.evaluation.methods import CASCADE_FILE
from rbs.multirun.runs import Run, fit_command, placed, read_yaml, train_all
from rbs.utils.experiments import experiment_file
from rbs.weights.shipped import file_sha256, weights_path

STAGE1 = "stage1"
"""The restorer that all rows of a regime start from; a row of every table."""

NETWORKS = ("f1", "f2")

_REMEDY = "see the files in sweeps/ablations and docs/sweeps-and-ablations.md"
_PART = {"label", "overlays", "arguments"}
_KEYS = {
    "an ablation": {"title", "manifest", "experiment", "overlays", "arguments", STAGE1}
    | {"regimes", "rows", "seeds", "references", "contrasts"},
    "a stage 1": {"experiment", *_PART},
    "a regime": {"manifest", "children", *_PART},
    "a row": {"from", "bound", "regimes", *_PART},
}


class Key(NamedTuple):
    """Place of a training: its regime, its row and its seed."""

    regime: str
    row: str
    seed: int


Runs = dict[Key, Run]


@dataclass(frozen=True)
class Part:
    """What one part of an ablation adds to the command of a training.

    Attributes:
        name: Also its folder.
        label: As printed.
        overlays: YAML files laid over the experiment.
        arguments: Arguments of `rbs fit` by name, without the dashes.
    """

    name: str
    label: str
    overlays: tuple[Path, ...]
    arguments: Mapping[str, Any]

    def words(self) -> list[str]:
        """Its part of a command line."""
        return [f"--config={file}" for file in self.overlays] + [
            f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in self.arguments.items()
        ]


@dataclass(frozen=True)
class Regime(Part):
    """A way to be given data.

    Attributes:
        manifest: Cases of training, validation and test.
        children: Number of training patients, the first of the manifest; None for all.
    """

    manifest: Path
    children: int | None


@dataclass(frozen=True)
class Row(Part):
    """A variant of the experiment.

    Attributes:
        start: Row whose cascade it goes on from; None for none.
        bound: Row that bounds it from above, as true masks bound predicted ones: where that one
            shows no gain, this one could not. None for none.
        regimes: Those it is trained in; empty for all.
    """

    start: str | None = None
    bound: str | None = None
    regimes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ablation:
    """An ablation; `read` makes one of its file.

    Attributes:
        file: The YAML file.
        title: As printed.
        common: What all trainings share.
        experiment: Experiment that the rows are variants of.
        stage1: Training that all rows start from; or weights, in whose path {regime} and {seed} are
            filled in; None where rows start from nothing.
        stage1_experiment: Experiment of that training.
        regimes: In the order of the tables.
        rows: In the order of the tables.
        references: For f1 and f2 the rows that all others are compared with, the main one first.
        contrasts: Effects by name: pairs of rows, whose differences of f1 are averaged.
        seeds: Each row is trained once with each.
        output: Folder.
        teacher: Segmenter of the priors, file or folder of an adapted SAM; None takes those the
            file names.
        arguments: More arguments of every training, such as an overlay for the machine. Regimes and
            rows have the last word.
    """

    file: Path
    title: str
    common: Part
    experiment: Path
    stage1: Part | str | None
    stage1_experiment: Path | None
    regimes: tuple[Regime, ...]
    rows: tuple[Row, ...]
    references: Mapping[str, tuple[str, ...]]
    contrasts: Mapping[str, tuple[tuple[str, str], ...]]
    seeds: tuple[int, ...]
    output: Path
    teacher: Path | None = None
    arguments: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        file: Path,
        output: Path,
        *,
        manifest: Path | None = None,
        seeds: Iterable[int] = (),
        stage1: str | None = None,
        teacher: Path | None = None,
        arguments: Iterable[str] = (),
    ) -> Ablation:
        """Read a file.

        Args:
            file: The YAML file.
            output: Folder of the trainings and tables.
            manifest: In place of those the file names.
            seeds: Likewise; empty for those of the file.
            stage1: Weights in place of the file's stage 1, as `stage1` above.
            teacher: As above.
            arguments: As above.

        Raises:
            RbsError: It cannot be read, or describes nothing that could be trained and compared.
        """
        content = read_yaml(file, _REMEDY)
        _refuse_unknown(file, "an ablation", content)
        for name in ("experiment", "rows", "references"):
            if not content.get(name):
                raise RbsError(f"it names no {name}", file=file, remedy=_REMEDY)
        for name in ("regimes", "rows", "references"):
            if not isinstance(content.get(name) or {}, dict):
                raise RbsError(f"its {name} are not named", file=file, remedy=_REMEDY)
        started = stage1 or content.get(STAGE1)
        own: Part | str | None = started
        stage1_experiment = None
        if isinstance(started, dict):
            own = Part(STAGE1, "stage 1", *_settings(file, "a stage 1", started))
            stage1_experiment = experiment_file(started.get("experiment", STAGE1))
        regimes = []
        for name, entry in (content.get("regimes") or {"all": {}}).items():
            settings = _settings(file, "a regime", entry)
            place = manifest or entry.get("manifest") or content.get("manifest")
            if not place:
                raise RbsError(f"the regime {name} has no manifest", file=file, remedy="name one")
            regimes.append(Regime(name, _label(name, entry), *settings, Path(place), entry.get("children")))
        rows = []
        for name, entry in content["rows"].items():
            entry = entry or {}
            settings = _settings(file, "a row", entry)
            start, bound, within = entry.get("from"), entry.get("bound"), tuple(entry.get("regimes", ()))
            rows.append(Row(name, _label(name, entry), *settings, start, bound, within))
        ablation = cls(
            file,
            content.get("title", f"Ablation of {file.stem}"),
            Part("common", "", *_settings(file, "a stage 1", content, known=False)),
            experiment_file(content["experiment"]),
            own,
            stage1_experiment,
            tuple(regimes),
            tuple(rows),
            {network: tuple(names) for network, names in content["references"].items()},
            {name: tuple(map(tuple, pairs)) for name, pairs in content.get("contrasts", {}).items()},
            tuple(dict.fromkeys(seeds)) or tuple(content.get("seeds", (1, 2, 3))),
            output,
            teacher,
            tuple(arguments),
        )
        ablation._refuse_nonsense()
        return ablation

    def _refuse_nonsense(self) -> None:
        """Refuse names that lead nowhere, and rows that wait for each other."""
        names = [row.name for row in self.rows]
        if STAGE1 in names:
            raise RbsError(f"{STAGE1} is no name of a row", file=self.file, remedy="rename the row")
        mentioned = {name for row in self.rows for name in (row.start, row.bound) if name}
        compared = {name for rows in self.references.values() for name in rows}
        compared |= {name for pairs in self.contrasts.values() for pair in pairs for name in pair}
        if lost := sorted((mentioned | compared) - {*names, STAGE1}):
            raise RbsError(f"there is no row {lost[0]}", file=self.file, remedy=f"name one of {names}")
        if lost := sorted({*self.references} - {*NETWORKS}):
            raise RbsError(f"references are of f1 and f2, not of {lost[0]}", file=self.file, remedy=_REMEDY)
        regimes = [regime.name for regime in self.regimes]
        if lost := sorted({name for row in self.rows for name in row.regimes} - {*regimes}):
            raise RbsError(f"there is no regime {lost[0]}", file=self.file, remedy=f"name one of {regimes}")
        for place, row in enumerate(self.rows):
            if row.start and row.start not in names[:place]:
                fault = f"the row {row.name} goes on from {row.start}, which comes after it"
                raise RbsError(fault, file=self.file, remedy="put that one first")

    # --- cases

    def _training_manifest(self, regime: Regime) -> Path:
        """The manifest that trainings of a regime are given."""
        if regime.children is None:
            return regime.manifest
        return self.output / regime.name / "manifest.csv"

    def write_manifests(self) -> None:
        """Write the manifests of regimes that train on some patients alone.

        Raises:
            RbsError: A manifest cannot be read or written, or has fewer patients.
        """
        for regime in self.regimes:
            manifest = read_cases(regime.manifest)
            if regime.children is None:
                continue
            if isinstance(manifest, FramesManifest):
                fault = f"the regime {regime.name} chooses children, but its manifest lists frames"
                raise RbsError(fault, file=self.file, remedy="give it a manifest with fewer frames")
            chosen = _first_children(manifest, regime)
            write_manifest(self._training_manifest(regime), chosen, overwrite=True)

    # --- trainings

    @cached_property
    def keys(self) -> list[Key]:
        """All trainings, those that others start from first.

        Seed by seed, so that what an interruption leaves is comparable.
        """
        first = [STAGE1] if isinstance(self.stage1, Part) else []
        return [
            Key(regime.name, name, seed)
            for seed in self.seeds
            for regime in self.regimes
            for name in [*first, *(row.name for row in self.rows_of(regime.name))]
        ]

    def rows_of(self, regime: str) -> list[Row]:
        """Rows that are trained in a regime."""
        return [row for row in self.rows if not row.regimes or regime in row.regimes]

    def row(self, name: str) -> Row:
        """A row by name."""
        return next(row for row in self.rows if row.name == name)

    def folder(self, key: Key) -> Path:
        """Folder of a training."""
        return self.output / key.regime / key.row / f"seed_{key.seed}"

    def start(self, key: Key) -> Path | None:
        """Weights of stage 1 that a training starts from; None where it starts from nothing."""
        if self.stage1 is None or key.row == STAGE1:
            return None
        if isinstance(self.stage1, str):
            return weights_path(self.stage1.format(regime=key.regime, seed=key.seed))
        return self.folder(key._replace(row=STAGE1)) / "restorer.safetensors"

    def needed(self, key: Key) -> list[Key]:
        """Trainings that have to finish before this one begins."""
        if key.row == STAGE1:
            return []
        first = [key._replace(row=STAGE1)] if isinstance(self.stage1, Part) else []
        row = self.row(key.row)
        return first + ([key._replace(row=row.start)] if row.start else [])

    def runs(self) -> Runs:
        """Every training that is begun or could be, with its state as noted in its folder.

        Raises:
            RbsError: A file is missing.
            OutputError: A run in the folder was made from something else.
        """
        return {key: self._run(key) for key in self.keys if self._ready(key)}

    def train(self, workers: int) -> Runs | None:
        """Train what is missing by `train_all`; None while another process still trains some.

        Raises:
            RbsError: The first trainings all failed, or one that all rows are compared with did.
        """
        self.write_manifests()
        self.runs()  # refuses what was made from something else

        def begun() -> list[Run]:
            noted = [key for key in self.keys if Run.noted(self.folder(key))]
            return [replace(Run.read(self.folder(key)), command=self._command(key)) for key in noted]

        def new(_: list[Run]) -> Run | None:
            waiting = (key for key in self.keys if not Run.noted(self.folder(key)))
            return next((self._run(key) for key in waiting if self._ready(key)), None)

        train_all(self.output, begun, new, workers=workers, total=len(self.keys))
        trained = self.runs()
        if any(run.state == "unfinished" and run.claimed_elsewhere() for run in trained.values()):
            return None
        compared = {STAGE1, *(name for names in self.references.values() for name in names)}
        for key in (key for key in self.keys if key.row in compared):
            run = trained.get(key)
            if run is None or run.state != "finished":
                said = f" ({run.last_line()})" if run else ""
                fault = f"the training that all rows are compared with did not finish{said}"
                remedy = "correct what stopped it and give the command again"
                raise RbsError(fault, file=self.folder(key), remedy=remedy)
        return trained

    def _ready(self, key: Key) -> bool:
        """True where all that it starts from is there."""
        return all(
            Run.noted(self.folder(other)) and Run.read(self.folder(other)).state == "finished"
            for other in self.needed(key)
        )

    def _run(self, key: Key) -> Run:
        folder = self.folder(key)
        command = self._command(key)
        run = Run(folder, command, self._inputs(key))
        if not Run.noted(folder):
            return run
        before = Run.read(folder)
        changed = [name for name, value in run.about.items() if before.about.get(name) != value]
        # The path of Python does not matter.
        changed += ["the command"] if before.command[1:] != command[1:] else []
        if changed:
            fault = f"it holds a training that began otherwise: {' and '.join(changed)} changed"
            raise OutputError(fault, file=folder, remedy="delete it, or choose another --output")
        return replace(before, command=command)

    def _command(self, key: Key) -> list[str]:
        regime = self._regime(key)
        command = fit_command(f"--config={self._experiment(key)}", *self.common.words())
        if start := self.start(key):
            command += [f"--model.init_args.init_from={start}"]
            command += [f"--model.init_args.prior.cache={self.output / 'priors'}"]
            command += [f"--model.init_args.prior.teacher={self.teacher}"] if self.teacher else []
        command += [*self.arguments, *regime.words(), *self._part(key).words()]
        if cascade := self._cascade(key):
            command += [f"--model.init_args.cascade_from={cascade}"]
        command += [f"--seed_everything={key.seed}", f"--data.init_args.seed={key.seed}"]
        command += [f"--data.init_args.manifest={self._training_manifest(regime)}"]
        return command + placed(self.folder(key), self.output)

    def _inputs(self, key: Key) -> dict[str, Any]:
        """Hashes of the files a training is made from."""
        regime = self._regime(key)
        files = [self._experiment(key), *self.common.overlays, *regime.overlays, *self._part(key).overlays]
        settings = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        manifest = hashlib.sha256(self._training_manifest(regime).read_bytes()).hexdigest()
        starts = {STAGE1: self.start(key), "cascade": self._cascade(key)}
        digests = {name: file_sha256(file) for name, file in starts.items() if file}
        return {"settings": settings, "manifest": manifest, **digests}

    def _cascade(self, key: Key) -> Path | None:
        if key.row == STAGE1 or (start := self.row(key.row).start) is None:
            return None
        return self.folder(key._replace(row=start)) / CASCADE_FILE

    def _experiment(self, key: Key) -> Path:
        return self.experiment if key.row != STAGE1 else self.stage1_experiment or self.experiment

    def _part(self, key: Key) -> Part:
        if key.row == STAGE1:
            assert isinstance(self.stage1, Part)
            return self.stage1
        return self.row(key.row)

    def _regime(self, key: Key) -> Regime:
        return next(regime for regime in self.regimes if regime.name == key.regime)


def read_cases(file: Path) -> Manifest | FramesManifest:
    """Read a manifest of scans, or of frames.

    Raises:
        ManifestError: It cannot be used.
    """
    return FramesManifest.read(file) if is_frames_manifest(file) else Manifest.read(file)


def _settings(
    file: Path, kind: str, entry: Any, *, known: bool = True
) -> tuple[tuple[Path, ...], dict[str, Any]]:
    """Overlays and arguments of a part."""
    if not isinstance(entry, dict):
        raise RbsError(
            f"{kind} is described by names and values, not by {entry!r}", file=file, remedy=_REMEDY
        )
    if known:
        _refuse_unknown(file, kind, entry)
    overlays = tuple(experiment_file(name) for name in entry.get("overlays", ()))
    return overlays, dict(entry.get("arguments", {}))


def _refuse_unknown(file: Path, kind: str, entry: Mapping[str, Any]) -> None:
    if unknown := sorted(entry.keys() - _KEYS[kind]):
        raise RbsError(f"{kind} has no '{unknown[0]}'", file=file, remedy=f"use {sorted(_KEYS[kind])}")


def _label(name: str, entry: Mapping[str, Any]) -> str:
    return str(entry.get("label", name.replace("_", " ")))


def _first_children(manifest: Manifest, regime: Regime) -> list[Case]:
    """All cases but those of training patients beyond the first so many."""
    assert regime.children is not None
    patients = list(dict.fromkeys(case.patient for case in manifest.split("train")))
    if len(patients) < regime.children:
        fault = (
            f"it has {len(patients)} training patients, but the regime {regime.name} needs {regime.children}"
        )
        raise RbsError(fault, file=manifest.path, remedy="give it a larger manifest, or ask for fewer")
    chosen = {*patients[: regime.children]}
    return [case for case in manifest.cases if case.split != "train" or case.patient in chosen]

"""An ablation: the rows of its table, and the trainings behind them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from rbs.data.frames_manifest import FramesManifest
from rbs.data.manifest import Manifest
from rbs.errors import OutputError, RbsError
from rbs.multirun.runs import Run, fit_command, placed, read_yaml, train_all
from rbs.weights.shipped import file_sha256

MODULES = ("spi", "skd", "scm")

FULL = "full"
"""The experiment as it is: every row is compared with it."""

STAGE1 = "stage1"
"""The weights stage 2 starts from, not trained on."""

CONTROL = "stage1_goes_on"
"""Stage 1 alone, trained on for as many steps, on the same crops: every row has to beat it."""

Runs = dict[tuple[str, int], Run]
"""Trainings by row and seed."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: Also its folder.
        label: As printed.
        overlay: A YAML file laid over the experiment; None for none.
        flags: Arguments that make the row.
        modules: Those of SPI, SKD and SCM that are on; None where the row is no combination of
            them.
    """

    name: str
    label: str
    overlay: Path | None = None
    flags: tuple[str, ...] = ()
    modules: frozenset[str] | None = None


@dataclass(frozen=True)
class Ablation:
    """An ablation.

    Attributes:
        manifest: Cases of training and evaluation: scans or frames.
        experiment: The YAML file of the experiment.
        overlays: A row each; empty for the eight combinations of SPI, SKD and SCM.
        seeds: Each row is trained once with each.
        output: Folder.
        stage1: Weights stage 2 starts from; None takes those the experiment names.
        teacher: Segmenter of the priors, file or folder of an adapted SAM; None likewise.
        arguments: More arguments of every training, such as `--config` and an overlay for the
            machine. Rows have the last word.
    """

    manifest: Manifest | FramesManifest
    experiment: Path
    overlays: tuple[Path, ...]
    seeds: tuple[int, ...]
    output: Path
    stage1: Path | None = None
    teacher: Path | None = None
    arguments: tuple[str, ...] = ()

    @cached_property
    def rows(self) -> list[Row]:
        """All rows that are trained, the unchanged experiment first.

        Raises:
            RbsError: The experiment or an overlay cannot be read, two rows have one name, or there
                is nothing to compare.
        """
        if not self.second_stage:
            if not self.overlays:
                fault = "SPI, SKD and SCM are parts of stage 2"
                remedy = "name experiments/stage2.yaml, or overlays with --rows"
                raise RbsError(fault, file=self.experiment, remedy=remedy)
            rows = [Row(FULL, f"{_words(self.experiment)} unchanged")]
        else:
            control = Row(CONTROL, "stage 1 trained longer", flags=("--model.init_args.stage=1",))
            rows = [Row(FULL, "full method", modules=frozenset(MODULES)), control]
        if not self.overlays:
            return rows + [_combination(on) for on in product((True, False), repeat=3) if not all(on)]
        for overlay in self.overlays:
            read_yaml(overlay)
            if overlay.stem in (STAGE1, *(row.name for row in rows)):
                raise RbsError("its name is that of another row", file=overlay, remedy="rename it")
            rows.append(Row(overlay.stem, _words(overlay), overlay))
        return rows

    @property
    def second_stage(self) -> bool:
        """True where the experiment trains the cascade."""
        return self._model.get("stage") == 2

    @property
    def start(self) -> Path | None:
        """Weights of stage 1; None where the experiment starts from nothing."""
        named = self._model.get("init_from")
        return self.stage1 or (Path(named) if named else None)

    @cached_property
    def _model(self) -> dict[str, Any]:
        settings: dict[str, Any] = read_yaml(self.experiment).get("model", {}).get("init_args", {})
        return settings

    def runs(self) -> Runs:
        """The training of each row and seed, with its state as noted in its folder.

        Raises:
            RbsError: A file is missing.
            OutputError: A run in the folder was made from something else.
        """
        # Seed by seed, so that what an interruption leaves is comparable.
        return {(row.name, seed): self._run(row, seed) for seed in self.seeds for row in self.rows}

    def train(self, workers: int) -> Runs | None:
        """Train what is missing by `train_all`; None while another process still trains some.

        Raises:
            RbsError: The first trainings all failed, or one that all rows are compared with did.
        """
        runs = self.runs().values()

        def begun() -> list[Run]:
            noted = [run for run in runs if Run.noted(run.folder)]
            return [replace(Run.read(run.folder), command=run.command) for run in noted]

        def new(_: list[Run]) -> Run | None:
            return next((run for run in runs if not Run.noted(run.folder)), None)

        train_all(self.output, begun, new, workers=workers, total=len(runs))
        trained = self.runs()
        if any(run.state == "unfinished" and run.claimed_elsewhere() for run in trained.values()):
            return None
        for seed in self.seeds:
            if (run := trained[FULL, seed]).state != "finished":
                fault = f"the training that all rows are compared with did not finish ({run.last_line()})"
                remedy = "correct what stopped it and give the command again"
                raise RbsError(fault, file=run.folder, remedy=remedy)
        return trained

    def _run(self, row: Row, seed: int) -> Run:
        folder = self.output / row.name / f"seed_{seed}"
        command = fit_command(f"--config={self.experiment}")
        if self.second_stage:
            command += [f"--model.init_args.prior.cache={self.output / 'priors'}"]
            command += [f"--model.init_args.init_from={self.stage1}"] if self.stage1 else []
            command += [f"--model.init_args.prior.teacher={self.teacher}"] if self.teacher else []
        command += self.arguments
        command += [f"--config={row.overlay}"] if row.overlay else []
        command += row.flags
        command += [f"--seed_everything={seed}", f"--data.init_args.seed={seed}"]
        command += [f"--data.init_args.manifest={self.manifest.path}", *placed(folder, self.output)]
        run = Run(folder, command, self._inputs(row))
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

    def _inputs(self, row: Row) -> dict[str, Any]:
        """Hashes of the files a training is made from."""
        files = {"experiment": self.experiment, "row": row.overlay, "manifest": self.manifest.path}
        hashes = {name: hashlib.sha256(f.read_bytes()).hexdigest() for name, f in files.items() if f}
        return hashes | ({"stage1": file_sha256(self.start)} if self.start else {})


def _combination(on: tuple[bool, ...]) -> Row:
    modules = [name for name, is_on in zip(MODULES, on, strict=True) if is_on]
    flags = [f"--model.init_args.{name}={str(name in modules).lower()}" for name in MODULES]
    label = " + ".join(name.upper() for name in modules) or "no module"
    return Row("_".join(modules) or "no_module", label, flags=tuple(flags), modules=frozenset(modules))


def _words(file: Path) -> str:
    return file.stem.replace("_", " ")

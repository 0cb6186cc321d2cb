"""The rows of an ablation, and the trainings behind them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from rbs.data.frames_manifest import FramesManifest
from rbs.data.manifest import Manifest
from rbs.errors import OutputError, RbsError
from rbs.multirun.runs import Run
from rbs.utils.files import versions
from rbs.weights.shipped import file_sha256

MODULES = ("spi", "skd", "scm")

FULL = "full"
"""The experiment as it is: what every row is compared with."""

STAGE1 = "stage1"
"""The weights stage 2 starts from, not trained on."""

CONTROL = "stage1_goes_on"
"""Stage 1 alone, trained on for as many steps, on the same crops: what every row has to beat."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: Also its folder.
        label: As printed.
        overlay: A YAML file laid over the experiment; None for none.
        flags: Arguments that make the row.
        modules: Which of SPI, SKD and SCM are on; None where the row is no combination of them.
    """

    name: str
    label: str
    overlay: Path | None = None
    flags: tuple[str, ...] = ()
    modules: frozenset[str] | None = None


@dataclass(frozen=True)
class Plan:
    """An ablation.

    Attributes:
        manifest: Cases of training and evaluation: scans or frames.
        experiment: The YAML file of the full method.
        rows: Overlays, a row each; empty for the eight combinations of SPI, SKD and SCM.
        seeds: Each row is trained once with each.
        output: Folder.
        stage1: Weights stage 2 starts from; None takes those the experiment names.
        teacher: Folder of the adapted teacher; None likewise.
        arguments: More arguments of every training, such as `--config` and an overlay for the
            machine. Rows have the last word.
    """

    manifest: Manifest | FramesManifest
    experiment: Path
    rows: tuple[Path, ...]
    seeds: tuple[int, ...]
    output: Path
    stage1: Path | None = None
    teacher: Path | None = None
    arguments: tuple[str, ...] = ()

    def table(self) -> list[Row]:
        """All rows that are trained, the full method first.

        Raises:
            RbsError: The experiment or an overlay cannot be read, or there is nothing to compare.
        """
        full = Row(FULL, "full method", modules=frozenset(MODULES) if self.second_stage else None)
        found = [full]
        if self.second_stage:
            found.append(Row(CONTROL, "stage 1 goes on", flags=("--model.init_args.stage=1",)))
        if self.rows:
            for overlay in self.rows:
                _read_yaml(overlay)
            return found + [Row(path.stem, path.stem.replace("_", " "), path) for path in self.rows]
        if not self.second_stage:
            raise RbsError(
                "SPI, SKD and SCM are parts of stage 2",
                file=self.experiment,
                remedy="name experiments/stage2.yaml, or overlays with --rows",
            )
        return found + [_combination(on) for on in product((True, False), repeat=3) if not all(on)]

    @property
    def second_stage(self) -> bool:
        """Whether the experiment trains the cascade."""
        return self._model.get("stage") == 2

    @property
    def start(self) -> Path | None:
        """Weights of stage 1; None where the experiment starts from nothing."""
        named = self._model.get("init_from")
        return self.stage1 or (Path(named) if named else None)

    def runs(self) -> dict[tuple[str, int], Run]:
        """The training of each row and seed, with what is noted of it in its folder.

        Raises:
            RbsError: A file is missing.
            OutputError: A run in the folder was made from something else.
        """
        return {(row.name, seed): self._run(row, seed) for row in self.table() for seed in self.seeds}

    @property
    def _model(self) -> dict[str, Any]:
        found: dict[str, Any] = _read_yaml(self.experiment).get("model", {}).get("init_args", {})
        return found

    def _run(self, row: Row, seed: int) -> Run:
        folder = self.output / row.name / f"seed_{seed}"
        command = [sys.executable, "-m", "rbs.cli", "fit", f"--config={self.experiment}"]
        if self.second_stage:
            command += [f"--model.init_args.prior.cache={self.output / 'priors'}"]
            command += [f"--model.init_args.init_from={self.stage1}"] if self.stage1 else []
            command += [f"--model.init_args.prior.teacher={self.teacher}"] if self.teacher else []
        command += self.arguments
        command += [f"--config={row.overlay}"] if row.overlay else []
        command += row.flags
        command += [f"--seed_everything={seed}", f"--data.init_args.seed={seed}"]
        command += [f"--data.init_args.manifest={self.manifest.path}"]
        command += [f"--trainer.default_root_dir={self.output}", f"--name={row.name}/seed_{seed}"]
        run = Run(folder, [*command, "--ckpt_path=last"], self._made_from(row))
        if not Run.noted(folder):
            return run
        before = Run.read(folder)
        changed = [name for name, value in run.about.items() if before.about.get(name) != value]
        # Not where Python lies.
        changed += ["the command"] if before.command[1:] != run.command[1:] else []
        if changed:
            raise OutputError(
                f"it holds a training that began otherwise: {' and '.join(changed)} changed",
                file=folder,
                remedy="delete it, or choose another --output",
            )
        return before

    def _made_from(self, row: Row) -> dict[str, Any]:
        files = {"experiment": self.experiment, "row": row.overlay, "manifest": self.manifest.path}
        made = {name: hashlib.sha256(f.read_bytes()).hexdigest() for name, f in files.items() if f}
        return made | ({"stage1": file_sha256(self.start)} if self.start else {})


def _combination(on: tuple[bool, ...]) -> Row:
    modules = [name for name, is_on in zip(MODULES, on, strict=True) if is_on]
    flags = [
        f"--model.init_args.{name}={str(is_on).lower()}" for name, is_on in zip(MODULES, on, strict=True)
    ]
    label = " + ".join(name.upper() for name in modules) or "no module"
    return Row("_".join(modules) or "no_module", label, flags=tuple(flags), modules=frozenset(modules))


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RbsError(
            f"it cannot be read ({error.strerror})", file=file, remedy="name a file of experiments/"
        ) from error
    except yaml.YAMLError as error:
        raise RbsError("it is not valid YAML", file=file, remedy="correct it") from error
    if not isinstance(content, dict):
        raise RbsError("it holds no settings", file=file, remedy="name a file of experiments/")
    return content


def newest_config(folder: Path) -> dict[str, Any]:
    """The settings a run was trained with.

    Raises:
        RbsError: They are missing.
    """
    files = versions(folder, "config.yaml")
    if not files:
        raise RbsError(
            "there is no config.yaml of a training in it", file=folder, remedy="delete it to train anew"
        )
    return _read_yaml(files[-1])


def chosen_rows(rows: Sequence[Path]) -> tuple[Path, ...]:
    """Overlays whose names are told apart.

    Raises:
        RbsError: Two have one name, or one has that of a fixed row.
    """
    names = [path.stem for path in rows]
    for path in rows:
        if names.count(path.stem) > 1 or path.stem in (FULL, CONTROL, STAGE1):
            raise RbsError("its name is that of another row", file=path, remedy="rename it")
    return tuple(rows)

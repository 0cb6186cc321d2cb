"""Training, from Python and from the command line: LightningCLI, made safe for experiments.

* A checkpoint never overrides what was asked for. Lightning merges the hyper-parameters of
  `--ckpt_path` over the configuration, so `test --ckpt_path x.ckpt --model.spi false` would
  silently build spi=True and falsify an ablation. Here a difference is an error that names both
  values.
* `--ckpt_path last` resumes the newest unfinished version of the run, or starts afresh where there
  is none.
* Loggers: CSV first (it numbers the versions, and reports need no server), W&B second, offline
  unless asked.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from argparse import ArgumentError
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
)
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

from rbs.errors import CheckpointError, RbsError, printable
from rbs.restorers.checkpoint import read_lightning
from rbs.tasks.callbacks import SameStart, TrainingBar
from rbs.tasks.tracking import Mode, ScanPictures, Table, agent_run, default_mode, finish, tracker
from rbs.utils.checkpoint import COPY_AGAIN
from rbs.utils.experiments import experiment_file
from rbs.utils.files import FINISHED, versions
from rbs.utils.places import without_places
from rbs.utils.schema import require_plain
from rbs.utils.words import counted

_LOCATIONS = {
    "output",
    "init_from",
    "cascade_from",
    "checkpoint",
    "teacher",
    "prior.teacher",
    "prior.base_checkpoint",
    "prior.cache",
}
"""Arguments that say where files lie, which is not what they hold: tasks compare that by digest."""


class RbsCLI(LightningCLI):
    """LightningCLI with a run name, EMA, checkpoints, offline logging and compared checkpoints."""

    def __init__(self, arguments: Sequence[str], **settings: Any) -> None:
        self._command = arguments[0]
        super().__init__(LightningModule, LightningDataModule, args=list(arguments), **settings)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command that was given alone: to describe the settings of all four takes a second."""
        return {self._command: super().subcommands()[self._command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add `--name`, `--wandb`, `--tags`, `--log_images`, `--checkpoint.*` and `--ema.*`."""
        parser.add_argument(
            "--name", type=str, required=True, help="Run name: written to <root>/<name>/version_N."
        )
        parser.add_argument(
            "--wandb",
            type=Mode,
            default=default_mode(),
            help="Weights & Biases: offline keeps everything on this machine.",
        )
        parser.add_argument("--tags", type=list[str], default=[], help="Tags of the run in W&B.")
        parser.add_argument(
            "--log_images", type=bool, default=False, help="Send a validation scan to W&B; phantoms only."
        )
        parser.add_argument(
            "--images_of_patients", type=bool, default=False, help="With --log_images: patients, too."
        )
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(EMAWeightAveraging, "ema")
        parser.set_defaults({"checkpoint.save_last": True, "checkpoint.save_top_k": 1, "ema.decay": 0.999})
        # At the end of every epoch, not at every validation: those can be far apart.
        parser.set_defaults({"checkpoint.save_on_train_epoch_end": True})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; the output of a task goes to the folder of the run unless told otherwise."""
        super().parse_arguments(parser, args)
        arguments = self.config[self.config.subcommand].model.init_args
        if "output" in arguments and arguments.output is None:
            arguments.output = self.folder()

    def _parse_ckpt_path(self) -> None:
        """Resolve `last`; refuse a checkpoint whose hyper-parameters are not those configured."""
        options = self.config[self.config.subcommand]
        if options.get("ckpt_path") == "last":
            options.ckpt_path = _newest_unfinished(self.folder())
            found = options.ckpt_path
            print(printable(f"rbs: resuming {found}") if found else "rbs: a fresh run")
        if options.get("ckpt_path"):
            compare_with_checkpoint(Path(options.ckpt_path), self._asked()["model"])

    def _asked(self) -> dict[str, Any]:
        """The whole configuration as plain values."""
        dump = self.parser.dump(self.config, skip_link_targets=False, skip_none=False)
        asked: dict[str, Any] = yaml.safe_load(dump)[self.config.subcommand]
        return asked

    def folder(self) -> Path:
        """Folder of the run; each run of a `wandb agent` has one more, as all have one name."""
        options = self.config[self.config.subcommand]
        return Path(options.trainer.default_root_dir) / options.name / (agent_run() or "")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the loggers; `--trainer.default_root_dir` chooses where runs go."""
        folder = self.folder()
        options = self.config[self.config.subcommand]
        csv = Table(folder.parent, name=folder.name)
        loggers: list[Logger] = [csv]
        if options.wandb != "disabled":
            version = f"{folder.relative_to(options.trainer.default_root_dir)}/version_{csv.version}"
            wandb = tracker(
                name=version, folder=csv.log_dir, mode=options.wandb, tags=options.tags, config=self._asked()
            )
            loggers.append(wandb)
        trainer = super().instantiate_trainer(logger=loggers, **kwargs)
        if type(trainer.progress_bar_callback) is RichProgressBar:
            bars = trainer.callbacks  # type: ignore[attr-defined]
            bars[bars.index(trainer.progress_bar_callback)] = TrainingBar()
        trainer.callbacks.append(SameStart(options.get("ckpt_path")))  # type: ignore[attr-defined]
        if options.log_images:
            trainer.callbacks.append(ScanPictures(options.images_of_patients))  # type: ignore[attr-defined]
        return trainer

    def before_fit(self) -> None:
        """Say what decides the speed of the training: how many threads it uses, and bfloat16."""
        print(f"rbs: training with {counted(torch.get_num_threads(), 'CPU thread')}")
        if imitates_bfloat16(self.trainer):
            print(
                f"rbs: this processor has no bfloat16 ({self.trainer.precision}); to imitate it takes ten"
                " times as long as 32 bits: stop, and give --trainer.precision 32-true, or make ..."
                " PRECISION=32-true"
            )

    def after_fit(self) -> None:
        """Mark the version as finished, so that `last` does not resume it."""
        folder = self.trainer.log_dir  # every process must ask: the answer is broadcast
        if folder and self.trainer.is_global_zero and self.trainer.state.finished:
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / FINISHED).touch()


def imitates_bfloat16(trainer: Trainer) -> bool:
    """True for a training in bfloat16 on a processor that has no such numbers."""
    on_cpu = isinstance(trainer.accelerator, CPUAccelerator)
    return on_cpu and "bf16" in trainer.precision and torch.backends.cpu.get_cpu_capability() == "AVX2"


def fit(config: str | Path | Mapping[str, Any], **settings: Any) -> Path:
    """Train an experiment in this process: see `rbs.fit`.

    Raises:
        RbsError: A setting is unknown or has no valid value, or the training cannot start.
    """
    if isinstance(config, Mapping):
        arguments = ["fit", "--config", json.dumps(config, default=str)]
    else:
        arguments = ["fit", f"--name={Path(config).stem}", "--config", str(config)]
    try:
        return run_lightning([*arguments, *_options(settings)], exit_on_error=False).folder()
    except ArgumentError as error:
        raise RbsError(" ".join(str(error).split()), remedy="correct the settings") from error


def _options(settings: Mapping[str, Any], prefix: str = "--") -> Iterator[str]:
    """Options of a command line for nested settings."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _options(value, f"{prefix}{name}.")
        else:
            text = str(value) if isinstance(value, str | Path) else json.dumps(value, default=str)
            yield f"{prefix}{name}={text}"


def run_lightning(arguments: Iterable[str], *, exit_on_error: bool = True) -> RbsCLI:
    """Run `fit`, `validate` or `test` with the arguments that follow `rbs`.

    Args:
        arguments: Those words. A `--config` may name an experiment that comes with rbs.
        exit_on_error: Whether a faulty argument ends the process, with the usage on standard error.

    Returns:
        The command, which has ended.

    Raises:
        RbsError: Something that the user can mend.
        ArgumentError: A faulty argument, without `exit_on_error`.
    """
    # Known and harmless; a user cannot act on them.
    for message in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*LightningCLI's args parameter.*",
        ".*Experiment logs directory .* exists and is not empty.*",  # W&B wrote there a moment ago
        ".*Modules in eval mode.*",
        ".*treespec, LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_float32_matmul_precision("high")
    words, parsing = with_files(arguments), {"exit_on_error": exit_on_error}
    with _one_of_several():
        command = RbsCLI(
            words,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=1,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={
                "default_root_dir": "runs",
                "callbacks": [LearningRateMonitor()],
                "gradient_clip_val": 1.0,
                "log_every_n_steps": 10,
            },
            parser_kwargs={
                "description": "Train and test. --print_config shows every setting and its default.",
                **parsing,
                words[0]: parsing,
            },
        )
    finish()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # Left to the interpreter's end, its threads now and then abort a process that has done its
        # work.
        torch.distributed.destroy_process_group()
    return command


def with_files(arguments: Iterable[str]) -> list[str]:
    """Replace the experiments that `--config` names by their files.

    Raises:
        RbsError: A `--config` is neither a file, nor a name, nor YAML.
    """
    found: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if equals and option in _CONFIG:
            argument = f"{option}={_config(value)}"
        elif found and found[-1] in _CONFIG:
            argument = _config(argument)
        found.append(argument)
    return found


_CONFIG = ("--config", "-c")


def _config(value: str) -> str:
    """The file of an experiment; YAML text stays as it is."""
    return value if set(value) & set("{:\n") else str(experiment_file(value))


@contextmanager
def _one_of_several() -> Iterator[None]:
    """Say in one sentence that another process is gone; the traceback shows only the waiting.

    Raises:
        RbsError: Another process has ended, or cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:
        # NCCL's errors and those of meeting are of torch's kind; gloo's are known by where they
        # come from.
        several = torch.distributed.is_available() and isinstance(error, torch.distributed.DistError)
        if not several and "gloo/transport" not in str(error):
            raise
        reason = re.sub(r"^\[.*?\] ", "", str(error).strip().splitlines()[0]).split(". ")[0]
        raise RbsError(
            f"another process of this training has ended or cannot be reached ({reason})",
            remedy="see what it printed last, then give the same command again, with --ckpt_path last to go"
            " on from the last checkpoint",
        ) from error


def compare_with_checkpoint(path: Path, asked: dict[str, Any]) -> None:
    """Refuse a checkpoint trained with other hyper-parameters than those asked for.

    Args:
        path: A Lightning checkpoint.
        asked: The `model` part of the configuration: `class_path` and `init_args`.

    Raises:
        CheckpointError: The file is missing or unreadable, or a value differs; the message names
            both values.
    """
    if not path.is_file():
        raise CheckpointError("there is no such checkpoint", file=path, remedy="check --ckpt_path")
    stored = read_lightning(path).get("hyper_parameters", {})
    try:
        require_plain(stored)
        stored.pop("_instantiator", None)
    except (ValueError, AttributeError, TypeError):
        fault = "its hyper-parameters are damaged"
        raise CheckpointError(fault, file=path, remedy=COPY_AGAIN) from None
    trained = _flat({"class_path": stored.pop("_class_path", None), "init_args": without_places(stored)})
    wanted = _flat(without_places(asked))
    differences = [
        f"{key}: trained with {trained.get(key)}, asked for {wanted.get(key)}"
        for key in sorted((trained.keys() | wanted.keys()) - _LOCATIONS)
        if trained.get(key) != wanted.get(key)
    ]
    if differences:
        raise CheckpointError(
            "it was trained with other settings (" + "; ".join(differences) + ")",
            file=path,
            remedy="pass the configuration it was trained with (config.yaml beside its folder), or start from"
            " its weights with --model.init_from",
        )


def _flat(tree: Any, prefix: str = "") -> dict[str, str]:
    """Leaves of a nested configuration by dotted key, as text without the `init_args` levels."""
    if isinstance(tree, dict):
        leaves: dict[str, str] = {}
        for key, value in tree.items():
            inner = (
                prefix if key in ("init_args", "dict_kwargs") else f"{prefix}.{key}" if prefix else str(key)
            )
            leaves |= _flat(value, inner)
        return leaves
    return {prefix: str(tree)}


def _newest_unfinished(folder: Path) -> str | None:
    """Newest readable checkpoint of an unfinished run; None where there is nothing to resume.

    A resumed training makes a version of its own: what it resumed stays without a mark of having
    finished. A checkpoint that was being written when its training was killed may be truncated: it
    is named, and the one before it is taken.

    Raises:
        CheckpointError: There are checkpoints, but none can be read.
    """
    damaged = []
    for version in reversed(versions(folder)):
        if (version / FINISHED).exists():
            break
        for path in _newest_first(version / "checkpoints"):
            if _is_readable(path):
                return str(path)
            print(f"rbs: {printable(path)} is truncated or damaged, so an older checkpoint is looked for")
            damaged.append(path)
    if damaged:
        remedy = "delete the folder of its version to start afresh"
        raise CheckpointError(
            "neither it nor an older checkpoint can be read", file=damaged[0], remedy=remedy
        )
    return None


def _newest_first(folder: Path) -> list[Path]:
    """Checkpoints of a version, newest first; `last` is written after one of the same step."""
    return sorted(
        folder.glob("*.ckpt"),
        key=lambda path: (path.stat().st_mtime, path.name.startswith("last")),
        reverse=True,
    )


def _is_readable(path: Path) -> bool:
    try:
        read_lightning(path)
    except CheckpointError:
        return False
    return True

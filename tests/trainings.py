"""Trainings of seconds for tests, and how far apart two of them ended."""

import csv
from itertools import chain
from pathlib import Path

import yaml
from lightning.pytorch import Trainer
from torch import Tensor

from rbs.restorers.checkpoint import load_restorer

ROOT = Path(__file__).parents[1]


def of_frames(config: Path) -> bool:
    path = yaml.safe_load(config.read_text())["data"]["class_path"]
    return "endoscopy" in path or "frames" in path


def of_phantoms(config: Path) -> bool:
    """True for an experiment that reads more of a phantom than its scans and truth."""
    return ".described_scans." in yaml.safe_load(config.read_text())["data"]["class_path"]


def small(config: Path, manifest: Path, runs: Path) -> list[str]:
    """Arguments that shrink an experiment to two steps on a tiny cohort, with the same parts."""
    settings = yaml.safe_load(config.read_text())
    needed = runs / "endoscopy" if of_frames(config) else runs
    arguments = ["--config", str(config), "--config", str(ROOT / "experiments" / "overlays" / "cpu.yaml")]
    arguments += ["--trainer.default_root_dir", str(runs), "--wandb", "disabled", "--trainer.max_steps", "2"]
    arguments += ["--trainer.limit_val_batches", "1", "--trainer.enable_progress_bar", "false"]
    arguments += ["--trainer.val_check_interval", "null", "--trainer.check_val_every_n_epoch", "1"]
    arguments += ["--data.init_args.batch_size", "1", "--data.init_args.samples_per_epoch", "2"]
    if "manifest" in settings["data"]["init_args"]:
        arguments += ["--data.init_args.manifest", str(manifest)]
        if not of_phantoms(config):  # shown whole
            arguments += ["--data.init_args.crop", "[64, 64]"]
    if "encoder" in settings["data"]["init_args"]:
        for part in ("data", "model"):
            encoder = needed / "describe" / "semantic.safetensors"
            arguments += [f"--{part}.init_args.encoder", str(encoder)]
        arguments += ["--data.init_args.scans", "2", "--data.init_args.together", "1"]
    if "poor" in settings["data"]["init_args"]:
        for side, file in zip(("good", "poor"), unpaired_manifests(manifest), strict=True):
            arguments += [f"--data.init_args.{side}", str(file)]
        arguments += ["--data.init_args.crop", "[64, 64]"]
    if "crops_per_child" in settings["data"]["init_args"]:
        arguments += ["--data.init_args.crops_per_child", "1"]
    if "realisations" in settings["data"]["init_args"]:  # of each a prior is computed
        arguments += ["--data.init_args.realisations", "2"]
    if settings["model"]["class_path"].endswith("AdaptTeacher"):
        arguments += ["--model.init_args.decoder_steps", "2"]
    if settings["model"]["class_path"].endswith("DrawScans"):
        arguments += ["--model.init_args.scans", "2"]
    of_model = settings["model"].get("init_args", {})
    if str(of_model.get("init_from", "")).startswith("runs/"):
        arguments += ["--model.init_args.init_from", str(needed / "stage1" / "restorer.safetensors")]
    if of_model.get("stage") == 2:
        arguments += ["--model.init_args.prior.teacher", str(needed / "adapt_sam" / "teacher")]
        arguments += ["--model.init_args.prior.cache", str(needed / "priors")]
    if "cascade_from" in of_model:
        arguments += ["--model.init_args.cascade_from", str(needed / "phased_a" / "cascade.safetensors")]
    return arguments


def with_small_nafnet(arguments: list[str]) -> list[str]:
    """The same, of an experiment with a NAFNet, which gets two levels of one block and 8 channels."""
    sizes = {"width": "8", "enc_blocks": "[1]", "middle_blocks": "1", "dec_blocks": "[1]"}
    words = ([f"--model.init_args.f1.init_args.{name}", value] for name, value in sizes.items())
    return [*arguments, *chain(*words)]


def unpaired_manifests(manifest: Path) -> list[Path]:
    """Manifests beside one, of every other training patient or video: good images, and poor ones."""
    with manifest.open(newline="") as file:
        training = [row for row in csv.DictReader(file) if row["split"] == "train"]
    units = [row.get("patient", row.get("group")) for row in training]
    files = [manifest.with_name(f"{side}.csv") for side in ("good", "poor")]
    for place, path in enumerate(files):
        kept = sorted(set(units))[place::2]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, training[0])
            writer.writeheader()
            writer.writerows(row for row, unit in zip(training, units, strict=True) if unit in kept)
    return files


def brief_trainer(folder: Path, steps: int, **options: object) -> Trainer:
    """A trainer of so many steps that validates nothing, keeps no checkpoint and says nothing."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    short = {"num_sanity_val_steps": 0, "limit_val_batches": 0, "enable_checkpointing": False}
    return Trainer(
        max_steps=steps, accelerator="cpu", default_root_dir=folder, **{**quiet, **short, **options}
    )


def weights(path: Path) -> dict[str, Tensor]:
    """Those of the first restorer in a weight file or a checkpoint."""
    return load_restorer(path).restorer.state_dict()


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference between two weights."""
    return max(float((one[name] - other[name]).abs().max()) for name in one)

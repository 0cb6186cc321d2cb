"""Adapters of SAM at one budget of computing: what of it is trained, and what that costs.

    python benchmarks/adapters.py MANIFEST OUTPUT [--mode lora] [--children 24] [--seconds 60]

Every mode of `AdaptTeacher` starts from one decoder, taught alone for 100 steps, then trains for as
many steps as fill the seconds of one core, measured beforehand. Pixels are summed up 2 x 2. Test
children's rapid scans are scored. Each run adds a row to OUTPUT/adapters.csv: mean over regions of
the mean Dice over children, with its bootstrap interval over children, and that difference from
LoRA, paired. A teacher of mode "lora" is scored again with its encoder's linear layers in 8 bits.
Modes whose row is there are left out: an interrupted comparison goes on.
"""

import argparse
import csv
import io
import time
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.ao.quantization import quantize_dynamic

from rbs.data.bone_scans import RBSDataModule
from rbs.data.labelled_scans import binned
from rbs.data.loading import LoadedCase
from rbs.data.manifest import Case
from rbs.evaluation.statistics.summary import RESAMPLES, SEED
from rbs.segmentation.adapters import Mode, load_teacher, save_teacher
from rbs.segmentation.sam import find_checkpoint
from rbs.segmentation.teacher import Teacher
from rbs.tasks.adapt_teacher import AdaptTeacher
from rbs.tasks.task import spacing_of

MODES: tuple[Mode, ...] = ("lora", "dora", "ia3", "decoder", "full")
NAMES = {"lora": "LoRA", "dora": "DoRA", "ia3": "(IA)3", "decoder": "decoder alone", "full": "all of SAM"}
EIGHT_BITS = "LoRA, encoder's linear layers in 8 bits"
DECODER_STEPS = 100


class Halved(RBSDataModule):
    """Whole scans of half as many rows and columns, of the first training children; none in val."""

    children: int

    def cases(self, split: str) -> list[Case]:
        """Cases of a split."""
        return super().cases(split)[: self.children if split == "train" else None]

    def _read(self, split: str) -> list[LoadedCase]:
        return [] if split == "val" else [binned(scan, 2) for scan in super()._read(split)]

    def _registered(self, split: str) -> bool:
        return False


class Taught(AdaptTeacher):
    """Starts from a decoder that was taught before."""

    file: Path

    def on_fit_start(self) -> None:
        """Read it."""
        self.load_state_dict(torch.load(self.file), strict=False)


def main() -> None:
    """Train and score what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--mode", choices=MODES, nargs="+", default=MODES)
    parser.add_argument("--children", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = Halved(
        args.manifest,
        pairs="measured",
        crop=(512, 128),
        batch_size=2,
        samples_per_epoch=10_000,
        num_workers=0,
        single_view_probability=0.0,
    )
    data.children = args.children
    args.output.mkdir(parents=True, exist_ok=True)
    table = args.output / "adapters.csv"
    there = table.read_text() if table.exists() else ""
    for mode in (mode for mode in args.mode if f"\n{NAMES[mode]}," not in there):
        row, teacher = trained(mode, data, args.output, args.seconds)
        record(args.output, NAMES[mode], row | scored(teacher, data))
        if mode == "lora":
            teacher.image_encoder = quantize_dynamic(teacher.image_encoder, {nn.Linear}, torch.qint8)
            record(args.output, EIGHT_BITS, scored(teacher, data))


def trained(mode: Mode, data: Halved, output: Path, seconds: float) -> tuple[dict[str, Any], Teacher]:
    """What the training took, and the teacher as it is read back from its folder."""
    lightning.seed_everything(1, verbose=False)
    task = AdaptTeacher(mode)
    task.setup("fit")
    data.setup("fit")
    steps = int(seconds / seconds_of_a_step(task, data))
    lightning.seed_everything(1, verbose=False)
    task = Taught(mode)
    task.file = taught_decoder(data, output)
    began = time.process_time()
    trainer(output, steps).fit(task, data)
    took = time.process_time() - began
    folder, encoder = output / mode, task.teacher.image_encoder
    save_teacher(folder, task.teacher, mode=mode, rank=task.rank, base=find_checkpoint("vit_t"))
    row = {
        "encoder_parameters": sum(w.numel() for w in encoder.parameters() if w.requires_grad),
        "steps": steps,
        "core_seconds": round(took),
        "file_mb": round((folder / "teacher.safetensors").stat().st_size / 1e6, 2),
    }
    return row, load_teacher(folder)


def taught_decoder(data: Halved, output: Path) -> Path:
    """File of the decoder that all modes start from."""
    file = output / "decoder.pt"
    if not file.exists():
        task = AdaptTeacher("decoder", decoder_steps=DECODER_STEPS, lr=0.0)
        trainer(output, 1).fit(task, data)
        trained = {n: w for n, w in task.state_dict().items() if "image_encoder" not in n}
        torch.save(trained, file)
    return file


def trainer(output: Path, steps: int) -> lightning.Trainer:
    """A training of so many steps, without validation."""
    return lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=output,
    )


def seconds_of_a_step(task: AdaptTeacher, data: Halved) -> float:
    """Seconds of one core for forward, backward and the optimiser, the fastest of three."""
    weights = [w for w in task.parameters() if w.requires_grad]
    optimizer = torch.optim.AdamW(weights, 1e-6)
    task.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    took = []
    for _, batch in zip(range(3), data.train_dataloader(), strict=False):
        began = time.process_time()
        optimizer.zero_grad()
        task.training_step(batch, 0).backward()
        optimizer.step()
        took.append(time.process_time() - began)
    return min(took)


@torch.inference_mode()
def scored(teacher: Teacher, data: Halved) -> dict[str, Any]:
    """Dice by child and region, size of the encoder, and time of a scan of two views."""
    data.setup("test")
    names, took, dice = teacher.labels.names, [], []
    for batch in data.test_dataloader():
        x = batch["rapid"] / batch["exposure"][:, None, None, None]
        began = time.process_time()
        found = teacher.logits(x, batch["exposure"], spacing_of(batch))[0].argmax(dim=1)
        took.append(time.process_time() - began)
        masks, there = (teacher.labels.masks(labels) for labels in (found, batch["labels"][0]))
        both, either = (masks & there).sum((0, 2, 3)), masks.sum((0, 2, 3)) + there.sum((0, 2, 3))
        present = there.sum((0, 2, 3)) > 0
        dice.append(torch.where(present, 2 * both / either.clamp(min=1), torch.nan).numpy())
    encoder = io.BytesIO()
    torch.save(teacher.image_encoder.state_dict(), encoder)
    return {
        "encoder_mb": round(encoder.tell() / 1e6, 2),
        "scan_ms": round(1e3 * float(np.median(took))),
        "dice_by_child": np.array(dice),
        "names": names,
    }


def record(output: Path, name: str, row: dict[str, Any]) -> None:
    """Add a row to the table; Dice by child is kept beside it, for the differences from LoRA."""
    dice, names = row.pop("dice_by_child"), row.pop("names")
    kept = output / f"{name.replace(' ', '_').replace('/', '')}.npy"
    np.save(kept, dice)
    reference = np.load(output / "LoRA.npy")
    low, high = interval(lambda chosen: pooled(dice[chosen]), len(dice))
    gain_low, gain_high = interval(lambda chosen: pooled(dice[chosen]) - pooled(reference[chosen]), len(dice))
    row = {
        "adaptation": name,
        **{key: row.get(key, "") for key in ("encoder_parameters", "steps", "core_seconds", "file_mb")},
        "encoder_mb": row["encoder_mb"],
        "scan_ms": row["scan_ms"],
        **{n.replace(" ", "_"): f"{v:.2f}" for n, v in zip(names, np.nanmean(dice, axis=0), strict=True)},
        "mean": f"{pooled(dice):.3f}",
        "mean_low": f"{low:.3f}",
        "mean_high": f"{high:.3f}",
        "gain": f"{pooled(dice) - pooled(reference):.3f}",
        "gain_low": f"{gain_low:.3f}",
        "gain_high": f"{gain_high:.3f}",
    }
    table = output / "adapters.csv"
    new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(row)


def pooled(dice: npt.NDArray[np.float64]) -> float:
    """Mean over regions of the mean over children who have the region."""
    return float(np.nanmean(np.nanmean(dice, axis=0)))


def interval(statistic: Any, children: int) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a statistic of the chosen children."""
    rng = np.random.default_rng(SEED)
    values = [statistic(rng.integers(children, size=children)) for _ in range(RESAMPLES)]
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


if __name__ == "__main__":
    main()

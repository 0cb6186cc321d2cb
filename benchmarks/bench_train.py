"""Training steps of both stages by source of priors, precision and compilation; the teacher's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from steps import Training

import rbs
from rbs.data.bone_scans import RBSDataModule
from rbs.data.endoscopy import EndoscopyDataModule
from rbs.restorers.nafnet import NAFNet
from rbs.segmentation.sam import ARCHITECTURES
from rbs.tasks.adapt_teacher import AdaptTeacher
from rbs.tasks.priors import PriorConfig
from rbs.tasks.restoration import RestorationTask


def measured(measure: Any, benchmark: Any, training: Training, rounds: int, warm_up: int, of: int) -> None:
    """Measure steps of a training, and say what its parts took and where its loss is."""
    with training:
        measure(training.step, rounds=rounds, warm_up=warm_up, of=of)
    benchmark.extra_info["parts_core_s"] = training.parts
    benchmark.extra_info["first_losses"] = [round(loss, 5) for loss in training.losses[:3]]


@pytest.mark.benchmark(group="training: a step of stage 1, eight crops")
@pytest.mark.parametrize("way", ["scans", "scans, bf16", "scans, compiled", "frames", "frames, bf16"])
def test_stage1(
    measure: Any,
    benchmark: Any,
    sizes: Any,
    cohort: Path,
    frames: Path,
    request: pytest.FixtureRequest,
    way: str,
) -> None:
    """As experiments/stage1.yaml and experiments/endoscopy/stage1.yaml train."""
    if "bf16" in way and sizes.whole:
        request.getfixturevalue("bfloat16")
    if "compiled" in way and not sizes.whole:
        pytest.skip("compiling takes long")
    crop, batch = (sizes.crop, sizes.crop), 8 if sizes.whole else 2
    data: Any
    if "scans" in way:
        data = RBSDataModule(cohort, crop=crop, batch_size=batch, num_workers=0)
    else:
        data = EndoscopyDataModule(frames, crop=crop, batch_size=batch, num_workers=0)
    torch.manual_seed(1)
    f1 = NAFNet(domain="roots" if "scans" in way else "colours")
    if "compiled" in way:
        f1.features = torch.compile(f1.features)  # type: ignore[method-assign]
    training = Training(RestorationTask(f1), data, "bf16-mixed" if "bf16" in way else "32-true")
    measured(measure, benchmark, training, rounds=6, warm_up=4, of=batch)


RANKS_STEPS = (10, 40)
"""Steps of a short and of a longer training: the difference is steps alone, without start and
end."""


@pytest.mark.benchmark(group="training: ranks of one thread each, eight crops a step among them")
@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks(measure: Any, benchmark: Any, sizes: Any, cohort: Path, tmp_path: Path, ranks: int) -> None:
    """`rbs fit` by DDP. Seconds are those of the longer training; `a_step_s` is what to compare."""
    if not sizes.whole:
        pytest.skip("processes of their own take long")
    root = Path(rbs.__file__).parents[1]
    arguments = f"""-m rbs.cli fit --config experiments/stage1.yaml --config experiments/overlays/cpu.yaml
        --data.manifest {cohort} --data.batch_size {8 // ranks} --wandb disabled
        --trainer.devices {ranks} --trainer.strategy ddp --trainer.limit_val_batches 0
        --trainer.num_sanity_val_steps 0 --trainer.enable_progress_bar false"""

    def fit(steps: int) -> float:
        begun = time.perf_counter()
        more = ["--trainer.max_steps", str(steps), "--trainer.default_root_dir", str(tmp_path / f"{steps}")]
        subprocess.run(
            [sys.executable, *arguments.split(), *more],
            cwd=root,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - begun

    short, longer = RANKS_STEPS
    spent = fit(short)
    benchmark.extra_info["a_step_s"] = (measure(partial(fit, longer), rounds=1, warm_up=0) - spent) / (
        longer - short
    )


SCANS_A_STEP = {"vit_t": 4, "vit_b": 1}
"""A single crop with vit_b: its look at a whole scan takes half a minute on two cores."""


@pytest.mark.benchmark(group="training: a step of stage 2")
@pytest.mark.parametrize("size", ["vit_t", "vit_b"])
@pytest.mark.parametrize("prior", ["cached", "frozen", "online", "none"])
def test_stage2(
    measure: Any,
    benchmark: Any,
    sizes: Any,
    cohort: Path,
    stage1: Path,
    teachers: Any,
    base_weights: Any,
    tmp_path: Path,
    size: Any,
    prior: Any,
) -> None:
    """Priors of whole scans read or computed anew, of the crop itself, or none, with SPI and SKD.

    SCM is off: it encodes every crop whatever the priors are, which a cache cannot save.
    """
    if prior == "none" and not sizes.whole:
        pytest.skip("without priors the small run does what it does with cached ones, and less")
    crop, batch = (sizes.crop, sizes.crop), SCANS_A_STEP[size] if sizes.whole else 1
    teacher = teachers(size)
    torch.manual_seed(1)  # now, so that all begin alike
    task = RestorationTask(
        NAFNet(),
        stage=2,
        scm=False,
        spi=prior != "none",
        prior=PriorConfig(
            source="cached" if prior == "none" else prior,
            teacher=teacher,
            embedding_dim=ARCHITECTURES[size].channels,
            base_checkpoint=base_weights(size),
            cache=tmp_path,
        ),
        init_from=stage1,
    )
    manifest = one_to_train_on(cohort) if size == "vit_b" else cohort
    data = RBSDataModule(
        manifest, realisations=1, crop=crop, batch_size=batch, num_workers=0, single_view_probability=0.0
    )
    slow = size == "vit_b" and prior == "frozen"
    measured(measure, benchmark, Training(task, data), 2 if slow else 5, 1 if slow else 4, batch)


def one_to_train_on(cohort: Path) -> Path:
    """The cohort with but one child to train on: priors of vit_b take long to fill a cache."""
    head, *rows = cohort.read_text().splitlines()
    training = [row for row in rows if ",train," in row]
    path = cohort.with_name("one.csv")
    path.write_text("\n".join([head, *(row for row in rows if row not in training[1:])]) + "\n")
    return path


@pytest.mark.benchmark(group="training: a step that adapts the teacher, two views of a quarter of a scan")
@pytest.mark.parametrize("way", ["kept", "recomputed"])
@pytest.mark.parametrize("size", ["vit_t", "vit_b"])
def test_adapting(
    measure: Any, benchmark: Any, sizes: Any, base_weights: Any, device: torch.device, size: Any, way: str
) -> None:
    """Forward and backward through a teacher with LoRA, activations kept or computed again."""
    torch.manual_seed(0)
    task = AdaptTeacher("lora", size, checkpoint=base_weights(size))
    task.setup("fit")
    task.to(device).teacher.recomputes = way == "recomputed"
    side = 256 if sizes.whole else 64
    images = torch.poisson(torch.full((1, 2, side, side), 3.0)).to(device)
    labels = torch.zeros((2, side, side), dtype=torch.long, device=device)
    grown = []

    def step() -> None:
        before = memory_gb(device)
        logits = task.teacher.logits(images, torch.ones(1), torch.ones(1, 2))
        loss = task.objective(logits.flatten(0, 1), labels)
        grown.append(memory_gb(device) - before)
        loss.backward()

    measure(step, rounds=3, of=2)
    benchmark.extra_info["kept_GB"] = max(grown) / 2


def memory_gb(device: torch.device) -> float:
    """Memory allocated on the accelerator, or held by this process, GB."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated() / 1e9
    told = Path("/proc/self/statm")
    return int(told.read_text().split()[1]) * 4096 / 1e9 if told.exists() else float("nan")

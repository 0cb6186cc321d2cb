"""Fixtures of the benchmarks: sizes, subjects, the machine, wall and core seconds.

`make bench` runs them on whole scans. With --benchmark-disable each runs once on a small one: a
test does so, to keep them running.
"""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rbs.data.loading import load_case
from rbs.data.manifest import Manifest
from rbs.data.mucosa import write_mucosa
from rbs.evaluation.scans.metrics import Target
from rbs.evaluation.scans.pairs import ScanPair
from rbs.inference.onnx_export import export_onnx
from rbs.restorers.checkpoint import LoadedRestorer, load_restorer, save_restorer
from rbs.segmentation.adapters import save_teacher, start, trainable_teacher
from rbs.segmentation.sam import ARCHITECTURES, SHIPPED, build_sam
from rbs.synthetic.cohort import write_cohort
from rbs.utils.memory import keep_memory

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
keep_memory()  # as the command `rbs` does


@dataclass(frozen=True)
class Sizes:
    """Extent of the measurements.

    Attributes:
        children: Of the cohort.
        scan: Rows and columns of the two-view scan that is restored.
        crop: Side of training crops, pixels.
        samples: Training crops drawn in a round.
        frame: Side of endoscopic frames, pixels.
        whole: Whether what takes long is done at all: large teachers, compilers, processes of their
            own.
    """

    children: int = 8
    scan: tuple[int, int] = (1024, 256)
    crop: int = 128
    samples: int = 128
    frame: int = 256
    whole: bool = True


SMALL = Sizes(children=3, scan=(128, 64), crop=32, samples=8, frame=96, whole=False)


@pytest.fixture(scope="session")
def sizes(request: pytest.FixtureRequest) -> Sizes:
    """Small ones where nothing is measured."""
    return SMALL if request.config.getoption("benchmark_disable") else Sizes()


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The accelerator where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def bfloat16(device: torch.device) -> None:
    """Skip where the processor would only imitate these bits, ten times as slowly as 32."""
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        pytest.skip("this processor has no bfloat16")


def core_seconds() -> float:
    """Seconds of the cores that this process has had, and those it started that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@pytest.fixture
def measure(benchmark: Any, device: torch.device) -> Callable[..., Any]:
    """A function that measures another one, and returns what that returned last.

    measure(work, rounds=5, warm_up=1, of=1, **about): `of` is how many things a call works on, and
    `about` further entries of the table. Core seconds stand beside wall seconds: on a busy machine
    they are what to go by.
    """

    def measured(
        work: Callable[[], Any], *, rounds: int = 5, warm_up: int = 1, of: int = 1, **about: Any
    ) -> Any:
        spent: list[float] = []

        def once() -> Any:
            before = core_seconds()
            result = work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            spent.append(core_seconds() - before)
            return result

        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        result = benchmark.pedantic(once, rounds=rounds, warmup_rounds=warm_up, iterations=1)
        benchmark.extra_info |= {"core_s": statistics.median(spent[-rounds:]), "of": of, **about}
        if device.type == "cuda":
            benchmark.extra_info["accelerator_GB"] = torch.cuda.max_memory_allocated() / 1e9
        return result

    return measured


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Facts that speed depends on beside the processor."""
    machine_info["torch"] = torch.__version__
    machine_info["threads"] = torch.get_num_threads()
    machine_info["load"] = os.getloadavg()[0]
    machine_info["accelerator"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None


# --- subjects


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory, sizes: Sizes) -> Path:
    """Manifest of phantom children: one to validate, one to test, the others to train on."""
    folder = tmp_path_factory.mktemp("cohort") / "phantoms"
    return write_cohort(folder, sizes.children, seed=5, workers=1, progress=False)


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory, sizes: Sizes) -> Path:
    """Manifest of drawn frames of six videos."""
    return write_mucosa(tmp_path_factory.mktemp("mucosa"), 6, 2, sizes.frame, seed=2, progress=False)


@pytest.fixture(scope="session")
def child(cohort: Path) -> Path:
    """The rapid scan of the child to test on, a file."""
    (case,) = Manifest.read(cohort).split("test")
    return case.rapid[0]


@pytest.fixture(scope="session")
def pair(cohort: Path, sizes: Sizes) -> ScanPair:
    """That child with its truth; of small size the trunk."""
    (case,) = Manifest.read(cohort).split("test")
    scan = load_case(case)
    assert scan.rapid is not None
    assert scan.exposure is not None
    rows, columns = (
        slice((whole - part) // 3 * (part < whole), (whole - part) // 3 * (part < whole) + part)
        for whole, part in zip(scan.standard.shape[1:], sizes.scan, strict=True)
    )
    cut = (slice(None), rows, columns)
    assert scan.expectation is not None
    target = Target(scan.standard[cut], 1.0, scan.spacing_mm, expectation=scan.expectation[cut])
    return ScanPair(case.patient, scan.rapid[cut], scan.exposure, target)


@pytest.fixture(scope="session")
def loaded(device: torch.device) -> LoadedRestorer:
    """The shipped restorer, on the device."""
    shipped = load_restorer()
    return replace(shipped, restorer=shipped.restorer.to(device))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, sizes: Sizes) -> Path:
    """The shipped restorer as ONNX."""
    pytest.importorskip("onnxscript")
    if not sizes.whole:
        pytest.skip("exporting takes long")
    path = tmp_path_factory.mktemp("onnx") / "restorer.onnx"
    export_onnx(load_restorer(), path)
    return path


@pytest.fixture(scope="session")
def stage1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for stage 2 to start from: the shipped ones."""
    path = tmp_path_factory.mktemp("stage1") / "restorer.safetensors"
    save_restorer(path, load_restorer().restorer, {})
    return path


@pytest.fixture(scope="session")
def base_weights(tmp_path_factory: pytest.TempPathFactory, sizes: Sizes) -> Callable[[str], Path]:
    """Base weights of a SAM by size: shipped for vit_t, random for those Meta published."""
    folder = tmp_path_factory.mktemp("sam")

    def weights(size: str) -> Path:
        if size == "vit_t":
            return SHIPPED
        if not sizes.whole:
            pytest.skip("large teachers take long")
        path = folder / f"{size}.safetensors"
        if not path.exists():
            torch.manual_seed(0)
            state = ARCHITECTURES[size].build().state_dict()
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
        return path

    return weights


@pytest.fixture(scope="session")
def teachers(
    tmp_path_factory: pytest.TempPathFactory, base_weights: Callable[[str], Path]
) -> Callable[[str], Path]:
    """Folder of an untrained teacher by size: it costs the same as a trained one."""
    root = tmp_path_factory.mktemp("teachers")

    def folder(size: Any) -> Path:
        base = base_weights(size)
        if not (root / size).exists():
            teacher = trainable_teacher(size, "lora", 8)
            start(teacher, build_sam(size, base))
            save_teacher(root / size, teacher, mode="lora", rank=8, base=base)
        return root / size

    return folder

"""Restoring one scan, from the start of the process to the file, part by part; and a folder."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from pydicom.uid import generate_uid

import rbs
from rbs.clinic.checks import check, contradictions
from rbs.clinic.restore_scans import restore_scan
from rbs.evaluation.methods import restorer_method
from rbs.evaluation.scans.classical import available
from rbs.evaluation.scans.metrics import psnr_truth
from rbs.evaluation.scans.pairs import ScanPair
from rbs.inference.onnx import load_shipped
from rbs.restorers.checkpoint import LoadedRestorer, load_restorer
from rbs.scans.dicom.reader import read_nm
from rbs.scans.dicom.writer import Derivation, write_restored_nm
from rbs.weights.shipped import SHIPPED

AND_MEMORY = """
import sys
from pathlib import Path
from rbs.cli.main import main
status = main(sys.argv[1:])
told = Path("/proc/self/status")
lines = told.read_text().splitlines() if told.exists() else []
print(next((line for line in lines if line.startswith("VmHWM")), ""))
sys.exit(status)
"""
"""`rbs`, saying in the end what memory it took; the system's answer would begin with that of who
asked."""


def process(code: str, *arguments: str | Path) -> str:
    """Run Python code in a process of its own; returns what it printed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(rbs.__file__).parents[1])
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def peak_gb(printed: str) -> float | None:
    """The peak memory in what `AND_MEMORY` printed, GB."""
    last = printed.splitlines()[-1]
    return int(last.split()[1]) / 1e6 if last.startswith("VmHWM") else None


# --- the process


@pytest.mark.benchmark(group="process: one two-view scan, start to file")
@pytest.mark.parametrize("what", ["import torch", "rbs --help", "rbs restore", "rbs restore, by PyTorch"])
def test_process(measure: Any, sizes: Any, child: Path, tmp_path: Path, benchmark: Any, what: str) -> None:
    """Start-up: most of restoring a single scan."""
    if not sizes.whole:
        pytest.skip("a process of its own takes long")
    if what == "import torch":
        measure(lambda: process("import torch"), rounds=3)
        return
    if what == "rbs --help":
        measure(lambda: process("from rbs.cli.main import main; main(['--help'])"), rounds=3)
        return
    weights = ["--checkpoint", SHIPPED] if "PyTorch" in what else []

    def restore() -> str:
        (tmp_path / "restored.dcm").unlink(missing_ok=True)
        return process(AND_MEMORY, "restore", child, tmp_path / "restored.dcm", *weights)

    benchmark.extra_info["peak_GB"] = peak_gb(measure(restore, rounds=3))


@pytest.mark.benchmark(group="process: a folder of scans, by its size")
@pytest.mark.parametrize("number", [50, 200])
def test_folder(measure: Any, sizes: Any, child: Path, tmp_path: Path, benchmark: Any, number: int) -> None:
    """Memory must not grow with the folder; the larger takes longer by its scans alone."""
    if not sizes.whole:
        pytest.skip("a process of its own takes long")
    scan = pydicom.dcmread(child)
    for name in range(number):
        (tmp_path / "in" / f"{name}").mkdir(parents=True)
        scan.StudyInstanceUID = generate_uid()  # scans of one study are in memory together
        scan.save_as(tmp_path / "in" / f"{name}" / "rapid.dcm")
    restore = partial(process, AND_MEMORY, "restore", tmp_path / "in", tmp_path / "out")
    benchmark.extra_info["peak_GB"] = peak_gb(measure(restore, rounds=1, warm_up=0, of=number))


# --- its parts


@pytest.mark.benchmark(group="restoring: parts, in a process that goes on")
@pytest.mark.parametrize(
    "part",
    [
        "forward",
        "forward, by PyTorch",
        "load weights",
        "load weights, by PyTorch",
        "read",
        "check",
        "contradictions",
        "write",
    ],
)
def test_part(
    measure: Any, sizes: Any, child: Path, loaded: LoadedRestorer, tmp_path: Path, part: str
) -> None:
    """Each step of `rbs restore` on a scan of full size."""
    scan, shipped = read_nm(child), load_shipped()
    restored = restore_scan(scan, shipped) if sizes.whole else scan
    made_by = Derivation(loaded.name, loaded.version, loaded.sha256)
    parts: dict[str, Callable[[], Any]] = {
        "forward": lambda: restore_scan(scan, shipped),
        "forward, by PyTorch": lambda: restore_scan(scan, loaded),
        "load weights": load_shipped,
        "load weights, by PyTorch": load_restorer,
        "read": lambda: read_nm(child),
        "check": lambda: check(scan, trained_on=loaded.provenance),
        "contradictions": lambda: contradictions(scan, restored, 0.5),
        "write": lambda: write_restored_nm(
            tmp_path / "restored.dcm", restored, scan, derivation=made_by, overwrite=True
        ),
    }
    measure(parts[part], rounds=7)


# --- ways to compute the same: each makes, of a restorer and its input, a function that restores


def plain(loaded: LoadedRestorer, x: torch.Tensor, p: torch.Tensor, exported: Any) -> Callable[[], Any]:
    """PyTorch as it is: 32 bits, channels last."""
    return lambda: loaded.restorer(x, p)


def channels_first(
    loaded: LoadedRestorer, x: torch.Tensor, p: torch.Tensor, exported: Any
) -> Callable[[], Any]:
    """The network on channels that lie as PyTorch lays them by itself."""
    restorer = deepcopy(loaded.restorer)
    features = restorer.features
    restorer.features = lambda seen: features(seen.contiguous())  # type: ignore[method-assign]
    return lambda: restorer(x, p)


def weights_last(
    loaded: LoadedRestorer, x: torch.Tensor, p: torch.Tensor, exported: Any
) -> Callable[[], Any]:
    """The weights lie as the images do, too."""
    restorer = deepcopy(loaded.restorer).to(memory_format=torch.channels_last)
    return lambda: restorer(x, p)


def bfloat16(loaded: LoadedRestorer, x: torch.Tensor, p: torch.Tensor, exported: Any) -> Callable[[], Any]:
    """The network in half of the bits; physics stays in 32."""

    def work() -> Any:
        with torch.autocast(x.device.type, torch.bfloat16):
            return loaded.restorer(x, p)

    return work


def compiled(loaded: LoadedRestorer, x: torch.Tensor, p: torch.Tensor, exported: Any) -> Callable[[], Any]:
    """`torch.compile`, for this size."""
    restorer = torch.compile(deepcopy(loaded.restorer))
    return lambda: restorer(x, p)


def onnx(loaded: LoadedRestorer, x: torch.Tensor, p: torch.Tensor, exported: Any) -> Callable[[], Any]:
    """The graph that `rbs export` writes, by ONNX Runtime on as many threads."""
    return session(exported("exported"), x, p)


def onnx_int8(loaded: LoadedRestorer, x: torch.Tensor, p: torch.Tensor, exported: Any) -> Callable[[], Any]:
    """The same with convolutions in eight bits, calibrated on another draw of this very scan."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    path = exported("exported")
    int8 = path.with_name("int8.onnx")

    class Crops(CalibrationDataReader):
        def __init__(self) -> None:
            noisy = torch.poisson(x.cpu() / 2, generator=torch.Generator().manual_seed(1)) * 2
            self.crops = iter(noisy.split(128, dim=2))

        def get_next(self) -> dict[str, Any] | None:
            crop = next(self.crops, None)
            return None if crop is None else {"rapid": crop.numpy(), "exposure": p.cpu().numpy()}

    quantize_static(
        path, int8, Crops(), quant_format=QuantFormat.QDQ, op_types_to_quantize=["Conv"], per_channel=True
    )
    return session(int8, x, p)


def session(path: Path, x: torch.Tensor, p: torch.Tensor) -> Callable[[], Any]:
    """A call of ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    network = onnxruntime.InferenceSession(path.read_bytes(), options)
    inputs = {"rapid": x.cpu().numpy(), "exposure": p.cpu().numpy()}
    return lambda: torch.from_numpy(network.run(None, inputs)[0])


WAYS = (plain, channels_first, weights_last, bfloat16, compiled, onnx, onnx_int8)


@pytest.mark.benchmark(group="forward: ways to compute the same")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_forward(
    measure: Any,
    sizes: Any,
    loaded: LoadedRestorer,
    pair: ScanPair,
    device: torch.device,
    benchmark: Any,
    request: pytest.FixtureRequest,
    way: Any,
) -> None:
    """Seconds; and the loss of the answer: dB of PSNR to the truth, largest and total counts."""
    if way is compiled and not sizes.whole:
        pytest.skip("compiling takes long")
    if way is bfloat16 and sizes.whole:
        request.getfixturevalue("bfloat16")
    seen, exposure = pair.network_input
    x, p = torch.as_tensor(seen, device=device)[None], torch.full((1,), exposure, device=device)
    with torch.inference_mode():
        wanted = loaded.restorer(x, p)[0].cpu().numpy()
        start = time.perf_counter()
        work = way(loaded, x, p, request.getfixturevalue)
        answer = work()
        first_s = time.perf_counter() - start
        answer = measure(work)[0].float().cpu().numpy()
    benchmark.extra_info |= {
        "first_s": first_s if way is compiled else None,
        "dB": psnr_truth(answer, pair.target) - psnr_truth(wanted, pair.target),
        "largest_%_of_peak": 100 * float(np.abs(answer - wanted).max() / wanted.max()),
        "counts_%": 100 * float(answer.sum() / wanted.sum() - 1),
    }


PEERS = {peer.name: peer for peer in available()}


@pytest.mark.benchmark(group="peers: one two-view scan")
@pytest.mark.parametrize("name", ["f1", "gaussian", "wavelet", "tv", "nlm", "bm3d"])
def test_peer(measure: Any, loaded: LoadedRestorer, pair: ScanPair, benchmark: Any, name: str) -> None:
    """The shipped restorer against the classical peers, each at the middle of its tuning range."""
    if name == "f1":
        work = partial(restorer_method("f1", "f1", loaded).restore, pair)
    elif name in PEERS:
        candidates = PEERS[name].candidates
        work = partial(PEERS[name].restore, pair, candidates[len(candidates) // 2])
    else:
        pytest.skip(f"{name} is not installed")
    estimate = measure(work, rounds=1 if name == "bm3d" else 3, warm_up=name != "bm3d")
    benchmark.extra_info["psnr_truth_dB"] = psnr_truth(np.asarray(estimate), pair.target)


# --- growth


@pytest.mark.benchmark(group="scaling: forward by pixels")
@pytest.mark.parametrize("times", [1, 2, 4])
def test_pixels(measure: Any, loaded: LoadedRestorer, pair: ScanPair, device: Any, times: int) -> None:
    """A scan as it is, twice as long, and that twice as wide."""
    seen, exposure = pair.network_input
    x = torch.as_tensor(seen, device=device)[None].repeat(1, 1, min(times, 2), max(1, times // 2))
    with torch.inference_mode():
        measure(partial(loaded.restorer, x, torch.full((1,), exposure, device=device)), rounds=3, of=times)


@pytest.mark.benchmark(group="scaling: forward by scans at once")
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_batch(measure: Any, loaded: LoadedRestorer, pair: ScanPair, device: Any, batch: int) -> None:
    """Time a scan when several are restored at once."""
    seen, exposure = pair.network_input
    x = torch.as_tensor(seen, device=device)[None].repeat(batch, 1, 1, 1)
    with torch.inference_mode():
        measure(
            partial(loaded.restorer, x, torch.full((batch,), exposure, device=device)), rounds=3, of=batch
        )

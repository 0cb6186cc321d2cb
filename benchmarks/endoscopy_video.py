"""Frames a second of `rbs restore` on a video, and where the time goes.

    python benchmarks/endoscopy_video.py restorer.safetensors [clip.mp4] [--frames 50]

Without a clip one is drawn: coloured noise that wanders, which no codec has an easy time with.
Without an accelerator this runs on as many cores as PyTorch has threads (OMP_NUM_THREADS). Prints
JSON: frames a second of the whole way from file to file, with the weights and with a function that
does nothing (decoding, colours and encoding alone), the network alone, and the peak memory of the
process. Run it on a quiet machine; on a busy one the core seconds are what to go by.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter

from rbs.clinic.restore_frames import FrameRestorer
from rbs.endoscopy.field_of_view import field_of_view
from rbs.endoscopy.video import transcode
from rbs.multirun.benchmark import machine
from rbs.restorers.checkpoint import load_restorer

REPEATS = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("clip", type=Path, nargs="?")
    parser.add_argument("--frames", type=int, default=50, help="of the drawn clip")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(640, 512), help="of the drawn clip: width, height"
    )
    args = parser.parse_args()
    loaded = load_restorer(args.weights)
    restorer = FrameRestorer(loaded)
    with tempfile.TemporaryDirectory() as place:
        clip = args.clip or draw(Path(place) / "clip.mp4", args.frames, *args.size)
        frames: list[npt.NDArray[Any]] = []

        def same(frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
            frames[:] = [frame]
            return frame

        before = time.process_time()
        plain = transcode(clip, Path(place) / "same.mkv", same)
        plain_core_s = time.process_time() - before
        frame = frames[0]
        before = time.process_time()
        whole = transcode(clip, Path(place) / "restored.mkv", restorer.film(), scale=restorer.scale)
        core_s = time.process_time() - before
    result = {
        "machine": machine(),
        "weights": loaded.name,
        "frames": whole.frames,
        "size": f"{frame.shape[2]} x {frame.shape[1]}",
        "frames_a_second": round(whole.frames / whole.spent_s, 2),
        "core_seconds_a_frame": round(core_s / whole.frames, 3),
        "frames_a_second_without_restoring": round(plain.frames / plain.spent_s, 1),
        "core_seconds_a_frame_without_restoring": round(plain_core_s / plain.frames, 3),
        "network_ms_a_frame": round(1000 * seconds(lambda: loaded.restore_frame(frame)), 1),
        "field_of_view_ms": round(1000 * seconds(lambda: field_of_view(frame)), 1),
        "peak_memory_GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),  # kB on Linux
    }
    if torch.cuda.is_available():
        result["peak_gpu_memory_GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    print(json.dumps(result, indent=2))


def seconds(work: Callable[[], Any]) -> float:
    """Median of a few runs after one that is not counted, s."""
    taken = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def draw(path: Path, frames: int, width: int, height: int) -> Path:
    """A video of smooth coloured noise that wanders to the right, 25 frames a second."""
    import av

    rng = np.random.default_rng(0)
    field = gaussian_filter(rng.normal(size=(height, width, 3)), (4, 4, 0), mode="wrap")
    field = np.clip(128 + 55 * field / field.std() + (60, 0, -20), 0, 255)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=Fraction(25), options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            picture = np.roll(field, 3 * number, axis=1) + rng.normal(scale=4, size=field.shape)
            pixels = np.clip(picture, 0, 255).astype(np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    return path


if __name__ == "__main__":
    main()

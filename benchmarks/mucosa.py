"""Likeness of drawn mucosa and real frames, in colour and in spatial frequencies.

    python benchmarks/mucosa.py FOLDER_OF_PICTURES

Prints mean and standard deviation over frames of some statistics of the field of view: real frames
reduced by area until their longer side is at most 400 pixels, and drawn ones of 256 pixels; and the
time to draw them.
"""

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from rbs.degradation.optical import Frame
from rbs.endoscopy.field_of_view import field_of_view
from rbs.synthetic.mucosa.video import Video

SIDE = 96
"""Of the square whose spectrum is taken, pixels."""


def main() -> None:
    """Compare both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--frames", type=int, default=2)
    args = parser.parse_args()
    real = [statistics(read(path)) for path in sorted(args.folder.iterdir())]
    drawn, seconds = [], {"a wall": 0.0, "a frame": 0.0}
    for number in range(args.videos):
        began = time.process_time()
        video = Video(1, number, 256)
        seconds["a wall"] += (time.process_time() - began) / args.videos
        drawn += [video.draw(frame).frame for frame in range(args.frames)]
        seconds["a frame"] += (time.process_time() - began) / args.videos
    seconds["a frame"] = (seconds["a frame"] - seconds["a wall"]) / args.frames
    ours = [statistics(frame) for frame in drawn]
    print(f"{len(real)} real frames, {len(ours)} drawn ones; seconds of one core:", end=" ")
    print(", ".join(f"{what} {spent:.2f}" for what, spent in seconds.items()))
    for name in real[0]:
        print(f"| {name} | {told(real, name)} | {told(ours, name)} |")


def told(frames: list[dict[str, float]], name: str) -> str:
    """Mean and standard deviation of a statistic over frames."""
    values = [frame[name] for frame in frames]
    return f"{np.nanmean(values):.3f} ± {np.nanstd(values):.3f}"


def read(path: Path) -> Frame:
    """A picture, reduced by area."""
    picture = Image.open(path).convert("RGB")
    picture = picture.reduce(max(1, -(-max(picture.size) // 400)))
    return np.asarray(picture, np.float32).transpose(2, 0, 1) / 255


def statistics(frame: Frame) -> dict[str, float]:
    """Of the field of view."""
    field = field_of_view(frame)
    seen = frame[:, field]
    found: dict[str, float] = {}
    for name, channel in zip(("red", "green", "blue"), seen, strict=True):
        found[f"mean of {name}"], found[f"spread of {name}"] = float(channel.mean()), float(channel.std())
    grey = seen.mean(0)
    for percent in (5, 50, 95):
        found[f"grey, percentile {percent}"] = float(np.percentile(grey, percent))
    found["saturated white, %"] = 100 * float((seen.min(0) > 0.95).mean())
    found["spectral slope"], found["contrast of 2 to 8 px, %"] = spectrum(frame.mean(0), field)
    return found


def spectrum(grey: npt.NDArray[np.float32], field: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Slope of log power over log frequency, 1/32 to 1/4 cycles a pixel; fine contrast, %.

    Of the square of SIDE pixels near the middle that lies most in the field; NaN where none does.
    """
    rows, columns = np.nonzero(field)
    if not rows.size:
        return np.nan, np.nan
    top = int(np.clip(rows.mean() - SIDE / 2, 0, grey.shape[0] - SIDE))
    left = int(np.clip(columns.mean() - SIDE / 2, 0, grey.shape[1] - SIDE))
    square = np.s_[top : top + SIDE, left : left + SIDE]
    if not field[square].mean() > 0.98:
        return np.nan, np.nan
    window = np.outer(np.hanning(SIDE), np.hanning(SIDE))
    picture = (grey[square] - grey[square].mean()) * window
    power = np.abs(np.fft.fft2(picture)) ** 2 / (window**2).sum() / SIDE**2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE)))
    edges = np.geomspace(1 / 32, 1 / 4, 9)
    bands = [(frequency >= a) & (frequency < b) for a, b in itertools.pairwise(edges)]
    middle = [np.log(frequency[band]).mean() for band in bands]
    slope = np.polyfit(middle, [np.log(power[band].mean()) for band in bands], 1)[0]
    fine = power[(frequency >= 1 / 8) & (frequency < 1 / 2)].sum()
    return float(slope), 100 * float(np.sqrt(fine) / grey[square].mean())


if __name__ == "__main__":
    main()

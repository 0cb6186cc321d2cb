"""Harm of each preset to real frames, and its time.

    python benchmarks/degradations.py FOLDER_OF_PICTURES

Prints for each preset the PSNR of degraded frames against the clean ones in their field of view
(median and 90 % range over frames, three draws each), SSIM there (median), and seconds of one core
a frame. Frames are reduced by area until their longer side is at most 320 pixels, as the data
module reads them.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from rbs.degradation.optical import PRESETS, Frame, Optical
from rbs.endoscopy.field_of_view import field_of_view


def main() -> None:
    """Degrade all pictures of a folder by all presets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    frames = [read(path) for path in sorted(folder.iterdir())]
    began = time.process_time()
    fields = [field_of_view(frame) for frame in frames]
    each = (time.process_time() - began) / len(frames)
    print(f"{len(frames)} frames; the field of view of each is found in {each:.3f} s")
    print("| preset | PSNR, dB (90 %) | SSIM | s a frame |")
    for preset in PRESETS:
        noise, alike, seconds = [], [], 0.0
        for number, (frame, field) in enumerate(zip(frames, fields, strict=True)):
            for realisation in range(3):
                began = time.process_time()
                rng = np.random.default_rng((0, number, realisation))
                seen = Optical(preset, field)(frame, rng)
                seconds += time.process_time() - began
                noise.append(-10 * np.log10(((seen - frame)[:, field] ** 2).mean()))
                alike.append(similarity(seen, frame)[field].mean())
        low, middle, high = np.percentile(noise, (5, 50, 95))
        each = seconds / len(noise)
        print(f"| `{preset}` | {middle:.1f} ({low:.1f}–{high:.1f}) | {np.median(alike):.2f} | {each:.3f} |")


def similarity(seen: Frame, clean: Frame) -> npt.NDArray[np.floating]:
    """SSIM of every pixel, mean over colours, (H, W)."""
    from skimage.metrics import structural_similarity

    return structural_similarity(seen, clean, channel_axis=0, data_range=1, full=True)[1].mean(0)


def read(path: Path) -> Frame:
    """A picture, reduced by area."""
    picture = Image.open(path).convert("RGB")
    picture = picture.reduce(max(1, -(-max(picture.size) // 320)))
    return np.asarray(picture, np.float32).transpose(2, 0, 1) / 255


if __name__ == "__main__":
    main()

"""Likeness of perceptual hashes: copies of a frame, and pictures of other scenes.

    RBS_TEST_DATA=... python benchmarks/perceptual_hash.py

On the real frames of RBS_TEST_DATA/endoscopy: likeness of different frames, of a frame and its
copies, and of frames and degraded ones, their own and others', as `rbs index` and the data
module compare them.
"""

from __future__ import annotations

import io
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from rbs.degradation.optical import PRESETS, Optical
from rbs.endoscopy.duplicates import DUPLICATE
from rbs.endoscopy.field_of_view import field_of_view
from rbs.endoscopy.files import read_frame, reduced
from rbs.endoscopy.pairs import ONE_SCENE
from rbs.endoscopy.perceptual_hash import PerceptualHash, alike, likeness, perceptual_hash


def copies(frame: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The frame as others would have stored it."""
    pixels = np.rint(frame * 255).astype(np.uint8).transpose(1, 2, 0)
    for quality in (90, 50, 20):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        yield f"JPEG {quality}", _frame(Image.open(file))
    half = Image.fromarray(pixels).resize((pixels.shape[1] // 2, pixels.shape[0] // 2), Image.Resampling.BOX)
    yield "half the size", _frame(half)
    yield "384 x 288", _frame(Image.fromarray(pixels).resize((384, 288), Image.Resampling.BICUBIC))
    yield "half as bright", np.rint(frame * 127) / 255
    yield "a quarter as bright", np.rint(frame * 64) / 255
    yield "squared", np.rint(frame**2 * 255) / 255
    yield "clipped, 1.5 x", np.clip(1.5 * frame, 0, 1)
    yield "redder", np.clip(frame * np.array([1.15, 0.9, 0.8])[:, None, None], 0, 1)
    rows, columns = (round(0.03 * length) for length in frame.shape[1:])
    yield "3 % cut off all around", frame[:, rows:-rows, columns:-columns]


def main() -> None:
    """Measure and print."""
    folder = Path(os.environ["RBS_TEST_DATA"]) / "endoscopy"
    files = sorted(folder.glob("*/images/*"))
    frames = [read_frame(file) for file in tqdm(files, desc="reading")]
    hashes = [look(frame) for frame in tqdm(frames, desc="hashing")]
    bits, shown = np.stack([s.bits for s in hashes]), np.stack([s.shown for s in hashes])
    value = likeness(bits, shown, bits, shown)[np.triu_indices(len(files), 1)]
    value = value[~np.isnan(value)]
    print(
        f"different frames, {len(value)} pairs: highest {np.round(np.sort(value)[-4:], 2)},", quantiles(value)
    )
    print(f"  from {DUPLICATE} on: {(value >= DUPLICATE).sum()}")
    found = defaultdict(list)
    for frame, own in zip(tqdm(frames, desc="copies"), hashes, strict=True):
        for name, copy in copies(frame):
            found[name].append(alike(own, look(copy.astype(np.float32))))
    for name, values in found.items():
        print(f"{name}: lowest {min(values):.2f}, 1 % {np.quantile(values, 0.01):.2f},", end=" ")
        print(
            f"median {np.median(values):.2f}; below {DUPLICATE}: {np.mean(np.array(values) < DUPLICATE):.1%}"
        )
    rng = np.random.default_rng(0)
    small = [reduced(frame, 320) for frame in frames]
    areas = [field_of_view(frame) for frame in small]
    strange = []
    for preset in PRESETS:
        values = []
        for number, (frame, area) in enumerate(zip(tqdm(small, desc=preset), areas, strict=True)):
            for seed in range(3):
                low = Optical(preset, area)(frame, np.random.default_rng((number, seed)))
                values.append(alike(perceptual_hash(frame, area), perceptual_hash(low, area)))
                other = int(rng.integers(len(small)))
                if other != number:
                    strange.append(
                        alike(perceptual_hash(small[other], areas[other]), perceptual_hash(low, areas[other]))
                    )
        print(
            f"{preset}: lowest {np.round(np.sort(values)[:4], 2)}, 1 % {np.quantile(values, 0.01):.2f};",
            end=" ",
        )
        print(f"below {ONE_SCENE}: {np.mean(np.array(values) < ONE_SCENE):.2%}")
    values = np.array(strange)[~np.isnan(strange)]
    print(
        f"degraded and another frame, {len(values)} pairs: highest {np.round(np.sort(values)[-4:], 2)}; ",
        end="",
    )
    print(f"from {ONE_SCENE} on: {np.mean(values >= ONE_SCENE):.2%}")


def look(frame: np.ndarray) -> PerceptualHash:
    """As `rbs index` looks at a frame."""
    small = reduced(frame, 160)
    return perceptual_hash(small, field_of_view(small))


def quantiles(values: np.ndarray) -> str:
    """In words."""
    return f"99.9 % {np.quantile(values, 0.999):.2f}, 99 % {np.quantile(values, 0.99):.2f}"


def _frame(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, np.float32).transpose(2, 0, 1) / 255


if __name__ == "__main__":
    main()

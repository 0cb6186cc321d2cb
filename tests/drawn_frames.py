"""Small pictures and videos of smooth colours, for tests of what restores and evaluates them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image


def scene(number: int = 0, width: int = 96, height: int = 64) -> np.ndarray:
    """Smooth colours well within the range, float32 (3, H, W); they wander with `number`."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((x + 2 * number) / 17), np.cos(y / 13), np.sin((x + y) / 23)]
    return (0.5 + np.array([0.25, 0.2, 0.2])[:, None, None] * np.stack(waves)).astype(np.float32)


def in_8_bits(frame: np.ndarray) -> np.ndarray:
    """(3, H, W), 0..1, to (H, W, 3), 0..255."""
    return np.rint(255 * np.moveaxis(frame, 0, -1)).astype(np.uint8)


def write_picture(path: Path, frame: np.ndarray | None = None) -> Path:
    """A picture of a frame, of a scene by default."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(in_8_bits(scene() if frame is None else frame)).save(path)
    return path


def write_video(
    path: Path, frames: int = 5, codec: str = "libx264", size: tuple[int, int] = (96, 64)
) -> Path:
    """A video of scenes, 25 frames a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(in_8_bits(scene(number, *size)), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def decoded(path: Path) -> np.ndarray:
    """All frames of a video, uint8 (N, H, W, 3)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def textured(seed: int, width: int = 224, height: int = 192) -> np.ndarray:
    """Colours with edges and texture, float32 (3, H, W): what blur, noise and darkness can be told by."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    frame = 0.35 + 0.5 * scene(seed, width, height) * np.array([1.0, 0.6, 0.5])[:, None, None]
    for _ in range(60):
        cy, cx, size = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(2, 12)
        frame[:, (y - cy) ** 2 + (x - cx) ** 2 < size**2] *= rng.uniform(0.6, 1.25, (3, 1))
    return np.clip(frame - 0.1, 0.05, 0.95).astype(np.float32)


def write_frames(
    folder: Path,
    splits: dict[str, int] | None = None,
    *,
    a_group: int = 1,
    masks: bool = True,
    low: bool = False,
    size: tuple[int, int] = (176, 160),
) -> Path:
    """Textured frames with a disc for a lesion each, and their manifest.

    Args:
        folder: Where to.
        splits: Frames of each split.
        a_group: Frames of a group.
        masks: Whether lesions are marked.
        low: Whether each has a darker picture of low quality beside it.
        size: Columns and rows.
    """
    lines = ["frame,split,low,mask,group"]
    number = 0
    for split, frames in (splits or {"train": 2, "val": 2, "test": 4}).items():
        for place in range(frames):
            number += 1
            frame = textured(number, *size)
            y, x = np.mgrid[: frame.shape[1], : frame.shape[2]]
            lesion = (y - 90) ** 2 + (x - 60 - 10 * number) ** 2 < 30**2
            frame[0, lesion] = 0.9
            write_picture(folder / f"{number}.png", frame)
            cells = [f"{number}.png", split, "", "", f"{split}{place // a_group}"]
            if low:
                write_picture(folder / f"{number}_low.png", 0.5 * frame)
                cells[2] = f"{number}_low.png"
            if masks:
                Image.fromarray(255 * lesion.astype(np.uint8)).save(folder / f"{number}_mask.png")
                cells[3] = f"{number}_mask.png"
            lines.append(",".join(cells))
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"

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

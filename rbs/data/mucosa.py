"""Writing drawn videos as a data set: pictures, masks of polyps and a frames manifest.

OUT/manifest.csv              one line a frame, split by video
OUT/mucosa.json               what the collection was made from
OUT/images/V001_00.png        frame 0 of video 1
OUT/masks/V001_00.png         its polyps, 255; 0 elsewhere
"""

from __future__ import annotations

from pathlib import Path

from rbs.data.frames_manifest import FrameRow, write_frames_manifest
from rbs.endoscopy.files import write_frame, write_mask
from rbs.errors import RbsError
from rbs.synthetic.cohort import split_patients
from rbs.synthetic.mucosa.video import Video
from rbs.utils.files import claim_folder

FORMAT = 1
"""Raised whenever the same seed would make other pictures."""


def write_mucosa(
    out: str | Path, videos: int, frames: int, size: int, seed: int, *, progress: bool = True
) -> Path:
    """Write a collection, or finish one that was interrupted.

    A frame depends on its size, the seed, and the numbers of its video and its own alone.

    Args:
        out: Folder: new, empty, or holding this very collection.
        videos: How many, at least 3 so that each split has one.
        frames: Frames of each.
        size: Height and width of a frame, pixels, at least 64.
        seed: Decides everything random.
        progress: Whether to show a progress bar.

    Returns:
        The path of the manifest.

    Raises:
        OutputError: `out` holds something else, or cannot be written.
        RbsError: Too few videos or frames, frames too small or too large, or a negative seed.
    """
    from tqdm import tqdm

    if not (3 <= videos <= 999 and 1 <= frames <= 100):
        raise RbsError(
            f"{videos} videos of {frames} frames make no collection",
            remedy="ask for 3 to 999 videos, so that each split has one, of 1 to 100 frames",
        )
    if not 64 <= size <= 1024 or seed < 0:
        fault = f"frames of {size} pixels cannot be drawn with seed {seed}"
        raise RbsError(fault, remedy="ask for 64 to 1024 pixels and a seed of 0 or more")
    out = Path(out)
    recipe = {"format": FORMAT, "videos": videos, "frames": frames, "size": size, "seed": seed}
    other = "mucosa of other settings or another version of rbs"
    claim_folder(out, "mucosa.json", recipe, other=other)
    rows = []
    with tqdm(total=videos * frames, desc="mucosa", unit="frame", disable=not progress) as bar:
        for number, split in enumerate(split_patients(videos, seed), start=1):
            group, video = f"V{number:03d}", None
            for frame in range(frames):
                name = f"{group}_{frame:02d}.png"
                image, mask = out / "images" / name, out / "masks" / name
                if not (image.is_file() and mask.is_file()):
                    video = video or Video(seed, number, size)
                    picture = video.draw(frame)
                    write_frame(image, picture.frame, overwrite=True)
                    write_mask(mask, picture.polyp, overwrite=True)
                rows.append(FrameRow(image, split, None, mask, group, "synthetic"))
                bar.update()
    write_frames_manifest(out / "manifest.csv", rows, overwrite=True)
    return out / "manifest.csv"

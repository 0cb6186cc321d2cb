"""Pictures in, pictures out; videos in, videos out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rbs.clinic.outcomes import Refusal
from rbs.clinic.sources import MARK, Source
from rbs.degradation.optical import enlarge
from rbs.endoscopy.field_of_view import field_of_view
from rbs.endoscopy.files import read_frame, write_frame
from rbs.endoscopy.video import SUFFIXES, transcode
from rbs.errors import CheckpointError, FrameError, OutputError, RbsError, printable
from rbs.scans.scan import Array
from rbs.utils.files import require_regular
from rbs.utils.guard import attempt
from rbs.utils.version import VERSION

if TYPE_CHECKING:
    from rbs.restorers.checkpoint import LoadedRestorer


X2 = "x2"
"""The preset whose weights answer at twice the size."""
LOOKED_AT = 10
"""Every so many frames of a video the scene is looked for."""


@dataclass(frozen=True)
class RestoredFile:
    """A picture or a video that was restored and written.

    Attributes:
        source: The original.
        output: The restoration.
        facts: What was done, for print.
        error: Why it is not the whole of the source; None where it is.
    """

    source: Path
    output: Path
    facts: str
    error: RbsError | None = None

    outcome: ClassVar[str] = "restored"

    def __str__(self) -> str:
        return printable(f"{self.source.name}: {self.facts} -> {self.output}")


class FrameRestorer:
    """Restoring pictures and videos.

    Args:
        loaded: A restorer of colour frames.
        kind: "picture" or "video".

    Attributes:
        scale: How much larger its answers are than what it is given.
        comment: What made them, for headers.
    """

    def __init__(self, loaded: LoadedRestorer, kind: str) -> None:
        self.loaded, self.kind = loaded, kind
        self.scale = 2 if loaded.provenance.get("preset") == X2 else 1
        self.comment = (
            f"{MARK} {VERSION} with {loaded.name} (SHA-256 {loaded.sha256}). "
            "Research use only. Not for diagnostic use."
        )

    def __call__(self, frame: Array) -> Array:
        """Restore a frame; borders, insets and burned-in text stay as they are.

        Args:
            frame: sRGB values float32 (3, H, W), 0..1.

        Returns:
            Likewise, (3, scale H, scale W).
        """
        seen = self._seen(frame)
        return self._restored(seen, field_of_view(seen))

    def film(self) -> Callable[[Array], Array]:
        """The same for frames that follow each other.

        The scene is looked for in every tenth frame, and stays where it was found once: the dark
        edge of a lumen, which a single frame cannot tell from a border, must not flicker.
        """
        area: Array | None = None
        number = 0

        def restore(frame: Array) -> Array:
            nonlocal area, number
            seen = self._seen(frame)
            if area is None or number % LOOKED_AT == 0:
                found = field_of_view(seen)
                area = found if area is None else area | found
            number += 1
            return self._restored(seen, area)

        return restore

    def _seen(self, frame: Array) -> Array:
        if self.scale == 1:
            return frame
        rows, columns = frame.shape[1:]
        return enlarge(frame, (self.scale * rows, self.scale * columns))

    def _restored(self, seen: Array, area: Array) -> Array:
        restored = self.loaded.restore_frame(seen)
        if not np.isfinite(restored).all():
            raise CheckpointError(
                f"{self.loaded.name} gave values that are not finite", remedy="use other weights"
            )
        return np.where(area, restored, seen)

    def output_name(self, path: Path) -> str:
        """Name of the restoration of a file.

        Pictures become PNG, which loses nothing; videos keep the suffix of a container that is
        written, or become Matroska, which holds any sound.
        """
        if self.kind == "picture":
            return path.with_suffix(".png").name
        return path.name if path.suffix.lower() in SUFFIXES else path.with_suffix(".mkv").name

    def outputs(self, output: Path) -> dict[str, Path]:
        """All files written for a restoration `output`, by what they hold."""
        return {"restoration": output}

    def restore(
        self, outputs: Mapping[Source, Path], existing: Iterable[Source] = ()
    ) -> Iterator[RestoredFile | Refusal]:
        """Restore pictures or videos one by one; one that must be refused does not stop the others.

        Args:
            outputs: Where each file's restoration goes.
            existing: Files that were restored before, on which none of these depends.

        Yields:
            The outcome of each file.

        Raises:
            CheckpointError: The restorer restores scans, or gives values that are not finite.
            DiskFullError: There is no room for an output.
        """
        for source, output in outputs.items():
            restored = attempt(source.path, self._restore_file, source, output)
            if isinstance(restored, CheckpointError):
                raise restored
            yield Refusal(source.path, restored) if isinstance(restored, RbsError) else restored

    def _restore_file(self, source: Source, output: Path) -> RestoredFile:
        if os.path.lexists(output):
            remedy = "choose another or remove it"
            raise OutputError("the output exists already", file=output, remedy=remedy)
        require_regular(source.path, FrameError)
        if source.restored:
            raise FrameError("rbs restored it before", file=source.path, remedy="name the original")
        restore = _restore_video if self.kind == "video" else _restore_picture
        return restore(source.path, output, self)


def _restore_picture(source: Path, output: Path, restorer: FrameRestorer) -> RestoredFile:
    start = time.perf_counter()
    restored = restorer(read_frame(source))
    write_frame(output, restored, comment=restorer.comment)
    height, width = restored.shape[1:]
    return RestoredFile(source, output, f"{width} x {height} pixels, {time.perf_counter() - start:.1f} s")


def _restore_video(source: Path, output: Path, restorer: FrameRestorer) -> RestoredFile:
    passed = transcode(source, output, restorer.film(), scale=restorer.scale, comment=restorer.comment)
    width, height = passed.size
    facts = [
        f"{passed.frames} frames of {width} x {height} pixels",
        f"{passed.shown_s:.2f} s at {passed.rate:.4g} frames a second",
        f"{passed.frames / passed.spent_s:.2g} of them restored a second",
    ]
    facts += [f"left out: {', '.join(passed.left_out)}"] if passed.left_out else []
    error = None
    if passed.fault:
        remedy = f"all of it that can be seen was restored to {output}; for the rest, copy or export it again"
        error = FrameError(passed.fault, file=source, remedy=remedy)
    return RestoredFile(source, output, ", ".join(facts), error)

"""A video through a function of its frames. Times, shape, kind of colours and sound stay as they were.

Pictures are decoded and encoded by PyAV (FFmpeg). The function sees sRGB; the conversion from and
to the video's own luma and chroma uses the matrix and the range that the video states. Where it
states none, that of high definition (BT.709) is assumed from 720 lines on and that of standard
definition (BT.601) below, limited range, as players do; what was assumed is written down in the
output.
"""

from __future__ import annotations

import io
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from rbs.errors import FrameError, OutputError
from rbs.utils.files import whole_file

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.format import VideoFormat
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Array = npt.NDArray[Any]

SUFFIXES = (".mkv", ".mp4", ".m4v", ".mov")
"""Of the videos that are written: containers that hold H.264 and the time of every frame."""

READ = "asf,avi,flv,matroska,mov,mpeg,mpegts,mxf,ogg"
"""FFmpeg's names of the containers that are read. Playlists, which name other files or hosts, are
not among them."""

STATES_DURATION = {"asf", "avi", "flv", "matroska", "mov", "mxf"}
"""Those of them whose header says how long the video is, so that a shorter one was cut off."""
TOLERANCE_FRAMES = 3
"""By so many frames the header may be wrong."""

CODEC: Final = "libx264"
QUALITY = {"crf": "16", "preset": "medium", "bf": "0"}
"""H.264 at a quality at which its own loss is hard to see. Frames are coded in the order they are
shown in: in another, containers get the duration wrong where frames do not follow each other
evenly."""

HIGH_DEFINITION_LINES = 720
BT709, UNSTATED_MATRIX, BT601 = 1, 2, 6
"""Matrices from colours to luma and chroma, as ISO/IEC 23091-2 numbers them."""
LIMITED, FULL = 1, 2
HDR = {16: "PQ", 18: "HLG"}
"""Transfer functions whose values are no sRGB, by the same standard."""

_OF_THE_CONTAINER = {"encoder", "major_brand", "minor_version", "compatible_brands", "comment"}
"""Entries of a header that the new container writes itself."""


@dataclass(frozen=True)
class Passed:
    """A video that went through.

    Attributes:
        frames: How many were written.
        shown_s: How long they are shown, s.
        size: Width and height of the output, pixels.
        rate: Frames a second, on average, as the source states it.
        spent_s: Time it took, s: decoding, the function and encoding.
        left_out: Streams that could not be kept ("subtitle (mov_text)").
        fault: Why the output is not the whole of the source; None where it is.
    """

    frames: int
    shown_s: float
    size: tuple[int, int]
    rate: float
    spent_s: float
    left_out: tuple[str, ...]
    fault: str | None


@dataclass(frozen=True)
class Colours:
    """How the numbers of a video are to be read.

    Attributes:
        matrix: From colours to luma and chroma, see `BT709`.
        range: LIMITED (luma from 16 to 235 of 8 bits) or FULL.
    """

    matrix: int
    range: int

    @classmethod
    def of(cls, frame: VideoFrame) -> Colours:
        """What a frame states, or what players take it for."""
        matrix = frame.colorspace
        if matrix == UNSTATED_MATRIX or frame.format.is_rgb:
            matrix = BT709 if frame.height >= HIGH_DEFINITION_LINES else BT601
        full = frame.color_range == FULL or frame.format.name.startswith("yuvj") or frame.format.is_rgb
        return cls(matrix, FULL if full else LIMITED)

    def picture(self, frame: VideoFrame) -> Array:
        """A frame as sRGB values, float32 (3, H, W), 0..1."""
        planes = frame.reformat(
            format="gbrpf32le",
            src_colorspace=_scaler_matrix(self.matrix),
            src_color_range=self.range,
            dst_color_range=FULL,
            interpolation=_scaler_flags(),
        )
        return np.ascontiguousarray(planes.to_ndarray().transpose(2, 0, 1), dtype=np.float32)

    def frame(self, picture: Array, stored: str) -> VideoFrame:
        """The way back: sRGB values (3, H, W), 0..1, as a frame of the pixel format `stored`."""
        from av.video.frame import VideoFrame

        planes = np.ascontiguousarray(picture.clip(0, 1).transpose(1, 2, 0), dtype=np.float32)
        return VideoFrame.from_ndarray(planes, format="gbrpf32le").reformat(
            format=stored,
            dst_colorspace=_scaler_matrix(self.matrix),
            src_color_range=FULL,
            dst_color_range=self.range,
            interpolation=_scaler_flags(),
        )


def is_video(path: Path) -> bool:
    """Whether a file can be opened as a video."""
    try:
        with _opened(path):
            return True
    except FrameError:
        return False


def comment_of(path: Path) -> str:
    """The comment in the header of a video; empty without one.

    Raises:
        FrameError: It is no video.
    """
    with _opened(path) as container:
        return next((text for name, text in container.metadata.items() if name.lower() == "comment"), "")


def pass_through(
    source: Path,
    target: Path,
    function: Callable[[Array], Array],
    *,
    scale: int = 1,
    comment: str = "",
) -> Passed:
    """Write a video whose frames are those of another one, each put through a function.

    Kept are the time and the duration of every frame, the frame rate, the pixel aspect, the
    rotation, depth and sub-sampling of the colours, and the sound where the new container can hold
    it; other streams are left out and named. The size is kept, times `scale`. One frame at a time
    is in memory.

    A source that ends early or is damaged goes through as far as it can be decoded, and `fault`
    says so.

    Args:
        source: A video in one of the containers `READ`.
        target: A name with one of the `SUFFIXES`; written whole or not at all.
        function: From sRGB values float32 (3, H, W), 0..1, to (3, scale H, scale W).
        scale: How much larger the function's answer is.
        comment: For the header of the output.

    Raises:
        FrameError: The source is no video, no frame of it can be decoded, or its frames are
            interlaced, of high dynamic range or of several sizes.
        OutputError: The target exists, its name has another suffix, or it cannot be written.
    """
    import av

    if target.suffix.lower() not in SUFFIXES:
        name = target.suffix or "a name without suffix"
        remedy = f"name one that ends in {', '.join(SUFFIXES)}"
        raise OutputError(f"a video is not written as {name}", file=target, remedy=remedy)
    start = time.perf_counter()
    with _opened(source) as container, whole_file(target) as part:
        try:
            with av.open(str(part), "w") as output:
                way = _Way(source, container, output, scale, comment)
                way.go(function)
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):  # the disk's fault, which `whole_file` explains
                raise
            raise OutputError(
                f"it cannot be written ({error.strerror})",
                file=target,
                remedy="name an .mkv file, which holds nearly everything",
            ) from error
        return way.passed(time.perf_counter() - start)


class _Way:
    """The way from an opened video to a new one."""

    def __init__(
        self, source: Path, container: InputContainer, output: OutputContainer, scale: int, comment: str
    ) -> None:
        self.source, self.container, self.output, self.scale = source, container, output, scale
        self.stream = _picture(container)
        self.rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        self.written: VideoStream = output.add_stream(CODEC, rate=self.rate, options=QUALITY)
        self.sound, self.left_out = _copied_sound(container, output, self.stream)
        self.time_base = self.stream.time_base or 1 / self.rate
        kept = {
            name: text for name, text in container.metadata.items() if name.lower() not in _OF_THE_CONTAINER
        }
        output.metadata.update({**kept, "comment": comment})
        self.colours: Colours | None = None
        self.frames, self.damaged, self.lost, self.first_fault_s = 0, 0, 0, math.nan
        # In units of the stream's time base:
        self.start, self.last, self.end = 0, 0, 0

    def go(self, function: Callable[[Array], Array]) -> None:
        """Put every frame through the function, and copy the sound."""
        from av.video.frame import VideoFrame
        from tqdm import tqdm

        waiting: list[Packet] = []  # nothing can be written before the first frame has said how
        total = self.stream.frames or round((self._stated_s() or 0) * self.rate) or None
        with tqdm(total=total, unit="frame", desc=self.source.name, disable=None) as bar:
            for item in self._decoded():
                if not isinstance(item, VideoFrame):
                    waiting.append(item)
                else:
                    self._write(item, function)
                    bar.update()
                if self.colours is not None:
                    for packet in waiting:
                        packet.stream = self.sound[packet.stream.index]
                        self.output.mux(packet)
                    waiting.clear()
        if self.colours is None:
            raise FrameError(
                "no frame of it can be decoded", file=self.source, remedy="copy or export it again"
            )
        self.output.mux(self.written.encode(None))

    def passed(self, spent_s: float) -> Passed:
        """What came of it."""
        return Passed(
            frames=self.frames,
            shown_s=self._shown_s(),
            size=(self.written.width, self.written.height),
            rate=float(self.rate),
            spent_s=spent_s,
            left_out=tuple(self.left_out),
            fault=self._fault(),
        )

    def _decoded(self) -> Iterator[Packet | VideoFrame]:
        """Frames of the picture and packets of the sound in the order of the file, as far as it goes."""
        import av

        sound = [stream for stream in self.container.streams.audio if stream.index in self.sound]
        packets = self.container.demux([self.stream, *sound])
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError:  # the file breaks off; what the decoder still holds is good
                yield from self.stream.codec_context.decode(None)
                return
            if packet.stream.index == self.stream.index:
                try:
                    yield from self.stream.decode(packet)
                except av.error.FFmpegError:
                    self.lost += 1
                    self._note_fault(packet.pts)
            elif packet.dts is not None:  # the last packet of a stream is empty
                yield packet

    def _write(self, frame: VideoFrame, function: Callable[[Array], Array]) -> None:
        self._check(frame)
        pts = self.end if frame.pts is None else frame.pts
        if self.colours is None:
            self.colours = Colours.of(frame)
            self._begin(frame, self.colours)
            self.start, self.last = pts, pts - 1
        if frame.is_corrupt:
            self.damaged += 1
            self._note_fault(pts)
        answer = self.colours.frame(function(self.colours.picture(frame)), self.written.pix_fmt or "")
        # A damaged file may show two frames at once, which no container can hold.
        answer.pts = self.last = max(pts, self.last + 1)
        answer.time_base = self.time_base
        answer.duration = frame.duration or max(1, round(1 / (self.rate * self.time_base)))
        self.end = self.last + answer.duration
        self.output.mux(self.written.encode(answer))
        self.frames += 1

    def _check(self, frame: VideoFrame) -> None:
        """Refuse what would be restored wrongly."""
        at = f"at {float((frame.pts or 0) * self.time_base):.2f} s"
        size = (frame.width * self.scale, frame.height * self.scale)
        if frame.interlaced_frame:
            fault = f"its frames are interlaced ({at}): every other line was seen at another time"
            remedy = "deinterlace it first (`ffmpeg -i IN -vf bwdif OUT`)"
        elif frame.color_trc in HDR:
            fault = f"it is of high dynamic range ({HDR[frame.color_trc]}), whose values are no sRGB"
            remedy = "convert it to standard dynamic range first"
        elif self.colours is not None and size != (self.written.width, self.written.height):
            fault, remedy = f"its frames change their size {at}", "cut it into two videos there"
        else:
            return
        raise FrameError(fault, file=self.source, remedy=remedy)

    def _begin(self, frame: VideoFrame, colours: Colours) -> None:
        """Write the header: what the frames are."""
        from av.codec.context import Flags

        context = self.written.codec_context
        context.width, context.height = frame.width * self.scale, frame.height * self.scale
        context.pix_fmt = stored_as(frame.format, context.width, context.height)
        context.time_base = self.time_base
        context.flags |= Flags.frame_duration
        context.sample_aspect_ratio = self.stream.sample_aspect_ratio or Fraction(1)
        context.colorspace, context.color_range = colours.matrix, colours.range
        context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
        if matrix is not None:
            self.written.set_display_matrix(np.frombuffer(matrix, dtype=np.int32).tolist())
        self.output.start_encoding()

    def _note_fault(self, pts: int | None) -> None:
        if math.isnan(self.first_fault_s) and pts is not None:
            self.first_fault_s = float(pts * self.time_base)

    def _shown_s(self) -> float:
        return float((self.end - self.start) * self.time_base)

    def _stated_s(self) -> float | None:
        """How long the picture is by the header; None where that does not say."""
        if not STATES_DURATION & set(self.container.format.name.split(",")):
            return None
        if self.stream.duration is not None:
            return float(self.stream.duration * self.time_base)
        if match := re.match(r"(\d+):(\d+):([\d.]+)", self.stream.metadata.get("DURATION", "")):
            return 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])
        if self.container.duration is None or self.container.streams.audio:
            return None  # the sound may go on longer
        return self.container.duration / 1e6

    def _fault(self) -> str | None:
        faults = []
        stated, shown = self._stated_s(), self._shown_s()
        if stated is not None and shown < stated - TOLERANCE_FRAMES / self.rate:
            faults.append(f"it ends early, after {self.frames} frames: {shown:.2f} s of {stated:.2f} s")
        if self.lost or self.damaged:
            parts = [f"{self.lost} of its frames cannot be decoded"] if self.lost else []
            parts += [f"{self.damaged} are damaged"] if self.damaged else []
            faults.append(f"{' and '.join(parts)}, the first at {self.first_fault_s:.2f} s")
        return "; ".join(faults) or None


def stored_as(source: VideoFormat, width: int, height: int) -> str:
    """The pixel format that a video is written in: the source's depth and sub-sampling, where that can be.

    Args:
        source: The source's format.
        width: Of the output, pixels; an odd width cannot be sub-sampled across, nor an odd height
            down.
        height: Of the output, pixels.
    """
    across, down = 16 // source.chroma_width(16), 16 // source.chroma_height(16)
    if source.is_rgb or across == 1 or width % 2 or (down > 1 and height % 2):
        sampling = "444"
    else:
        sampling = "420" if down > 1 else "422"
    deep = any(component.bits > 8 for component in source.components)
    return f"yuv{sampling}p{'10le' if deep else ''}"


def _copied_sound(
    container: InputContainer, output: OutputContainer, picture: VideoStream
) -> tuple[dict[int, Any], list[str]]:
    """Streams of the output for the sound, by index of their sources, and what is left out."""
    copied: dict[int, Any] = {}
    left_out = []
    for stream in container.streams:
        if stream.index == picture.index:
            continue
        if stream.type == "audio" and _holds(output.format.name, stream):
            copied[stream.index] = output.add_stream_from_template(stream)
        else:
            codec = getattr(stream.codec_context, "name", None)
            left_out.append(f"{stream.type} ({codec})" if codec else str(stream.type))
    return copied, left_out


def _holds(container: str, stream: Stream) -> bool:
    """Whether a kind of container takes a stream: some say so only when their header is written."""
    import av

    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
        return True
    except (ValueError, av.error.FFmpegError):
        return False


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    """A video, opened for reading.

    Raises:
        FrameError: It is none.
    """
    import av

    # Nothing but the file itself is ever opened: no playlist, no address.
    options = {"format_whitelist": READ, "protocol_whitelist": "file"}
    try:
        container = av.open(str(path.resolve()), options=options, metadata_errors="replace")
    except av.error.FFmpegError as error:
        if isinstance(error, PermissionError):
            raise
        raise FrameError(
            f"it cannot be opened as a video ({error.strerror})",
            file=path,
            remedy="copy or export it again: a copy that was cut short may lack its table of contents",
        ) from error
    with container:
        _picture(container, path)
        yield container


def _picture(container: InputContainer, path: Path | None = None) -> VideoStream:
    """The stream that shows the picture; the cover of a sound file is none.

    Raises:
        FrameError: There is none.
    """
    from av.stream import Disposition
    from av.video.stream import VideoStream

    best = container.streams.best("video")
    if not isinstance(best, VideoStream) or best.disposition & Disposition.attached_pic:
        raise FrameError("it holds no moving pictures", file=path, remedy="name a video")
    if best.codec_context is None:
        raise FrameError("it is coded in a way unknown here", file=path, remedy="convert it to H.264 first")
    return best


def _scaler_matrix(matrix: int) -> int:
    """FFmpeg's scaler has a number of its own for BT.601."""
    return 5 if matrix == BT601 else matrix


def _scaler_flags() -> int:
    """Chroma is interpolated at full width, and rounded rather than cut."""
    from av.video.reformatter import Interpolation as Flag

    return int(Flag.BICUBIC | Flag.FULL_CHR_H_INT | Flag.FULL_CHR_H_INP | Flag.ACCURATE_RND)

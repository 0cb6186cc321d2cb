"""Videos restored frame by frame: times, geometry, kind of colours and sound stay as they were.

PyAV (FFmpeg) decodes and encodes the pictures and copies the packets of all other streams. The
restoration works on sRGB; the conversion from and to the video's luma and chroma uses the matrix
and the range that the video states. Where it states none, players assume BT.709 from 720 lines on
and BT.601 below, limited range; so does this module, and the output states it.
"""

from __future__ import annotations

import io
import itertools
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from rbs.errors import FrameError, OutputError
from rbs.scans.scan import Array
from rbs.utils.files import whole_file

if TYPE_CHECKING:
    import av
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

SUFFIXES = (".mkv", ".mp4", ".m4v", ".mov")
"""Names of outputs: containers that hold H.264 and the time of every frame."""

READ = "asf,avi,flv,matroska,mov,mpeg,mpegts,mxf,ogg"
"""FFmpeg's names of the containers that are read; no playlists, which name other files or hosts."""

STATES_DURATION = {"asf", "avi", "flv", "matroska", "mov", "mxf"}
"""Containers whose header states the duration, so that a shorter video was cut off."""
TOLERANCE_FRAMES = 3
"""Frames by which the header may be wrong."""

QUALITY = {"crf": "16", "preset": "medium", "bf": "0"}
"""H.264 at a quality at which its own loss is hard to see. Frames are coded in the order in which
they are shown: otherwise containers get the duration of variable frame rates wrong."""

HIGH_DEFINITION_LINES = 720
BT709, UNSTATED_MATRIX, BT601 = 1, 2, 6
"""Matrices from colours to luma and chroma, as ISO/IEC 23091-2 numbers them."""
LIMITED, FULL = 1, 2
HDR = {16: "PQ", 18: "HLG"}
"""Transfer functions of high dynamic range, by the same standard."""

_SCALER = 0x4 | 0x2000 | 0x4000 | 0x40000
"""FFmpeg's bicubic, full_chroma_int, full_chroma_inp and accurate_rnd: chroma is interpolated at
full width, and rounded rather than cut."""

_OF_THE_CONTAINER = {"encoder", "major_brand", "minor_version", "compatible_brands", "comment"}
"""Entries of a header that the new container writes itself."""


@dataclass(frozen=True)
class Transcoding:
    """Summary of a video that was decoded, processed and encoded again.

    Attributes:
        frames: Number of frames written.
        shown_s: Duration of the pictures, s.
        size: Width and height of the output, pixels.
        rate: Average frames a second, as the source states it.
        spent_s: Time for decoding, processing and encoding, s.
        left_out: Streams that the output does not hold ("subtitle (mov_text)").
        fault: Reason why the output is not the whole of the source; None where it is.
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
    """Meaning of the numbers of a video.

    Attributes:
        matrix: From colours to luma and chroma, see `BT709`.
        range: LIMITED (luma from 16 to 235 of 8 bits) or FULL.
    """

    matrix: int
    range: int

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Colours:
        """Colours as the frame states them, or as players assume."""
        matrix = frame.colorspace
        if matrix == UNSTATED_MATRIX or frame.format.is_rgb:
            matrix = BT709 if frame.height >= HIGH_DEFINITION_LINES else BT601
        full = frame.color_range == FULL or frame.format.name.startswith("yuvj") or frame.format.is_rgb
        return cls(matrix, FULL if full else LIMITED)

    def picture(self, frame: av.VideoFrame) -> Array:
        """A frame as sRGB values, float32 (3, H, W), 0..1."""
        planes = frame.to_ndarray(
            format="gbrpf32le",
            src_colorspace=self.matrix,
            src_color_range=self.range,
            dst_color_range=FULL,
            interpolation=_SCALER,
        )
        return np.ascontiguousarray(planes.transpose(2, 0, 1), dtype=np.float32)

    def frame(self, picture: Array, stored: str) -> av.VideoFrame:
        """A frame of the pixel format `stored` from sRGB values (3, H, W), 0..1."""
        from av import VideoFrame

        planes = np.ascontiguousarray(picture.clip(0, 1).transpose(1, 2, 0), dtype=np.float32)
        return VideoFrame.from_ndarray(planes, format="gbrpf32le").reformat(
            format=stored,
            dst_colorspace=self.matrix,
            src_color_range=FULL,
            dst_color_range=self.range,
            interpolation=_SCALER,
        )


def is_video(path: Path) -> bool:
    """True for a file that can be opened as a video."""
    try:
        with _opened(path):
            return True
    except FrameError:
        return False


def comment_of(path: Path) -> str:
    """The comment in the header of a video; empty without one.

    Raises:
        FrameError: The file is no video.
    """
    with _opened(path) as reader:
        header = reader.container.metadata.items()
        return next((text for name, text in header if name.lower() == "comment"), "")


def transcode(
    source: Path, target: Path, function: Callable[[Array], Array], *, scale: int = 1, comment: str = ""
) -> Transcoding:
    """Write a video with a function applied to each of its frames.

    The time and the duration of every frame, the frame rate, the pixel aspect, the rotation, and
    the depth and sub-sampling of the colours are kept. Sound and subtitles are copied where the new
    container can hold them; other streams are left out and named. One frame at a time is in memory.

    A source that ends early or is damaged is written as far as it can be decoded, and `fault` says
    so.

    Args:
        source: A video in one of the containers `READ`.
        target: A name with one of the `SUFFIXES`; written whole or not at all.
        function: From sRGB values float32 (3, H, W), 0..1, to (3, scale H, scale W).
        scale: Size of the function's answer, relative to its input.
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
    with _opened(source) as reader, whole_file(target) as part:
        try:
            with av.open(str(part), "w") as output:
                kept = reader.container.metadata.items()
                output.metadata.update({k: v for k, v in kept if k.lower() not in _OF_THE_CONTAINER})
                output.metadata["comment"] = comment
                written = output.add_stream("libx264", rate=reader.rate, options=QUALITY)
                copies, left_out = _copied_streams(reader, output)
                frames, shown_s = _encode(reader, output, written, copies, function, scale)
        except av.FFmpegError as error:
            if isinstance(error, OSError):  # of the disk, which `whole_file` explains
                raise
            unwritten = f"it cannot be written ({error.strerror})"
            remedy = "name an .mkv file, which holds nearly everything"
            raise OutputError(unwritten, file=target, remedy=remedy) from error
        size, spent_s = (written.width, written.height), time.perf_counter() - start
        fault = reader.fault(frames, shown_s)
        return Transcoding(frames, shown_s, size, float(reader.rate), spent_s, left_out, fault)


class _Reader:
    """The pictures of a video and the packets of its other streams, as far as they can be read.

    Attributes:
        rate: Average frames a second.
        time_base: Unit of the time stamps of the pictures, s.
    """

    def __init__(self, path: Path, container: InputContainer, stream: VideoStream) -> None:
        self.path, self.container, self.stream = path, container, stream
        self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.time_base = stream.time_base or 1 / self.rate
        self._faults: list[int | None] = []

    def __iter__(self) -> Iterator[av.Packet | av.VideoFrame]:
        """Decoded frames, and packets of other streams, in the order of the file."""
        import av

        packets = self.container.demux()
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:  # the file breaks off; what the decoder still holds is good
                yield from self.stream.codec_context.decode(None)
                return
            if packet is None:
                return
            if packet.stream.index != self.stream.index:
                yield packet
                continue
            try:
                frames = self.stream.decode(packet)
            except av.FFmpegError:
                self._faults.append(packet.pts)
                continue
            self._faults += [frame.pts for frame in frames if frame.is_corrupt]
            yield from frames

    def seconds(self, pts: int | None) -> float:
        """A time stamp or a duration of the pictures in s."""
        return float((pts or 0) * self.time_base)

    def stated_s(self) -> float | None:
        """Duration of the pictures by the header; None where it states none."""
        if not STATES_DURATION & set(self.container.format.name.split(",")):
            return None
        if self.stream.duration is not None:
            return self.seconds(self.stream.duration)
        if match := re.match(r"(\d+):(\d+):([\d.]+)", self.stream.metadata.get("DURATION", "")):
            return 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])
        if self.container.duration is None or self.container.streams.audio:
            return None  # the sound may go on longer
        return self.container.duration / 1e6

    def fault(self, frames: int, shown_s: float) -> str | None:
        """Reason why the frames that were read are not the whole video; None where they are."""
        faults, stated = [], self.stated_s()
        if stated is not None and shown_s < stated - TOLERANCE_FRAMES / self.rate:
            faults.append(f"it ends early, after {frames} frames: {shown_s:.2f} s of {stated:.2f} s")
        if number := len(self._faults):
            first = self.seconds(next((pts for pts in self._faults if pts is not None), 0))
            faults.append(f"{number} of its frames are damaged or missing, the first at {first:.2f} s")
        return "; ".join(faults) or None

    def refuse_unfit(self, frame: av.VideoFrame, size: tuple[int, int]) -> None:
        """Refuse a frame that would be restored wrongly, or of another size than the first.

        Raises:
            FrameError: It is interlaced, of high dynamic range or of another size.
        """
        at = f"at {self.seconds(frame.pts):.2f} s"
        if frame.interlaced_frame:
            fault = f"its frames are interlaced ({at}): every other line was seen at another time"
            remedy = "deinterlace it first (`ffmpeg -i IN -vf bwdif OUT`)"
        elif frame.color_trc in HDR:
            fault = f"it is of high dynamic range ({HDR[frame.color_trc]}), whose values are no sRGB"
            remedy = "convert it to standard dynamic range first"
        elif (frame.width, frame.height) != size:
            fault, remedy = f"its frames change their size {at}", "cut it into two videos there"
        else:
            return
        raise FrameError(fault, file=self.path, remedy=remedy)


def _encode(
    reader: _Reader,
    output: OutputContainer,
    written: VideoStream,
    copies: dict[int, Any],
    function: Callable[[Array], Array],
    scale: int,
) -> tuple[int, float]:
    """Encode the function of every frame and copy the other packets.

    Returns:
        Number of frames, and their duration in s.
    """
    from av import VideoFrame
    from tqdm import tqdm

    items, head = iter(reader), []
    for item in items:  # up to the first frame, which the header describes
        head.append(item)
        if isinstance(item, VideoFrame):
            break
    else:
        fault = "no frame of it can be decoded"
        raise FrameError(fault, file=reader.path, remedy="copy or export it again")
    size, colours = (item.width, item.height), Colours.of(item)
    _describe(written, reader, item, colours, scale)
    output.start_encoding()
    start = end = item.pts or 0
    frames, last = 0, start - 1
    total = reader.stream.frames or round((reader.stated_s() or 0) * reader.rate) or None
    with tqdm(total=total, unit="frame", desc=reader.path.name, disable=None) as bar:
        for item in itertools.chain(head, items):
            if isinstance(item, VideoFrame):
                reader.refuse_unfit(item, size)
                answer = colours.frame(function(colours.picture(item)), written.pix_fmt or "")
                # A damaged file may show two frames at once, which no container can hold.
                answer.pts = last = max(end if item.pts is None else item.pts, last + 1)
                answer.time_base = reader.time_base
                answer.duration = item.duration or max(1, round(1 / (reader.rate * reader.time_base)))
                end = last + answer.duration
                output.mux(written.encode(answer))
                frames += 1
                bar.update()
            elif item.stream.index in copies and item.dts is not None:  # None ends a stream
                item.stream = copies[item.stream.index]
                output.mux(item)
    output.mux(written.encode(None))
    return frames, reader.seconds(end - start)


def _describe(
    written: VideoStream, reader: _Reader, frame: av.VideoFrame, colours: Colours, scale: int
) -> None:
    """Set geometry, colours and time base of the output to those of the source's first frame."""
    from av.codec.context import Flags

    context = written.codec_context
    context.width, context.height = frame.width * scale, frame.height * scale
    context.pix_fmt = stored_as(frame.format.name, context.width, context.height)
    context.time_base = reader.time_base
    context.flags |= Flags.frame_duration
    context.sample_aspect_ratio = reader.stream.sample_aspect_ratio or Fraction(1)
    context.colorspace, context.color_range = colours.matrix, colours.range
    context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        written.set_display_matrix(np.frombuffer(matrix, dtype=np.int32).tolist())


def stored_as(source: str, width: int, height: int) -> str:
    """Pixel format of H.264 that loses least of the source's depth and sub-sampling.

    Args:
        source: The source's pixel format.
        width: Of the output, pixels; an odd width cannot be sub-sampled.
        height: Likewise.
    """
    from av.codec import find_best_pix_fmt_of_list

    samplings = ["444"] if width % 2 else ["444", "422"] if height % 2 else ["444", "422", "420"]
    formats = [f"yuv{sampling}p{depth}" for sampling in samplings for depth in ("", "10le")]
    return cast("av.VideoFormat", find_best_pix_fmt_of_list(formats, source)[0]).name


def _copied_streams(reader: _Reader, output: OutputContainer) -> tuple[dict[int, Any], tuple[str, ...]]:
    """Output streams for sound and subtitles by index of their sources; names of those left out."""
    copies: dict[int, Any] = {}
    left_out = []
    for stream in reader.container.streams:
        if stream.type in ("audio", "subtitle") and _holds(output.format.name, stream):
            copies[stream.index] = output.add_stream_from_template(stream)
        elif stream.index != reader.stream.index:
            codec = getattr(stream.codec_context, "name", None)
            left_out.append(f"{stream.type} ({codec})" if codec else str(stream.type))
    return copies, tuple(left_out)


def _holds(container: str, stream: Stream) -> bool:
    """True where a container holds a stream, which some tell only as they write the header."""
    import av

    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
        return True
    except (ValueError, av.FFmpegError):
        return False


@contextmanager
def _opened(path: Path) -> Iterator[_Reader]:
    """Open a video for reading.

    Raises:
        FrameError: The file is no video.
    """
    import av
    from av.stream import Disposition
    from av.video.stream import VideoStream

    # Nothing but the file itself is ever opened: no playlist, no address.
    options = {"format_whitelist": READ, "protocol_whitelist": "file"}
    try:
        container = av.open(str(path.resolve()), options=options, metadata_errors="replace")
    except av.FFmpegError as error:
        if isinstance(error, PermissionError):
            raise
        fault = f"it cannot be opened as a video ({error.strerror})"
        remedy = "copy or export it again: a copy that was cut short may lack its table of contents"
        raise FrameError(fault, file=path, remedy=remedy) from error
    with container:
        best = container.streams.best("video")
        # The cover of a sound file is a picture that does not move.
        if not isinstance(best, VideoStream) or best.disposition & Disposition.attached_pic:
            raise FrameError("it holds no moving pictures", file=path, remedy="name a video")
        if best.codec_context is None:
            raise FrameError("its codec is unknown here", file=path, remedy="convert it to H.264 first")
        yield _Reader(path, container, best)

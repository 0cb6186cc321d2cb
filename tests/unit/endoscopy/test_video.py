"""Videos: identity gives back what went in, and nothing but the pictures is touched."""

import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.codec.context import Flags
from drawn_frames import scene

from rbs.endoscopy import video
from rbs.endoscopy.video import (
    BT601,
    BT709,
    FULL,
    LIMITED,
    Colours,
    comment_of,
    is_video,
    stored_as,
    transcode,
)
from rbs.errors import FrameError, OutputError

KR_KB = {BT709: (0.2126, 0.0722), BT601: (0.299, 0.114)}
"""Weights of red and blue in luma: ITU-R BT.709 and BT.601."""


def encoded(rgb: np.ndarray, matrix: int, range_: int) -> np.ndarray:
    """Y, Cb, Cr as 8-bit numbers by the formulas of the standards, (3, H, W)."""
    red, blue = KR_KB[matrix]
    luma = red * rgb[0] + (1 - red - blue) * rgb[1] + blue * rgb[2]
    differences = np.stack([(rgb[2] - luma) / (2 * (1 - blue)), (rgb[0] - luma) / (2 * (1 - red))])
    if range_ == FULL:
        values = np.concatenate([255 * luma[None], 255 * differences + 128])
    else:
        values = np.concatenate([219 * luma[None] + 16, 224 * differences + 128])
    return np.rint(values).astype(np.uint8)


def frame_of(rgb, matrix, range_, layout="yuv420p"):
    planes = encoded(rgb, matrix, range_)
    if layout == "yuv420p":
        small = planes[1:].reshape(2, planes.shape[1] // 2, 2, planes.shape[2] // 2, 2).mean(axis=(2, 4))
        flat = np.concatenate([planes[0].ravel(), np.rint(small).astype(np.uint8).ravel()])
        return av.VideoFrame.from_ndarray(flat.reshape(-1, planes.shape[2]), format=layout)
    return av.VideoFrame.from_ndarray(planes, format=layout)


def write(
    path: Path,
    *,
    frames: int = 12,
    rate: Fraction = Fraction(25),
    size: tuple[int, int] = (96, 64),
    matrix: int = BT709,
    range_: int = LIMITED,
    layout: str = "yuv420p",
    times: list[int] | None = None,
    aspect: Fraction = Fraction(1),
    rotation: int | None = None,
    sound: str | None = None,
    stated: bool = True,
    container_options: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A video of `scene`; `times` in ms where frames do not follow each other evenly."""
    with av.open(str(path), "w", options=container_options or {}) as output:
        stream = output.add_stream("libx264", rate=rate, options={"crf": "4", "bf": "0", **(options or {})})
        context = stream.codec_context
        stream.width, stream.height, stream.pix_fmt = *size, layout
        context.sample_aspect_ratio = aspect
        if stated:
            context.colorspace, context.color_range = matrix, range_
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if times:
            context.time_base = Fraction(1, 1000)
            context.flags |= Flags.frame_duration
        tone = output.add_stream(sound, rate=48000, layout="stereo") if sound else None
        output.start_encoding()
        for number in range(frames):
            frame = frame_of(scene(number, *size), matrix, range_, layout)
            frame.pts = times[number] if times else number
            frame.time_base = Fraction(1, 1000) if times else 1 / rate
            if times:
                frame.duration = 40
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if tone:
            for block in range(int(frames / rate * 48000) // 1024):
                wave = 0.1 * np.sin(np.arange(1024) / 10 + block)
                layers = np.stack([wave, wave]).astype(np.float32)
                samples = av.AudioFrame.from_ndarray(layers, format="fltp", layout="stereo")
                samples.rate, samples.pts = 48000, block * 1024
                output.mux(tone.encode(samples))
            output.mux(tone.encode(None))
    return path


def facts(path: Path) -> dict:
    """Facts that a player goes by."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        return {
            "times": [float(frame.time) for frame in frames],
            "last": float(frames[-1].duration * frames[-1].time_base),
            "size": (frames[0].width, frames[0].height),
            "aspect": stream.sample_aspect_ratio,
            "rotation": frames[0].rotation,
            "colours": (frames[0].colorspace, frames[0].color_range),
            "rate": stream.average_rate,
            "duration": container.duration / 1e6,
            "sound": [sound.codec_context.name for sound in container.streams.audio],
            "layout": frames[0].format.name,
            "planes": np.stack([frame.to_ndarray() for frame in frames]).astype(int),
        }


def same(frame):
    return frame


@pytest.mark.parametrize(("matrix", "range_"), itertools.product((BT709, BT601), (LIMITED, FULL)))
def test_colours_are_those_of_the_standards_and_identity_changes_nothing(tmp_path, matrix, range_):
    source = write(tmp_path / "in.mp4", matrix=matrix, range_=range_)
    seen = []
    transcode(source, tmp_path / "out.mp4", lambda frame: seen.append(frame) or frame)
    expected = np.stack([scene(number) for number in range(12)])
    # Rounding to 8 bits, halved chroma and the codec at its best: about a grey level.
    assert np.abs(np.stack(seen) - expected).mean() < 1.2 / 255
    assert np.abs(np.stack(seen) - expected).max() < 8 / 255
    before, after = facts(source), facts(tmp_path / "out.mp4")
    assert after["colours"] == before["colours"] == (matrix, range_)
    difference = np.abs(after["planes"] - before["planes"])
    assert difference.mean() < 0.8
    assert difference.max() <= 6


def test_a_wrong_matrix_or_range_would_be_noticed():
    """The bounds of the test above are tighter than what each confusion does."""
    truth = scene(0)
    frame = frame_of(truth, BT709, LIMITED, "yuv444p")
    right = np.abs(Colours(BT709, LIMITED).picture(frame) - truth).mean()
    assert right < 0.8 / 255
    for wrong in (Colours(BT601, LIMITED), Colours(BT709, FULL)):
        assert np.abs(wrong.picture(frame) - truth).mean() > 4 / 255


def test_what_a_video_does_not_state_is_what_players_assume(tmp_path):
    small, large = (av.VideoFrame(64, height, "yuv420p") for height in (576, 720))
    assert Colours.of(small) == Colours(BT601, LIMITED)
    assert Colours.of(large) == Colours(BT709, LIMITED)
    assert Colours.of(av.VideoFrame(64, 64, "yuvj420p")).range == FULL
    assert Colours.of(av.VideoFrame(64, 64, "rgb24")).range == FULL
    source = write(tmp_path / "in.mp4", matrix=BT601, stated=False, frames=2)
    transcode(source, tmp_path / "out.mp4", same)
    assert facts(source)["colours"] == (video.UNSTATED_MATRIX, 0)
    assert facts(tmp_path / "out.mp4")["colours"] == (BT601, LIMITED)


def test_the_way_there_and_back_keeps_every_grey_level():
    truth = scene(0)
    for matrix, range_ in itertools.product((BT709, BT601), (LIMITED, FULL)):
        colours = Colours(matrix, range_)
        back = colours.picture(colours.frame(truth, "yuv444p10le"))
        assert np.abs(back - truth).max() < 1 / 255


@pytest.mark.parametrize(
    ("end", "rate"), [(".mp4", Fraction(30000, 1001)), (".mkv", Fraction(25)), (".mov", Fraction(50))]
)
def test_times_shape_and_sound_are_kept(tmp_path, end, rate):
    shape = {"rate": rate, "aspect": Fraction(4, 3), "rotation": 90, "sound": "aac"}
    source = write(tmp_path / f"in{end}", **shape)
    passed = transcode(source, tmp_path / f"out{end}", same, comment="made by a test")
    before, after = facts(source), facts(tmp_path / f"out{end}")
    for name in ("size", "aspect", "rotation", "rate", "sound", "layout"):
        assert after[name] == before[name], name
    assert after["rotation"] == 90
    assert after["sound"] == ["aac"]
    np.testing.assert_allclose(after["times"], before["times"], atol=1e-9)
    assert after["duration"] == pytest.approx(before["duration"], abs=0.002)
    assert passed.frames == 12
    assert passed.shown_s == pytest.approx(float(12 / rate), abs=0.002)
    assert (passed.size, passed.rate) == ((96, 64), pytest.approx(float(rate)))
    assert (passed.left_out, passed.fault) == ((), None)
    assert comment_of(tmp_path / f"out{end}") == "made by a test"


@pytest.mark.parametrize("end", [".mp4", ".mkv"])
def test_frames_that_do_not_follow_each_other_evenly(tmp_path, end):
    times = [0, 40, 80, 400, 440, 1000, 1040, 3000, 3040, 3080, 3120, 5000]
    source = write(tmp_path / "in.mkv", times=times)
    passed = transcode(source, tmp_path / f"out{end}", same)
    np.testing.assert_allclose(facts(tmp_path / f"out{end}")["times"], np.array(times) / 1000, atol=1e-9)
    assert facts(tmp_path / f"out{end}")["duration"] == pytest.approx(5.04, abs=0.002)
    assert passed.fault is None


def test_the_function_makes_the_frames(tmp_path):
    source = write(tmp_path / "in.mkv")
    transcode(source, tmp_path / "dark.mkv", lambda frame: 0.5 * frame)
    halves = []
    transcode(tmp_path / "dark.mkv", tmp_path / "same.mkv", lambda frame: halves.append(frame) or frame)
    expected = 0.5 * np.stack([scene(number) for number in range(12)])
    assert np.abs(np.stack(halves) - expected).mean() < 1.5 / 255


def test_twice_the_size(tmp_path):
    source = write(tmp_path / "in.mp4", aspect=Fraction(4, 3), frames=3)
    transcode(source, tmp_path / "out.mp4", lambda frame: frame.repeat(2, 1).repeat(2, 2), scale=2)
    after = facts(tmp_path / "out.mp4")
    assert (after["size"], after["aspect"]) == ((192, 128), Fraction(4, 3))


@pytest.mark.parametrize(
    ("source", "size", "stored"),
    [
        ("yuv420p", (64, 48), "yuv420p"),
        ("yuvj420p", (64, 48), "yuv420p"),
        ("nv12", (64, 48), "yuv420p"),
        ("yuv420p10le", (64, 48), "yuv420p10le"),
        ("p010le", (64, 48), "yuv420p10le"),
        ("yuv422p", (64, 48), "yuv422p"),
        ("yuv422p", (64, 47), "yuv422p"),
        ("yuv444p10le", (64, 48), "yuv444p10le"),
        ("rgb24", (64, 48), "yuv444p"),
        ("bgra", (64, 48), "yuv444p"),
        ("yuv420p", (63, 48), "yuv444p"),
        ("yuv420p", (64, 47), "yuv422p"),
    ],
)
def test_depth_and_sampling_are_kept_where_they_can_be(source, size, stored):
    assert stored_as(source, *size) == stored


def test_odd_sizes_pass(tmp_path):
    source = write(tmp_path / "in.mkv", size=(63, 47), layout="yuv444p", frames=3)
    transcode(source, tmp_path / "out.mp4", same)
    assert facts(tmp_path / "out.mp4")["size"] == (63, 47)


def cut(path: Path, share: float) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    return path


FRAGILE = {"frames": 100, "options": {"crf": "20", "g": "10"}}
FRONT = {"container_options": {"movflags": "faststart"}}


@pytest.mark.parametrize(("end", "extra"), [(".mp4", FRONT), (".mkv", {}), (".mkv", {"sound": "aac"})])
def test_a_video_that_ends_early_goes_as_far_as_it_can(tmp_path, end, extra):
    source = cut(write(tmp_path / f"in{end}", **FRAGILE, **extra), 0.5)
    passed = transcode(source, tmp_path / f"out{end}", same)
    assert 20 < passed.frames < 80
    shown = passed.frames / 25
    assert f"it ends early, after {passed.frames} frames: {shown:.2f} s of 4.00 s" in passed.fault
    assert len(facts(tmp_path / f"out{end}")["times"]) == passed.frames


@pytest.mark.parametrize("end", [".mp4", ".mkv", ".mov", ".avi", ".ts", ".mpg"])
@pytest.mark.parametrize("sound", [None, "mp2"])
def test_a_whole_video_has_no_fault_whatever_holds_it(tmp_path, end, sound):
    passed = transcode(write(tmp_path / f"in{end}", sound=sound), tmp_path / "out.mkv", same)
    assert (passed.frames, passed.fault) == (12, None)
    assert facts(tmp_path / "out.mkv")["sound"] == ([sound] if sound else [])


def test_damage_in_the_middle_is_told(tmp_path):
    source = write(tmp_path / "in.mp4", **FRAGILE, **FRONT)
    content = bytearray(source.read_bytes())
    for place in np.random.default_rng(1).integers(len(content) // 2, len(content) * 3 // 4, 60):
        content[place] ^= 0x55
    source.write_bytes(content)
    passed = transcode(source, tmp_path / "out.mp4", same)
    assert "the first at 2." in passed.fault or "the first at 1." in passed.fault
    assert "of its frames are damaged or missing" in passed.fault
    assert passed.frames >= 80


def without_index(path):
    cut(write(path, frames=50), 0.6)


@pytest.mark.parametrize(
    ("name", "make", "fault"),
    [
        ("no_index.mp4", without_index, "cannot be opened as a video"),
        ("text.mp4", lambda path: path.write_text("not a video\n" * 100), "cannot be opened as a video"),
        ("empty.mkv", lambda path: path.write_bytes(b""), "cannot be opened as a video"),
        ("list.m3u8", lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nin.ts\n"), "cannot be opened"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, name, make, fault):
    source = tmp_path / name
    make(source)
    assert not is_video(source)
    with pytest.raises(FrameError, match=fault) as caught:
        transcode(source, tmp_path / "out.mp4", same)
    assert caught.value.file == source
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_sound_alone_is_no_video(tmp_path):
    source = tmp_path / "sound.mkv"
    with av.open(str(source), "w") as output:
        tone = output.add_stream("aac", rate=48000)
        samples = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        samples.rate = 48000
        output.mux(tone.encode(samples))
        output.mux(tone.encode(None))
    with pytest.raises(FrameError, match="no moving pictures"):
        transcode(source, tmp_path / "out.mp4", same)


def test_interlaced_frames_are_refused(tmp_path):
    source = write(tmp_path / "in.mkv", options={"x264-params": "interlaced=1"})
    with pytest.raises(FrameError, match=r"interlaced.*deinterlace"):
        transcode(source, tmp_path / "out.mp4", same)
    assert not (tmp_path / "out.mp4").exists()


def test_high_dynamic_range_is_refused(tmp_path):
    source = write(tmp_path / "in.mkv", options={"x264-params": "transfer=smpte2084"})
    with pytest.raises(FrameError, match="PQ"):
        transcode(source, tmp_path / "out.mp4", same)


def test_outputs_are_named_and_nothing_is_overwritten(tmp_path):
    source = write(tmp_path / "in.mp4", frames=2)
    with pytest.raises(OutputError, match=r"not written as \.gif; name one that ends in \.mkv"):
        transcode(source, tmp_path / "out.gif", same)
    (tmp_path / "out.mp4").write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        transcode(source, tmp_path / "out.mp4", same)
    assert (tmp_path / "out.mp4").read_text() == "precious"


def test_an_interruption_leaves_nothing(tmp_path):
    source = write(tmp_path / "in.mp4")
    numbers = itertools.count()

    def interrupted(frame):
        if next(numbers) == 5:
            raise KeyboardInterrupt
        return frame

    with pytest.raises(KeyboardInterrupt):
        transcode(source, tmp_path / "out.mp4", interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_a_full_disk_is_told(tmp_path, small_disk):
    source = write(tmp_path / "in.mp4", frames=60)
    rng = np.random.default_rng(0)
    with pytest.raises(OutputError, match="disk is full"):
        transcode(source, small_disk / "out.mp4", lambda frame: rng.random(frame.shape, np.float32))
    assert list(small_disk.iterdir()) == []


def test_subtitles_are_copied_with_their_times(tmp_path):
    source, lines = tmp_path / "in.mkv", tmp_path / "lines.srt"
    lines.write_text("1\n00:00:00,040 --> 00:00:00,140\none\n\n2\n00:00:00,280 --> 00:00:00,380\ntwo\n")
    plain = write(tmp_path / "plain.mkv")
    with av.open(str(source), "w") as output, av.open(str(plain)) as first, av.open(str(lines)) as second:
        streams = [output.add_stream_from_template(part.streams[0]) for part in (first, second)]
        for part, stream in zip((first, second), streams, strict=True):
            for packet in part.demux():
                if packet.dts is not None:
                    packet.stream = stream
                    output.mux(packet)
    assert transcode(source, tmp_path / "out.mkv", same).left_out == ()
    with av.open(str(tmp_path / "out.mkv")) as output:
        found = [p for p in output.demux(output.streams.subtitles[0]) if p.size]
        assert [bytes(p) for p in found] == [b"one", b"two"]
        assert [float(p.pts * p.time_base) for p in found] == [0.04, 0.28]
        assert [float(p.duration * p.time_base) for p in found] == [0.1, 0.1]


def test_what_cannot_be_kept_is_named(tmp_path):
    """Vorbis has no place in QuickTime; Matroska holds it."""
    source = write(tmp_path / "in.mkv", sound="libvorbis" if "libvorbis" in av.codecs_available else "flac")
    passed = transcode(source, tmp_path / "out.mov", same)
    assert len(passed.left_out) == 1
    assert passed.left_out[0].startswith("audio (")
    assert facts(tmp_path / "out.mov")["sound"] == []
    assert transcode(source, tmp_path / "out.mkv", same).left_out == ()

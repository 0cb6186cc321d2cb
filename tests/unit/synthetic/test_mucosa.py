"""Drawn mucosa: its optics against closed forms, its truth, and every kind of frame."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from rbs.degradation.optical import to_linear
from rbs.synthetic.mucosa.camera import rays
from rbs.synthetic.mucosa.overlay import draw_overlay
from rbs.synthetic.mucosa.scene import Instrument, Polyp, Scene
from rbs.synthetic.mucosa.shade import Surface, exposed, mucosa_albedo, radiance
from rbs.synthetic.mucosa.video import Picture, Video
from rbs.synthetic.mucosa.wall import ANGLES, Wall, noise

VIDEOS, SIZE = 14, 96


@pytest.fixture(scope="module")
def drawn() -> list[list[Picture]]:
    """Two frames of each of some videos."""
    videos = [Video(1, number, SIZE) for number in range(VIDEOS)]
    return [[video.draw(0), video.draw(1)] for video in videos]


@pytest.fixture(scope="module")
def pipe() -> Wall:
    """A straight smooth pipe of 20 mm radius."""
    wall = Wall("colon", np.random.default_rng(0))
    wall.radius = np.full_like(wall.radius, 20)
    wall._axis = np.zeros_like(wall._axis)
    return wall


def ball(radius: float, ahead: float) -> Polyp:
    middle = np.array([0, 0, ahead], np.float32)
    return Polyp(
        base=middle,
        head=middle + np.float32(1e-3),
        radii=np.full(3, radius, np.float32),
        axes=np.eye(3, dtype=np.float32),
        stalk=0.0,
        lobes=np.array([[0, 0, 0, 1]], np.float32),
        redness=0.0,
    )


# ---- geometry


def test_sight_ends_at_a_pipe_and_at_a_ball_where_it_must(pipe: Wall) -> None:
    ways = rays(32, math.radians(60))
    origin = np.array([0, 0, 10], np.float32)
    far = Scene(pipe, []).trace(origin, ways, None)
    aside = np.hypot(ways[0], ways[1])
    seen = aside * 150 > 25  # others leave the pipe through its end
    np.testing.assert_allclose(far[seen], 20 / aside[seen], rtol=0.025)  # two thousandths before the wall

    far = Scene(pipe, [ball(6, 40)]).trace(origin, ways, None)
    along = 30 * ways[2]  # towards the middle of the ball; 30 mm away
    inside = 6**2 - (30**2 - along**2)
    hit = inside > 4
    assert hit.sum() > 20
    np.testing.assert_allclose(far[hit], (along - np.sqrt(np.maximum(inside, 0)))[hit], atol=0.2)


def test_normals_of_a_pipe_point_inwards_and_of_a_ball_outwards(pipe: Wall) -> None:
    angle = np.linspace(0, 6, 50, dtype=np.float32)
    out = np.stack([np.cos(angle), np.sin(angle), 0 * angle])
    wall = np.array([0, 0, 60], np.float32)[:, None] + 20 * out
    np.testing.assert_allclose(Scene(pipe, []).normals(wall), -out, atol=0.02)
    ball_scene = Scene(pipe, [ball(6, 60)])
    surface = np.array([0, 0, 60], np.float32)[:, None] + 6 * out
    np.testing.assert_allclose(ball_scene.normals(surface), out, atol=0.04)
    assert (ball_scene.owner(surface) == 1).all()
    assert (ball_scene.owner(wall) == 0).all()


def test_an_instrument_is_a_rod_with_a_metal_tip() -> None:
    rod = Instrument(np.zeros(3, np.float32), np.array([0, 0, 30], np.float32), radius=1.5, metal=4)
    points = np.array([[5, 0, 10], [0, 0, 40], [0, 1.5, 28]], np.float32).T
    np.testing.assert_allclose(rod.distance(points), [3.5, 8.5, 0], atol=1e-5)
    np.testing.assert_allclose(rod.from_tip(points), [20, -10, 2], atol=1e-5)
    np.testing.assert_allclose(rod.normals(points[:, 2:]), [[0], [1], [0]], atol=1e-5)


def test_the_lens_sees_its_angle_at_the_corners() -> None:
    ways = rays(200, math.radians(65)).reshape(3, 200, 200)
    np.testing.assert_allclose((ways**2).sum(0), 1, rtol=1e-5)
    assert math.degrees(math.acos(ways[2, 0, 0])) == pytest.approx(65, abs=0.5)
    assert math.degrees(math.acos(ways[2, 99, 99])) == pytest.approx(0, abs=0.5)
    right = math.degrees(math.atan2(ways[0, 100, 199], ways[2, 100, 199]))
    assert right == pytest.approx(65 / math.sqrt(2), abs=0.5)  # in proportion to the radius


def test_noise_has_its_slope() -> None:
    power = np.zeros((64, 33))
    for seed in range(20):
        power += np.abs(np.fft.rfft2(noise((64, 64), 2.4, np.random.default_rng(seed)))) ** 2
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)[None])
    inner = (frequency > 0.05) & (frequency < 0.4)
    assert np.polyfit(np.log(frequency[inner]), np.log(power[inner]), 1)[0] == pytest.approx(-2.4, abs=0.1)


def test_a_wall_closes_around_and_stays_open_inside() -> None:
    for organ in ("colon", "stomach"):
        wall = Wall(organ, np.random.default_rng(3))  # type: ignore[arg-type]
        assert wall.radius.shape[0] == ANGLES
        assert wall.radius.min() > 1
        across_the_seam = np.abs(wall.radius[0] - wall.radius[-1]).mean()
        elsewhere = np.abs(np.diff(wall.radius, axis=0)).mean()
        assert across_the_seam < 3 * elsewhere
        middle = np.stack([wall.axis(z) for z in np.linspace(10, 0.45 * wall.length, 20)], axis=1)
        assert (wall.clearance(middle) > 0).all()


# ---- light


def plane(distance: float, count: int = 1) -> Surface:
    """Grey matter seen straight on, without a film."""
    points = np.zeros((3, count), np.float32)
    points[2] = distance
    towards = np.zeros_like(points)
    towards[2] = -1
    return Surface(points, towards, towards, np.full_like(points, 0.5), np.zeros(count, np.float32), 0.1)


def test_light_falls_with_the_square_of_the_distance() -> None:
    near, far = (float(radiance(plane(d))[0, 0]) for d in (50, 100))
    assert near / far == pytest.approx(4, rel=0.02)


def test_a_slanted_surface_is_darker_and_a_wet_one_that_faces_the_lamp_shines_white() -> None:
    straight = plane(60)
    slanted = replace(straight, normals=np.array([[0], [math.sin(1)], [-math.cos(1)]], np.float32))
    assert radiance(slanted)[0, 0] < 0.9 * radiance(straight)[0, 0]
    wet = replace(straight, gloss=np.array([0.05], np.float32), albedo=np.zeros((3, 1), np.float32))
    shine = radiance(wet)[:, 0]
    assert np.ptp(shine) < 1e-6 * shine[0]
    aside = replace(wet, film=np.array([[0], [math.sin(0.5)], [-math.cos(0.5)]], np.float32))
    assert radiance(aside)[0, 0] < 1e-3 * shine[0]  # five times the roughness away


def test_blood_takes_green_and_blue_by_beer_and_lambert() -> None:
    base = np.array([0.9, 0.7, 0.6], np.float32)
    none = np.zeros(1, np.float32)
    clear, one, two = (mucosa_albedo(base, none + b, none)[:, 0] for b in (0, 1, 2))
    np.testing.assert_allclose(clear, to_linear(base), rtol=1e-5)
    np.testing.assert_allclose(two / one, one / clear, rtol=1e-4)
    assert one[0] / clear[0] > 0.8 > 0.5 > one[1] / clear[1]
    dyed = mucosa_albedo(base, none, none + 1)[:, 0]
    assert dyed[2] / clear[2] > dyed[1] / clear[1] > dyed[0] / clear[0]


def test_exposure_brings_the_middle_to_its_level_and_highlights_to_white() -> None:
    light = np.full((3, 1000), 7.0, np.float32)
    light[:, :5] = 700
    shown = exposed(light, 0.5, np.ones(1000, bool))
    assert to_linear(np.array([0.5]))[0] * 0.5 < shown[0, -1] <= to_linear(np.array([0.5]))[0]
    assert shown[0, 0] == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(exposed(3 * light, 0.5, np.ones(1000, bool)), shown, rtol=1e-5)


# ---- frames


def test_a_frame_depends_on_its_numbers_alone() -> None:
    whole = Video(4, 2, 64)
    first = [whole.draw(k) for k in (0, 1)]
    again = Video(4, 2, 64).draw(1)
    for name in ("frame", "polyp", "instrument", "field_of_view"):
        assert np.array_equal(getattr(first[1], name), getattr(again, name))
    assert not np.array_equal(first[0].frame, first[1].frame)
    assert not np.array_equal(Video(5, 2, 64).draw(1).frame, again.frame)


def test_frames_are_eight_bit_pictures_and_their_truth_is_consistent(drawn: list[list[Picture]]) -> None:
    for picture in chain(*drawn):
        frame = picture.frame
        assert (frame.shape, frame.dtype) == ((3, SIZE, SIZE), np.float32)
        assert np.array_equal(frame, np.round(frame * 255).astype(np.float32) / np.float32(255))
        assert not (picture.polyp & ~picture.field_of_view).any()
        assert not (picture.polyp & picture.instrument).any()
        assert picture.field_of_view.mean() > 0.3
        assert frame[:, picture.field_of_view].std() > 0.05


def test_frames_of_a_video_are_of_one_place(drawn: list[list[Picture]]) -> None:
    def apart(one: Picture, other: Picture) -> float:
        both = one.field_of_view & other.field_of_view
        return float(np.abs(one.frame - other.frame)[:, both].mean())

    same = [apart(*pair) for pair in drawn]
    different = [apart(drawn[n][0], drawn[n - 1][0]) for n in range(VIDEOS)]
    assert np.mean(same) < 0.6 * np.mean(different)
    assert min(same) > 0  # the camera moves
    for one, other in drawn:
        assert np.array_equal(one.field_of_view, other.field_of_view)


def test_every_kind_of_frame_comes_up(drawn: list[list[Picture]]) -> None:
    firsts = [pictures[0] for pictures in drawn]
    with_polyp = [p.polyp.any() for p in firsts]
    assert 0.4 < np.mean(with_polyp) < 1
    assert any(p.instrument.any() for p in firsts)
    assert any((p.frame[:, p.field_of_view].min(0) > 0.9).any() for p in firsts)  # highlights
    assert sum(p.polyp.sum() > 0.02 * SIZE**2 for p in firsts) >= 3  # polyps large enough to learn from
    overlays = [draw_overlay(128, np.random.default_rng(seed)) for seed in range(60)]
    assert any(o.field.all() for o in overlays)
    corners = [o.picture[:, 127, 0] for o in overlays]
    assert any(c[1] > c[0] + 0.2 for c in corners)  # a green inset
    assert any((o.picture.min(0) > 0.6).sum() > 20 for o in overlays)  # text
    assert len({round(float(o.picture.min()), 2) for o in overlays}) > 1  # black and grey borders


def test_colours_are_those_of_mucosa(drawn: list[list[Picture]]) -> None:
    # Ranges of the mean over frames around what real frames have: 0.60, 0.39, 0.29.
    means = np.mean([p.frame[:, p.field_of_view].mean(1) for p in chain(*drawn)], axis=0)
    for mean, (low, high) in zip(means, ((0.5, 0.7), (0.33, 0.47), (0.23, 0.37)), strict=True):
        assert low < mean < high

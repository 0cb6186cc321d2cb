"""Simulation studies with many draws of one child: detection, texture, sharpness, blank images.

Whole scans are drawn and restored, never crops: restorers with channel attention (NAFNet) look at
the whole image, so a crop of any size is restored differently. Instead many foci, or many impulses,
are put into each draw, far enough apart that none reaches another's window.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rbs.evaluation.methods import Method
from rbs.evaluation.observers.laguerre_gauss import laguerre_gauss_channels
from rbs.evaluation.observers.lesion_detection import compare_foci
from rbs.evaluation.observers.lesions import CAMERA_FWHM_MM
from rbs.evaluation.observers.noise_power import (
    impulse_response,
    mean_frequency,
    noise_power_spectrum,
    radial_spectrum,
    soft_tissue_windows,
    spectrum_variance,
)
from rbs.evaluation.observers.observers import FIRST_CHANNEL, WINDOW, amplitude_for, snr_of_auc
from rbs.evaluation.scans.metrics import Target
from rbs.evaluation.scans.pairs import ScanPair
from rbs.scans.body import smooth
from rbs.scans.scan import REGIONS, Array
from rbs.utils.observer_channels import dog_channels

Rows = list[dict[str, Any]]

STANDARD = "standard"
"""Row of the raw standard scan."""
DOG, LAGUERRE_GAUSS = "dog", "laguerre_gauss"
"""Channels of the two model observers; `losses` may train on the first, on the second nothing."""

BONES = ("skull", "spine", "thorax", "pelvis", "arms", "legs")
APART = 33
"""Pixels between two foci or impulses at least, in rows or in columns."""
FOCUS_SIZES_MM = (5.0, 10.0, 20.0)
STANDARD_AUC = 0.95
"""Every focus is as strong as the ideal observer of the standard scan needs for this."""
IMPULSES = (20.0, 100.0, 500.0)
"""Standard counts put into one pixel."""
BLANK_LEVELS = (0.05, 0.5, 2.0)
"""Standard counts a pixel of images that hold nothing."""
BLANK_SHAPE = (2, 512, 256)


@dataclass(frozen=True)
class Place:
    """A possible focus.

    Attributes:
        row: Row of its centre.
        column: Column of its centre.
        size_mm: FWHM before the camera's blur, mm.
        contrast: Its peak after the blur over the local expectation.
        levels: Local expectation (V,), standard counts a pixel.
        signal: What it adds to the expectation, standard counts (V, WINDOW, WINDOW).
    """

    row: int
    column: int
    size_mm: float
    contrast: float
    levels: Array
    signal: Array

    @property
    def window(self) -> tuple[slice, slice, slice]:
        """Its window in (V, H, W)."""
        half = WINDOW // 2
        rows, columns = (slice(at - half, at + half + 1) for at in (self.row, self.column))
        return slice(None), rows, columns


@dataclass(frozen=True)
class Detection:
    """Observers' data of one child.

    Attributes:
        patient: Identifier.
        exposure: p of the rapid scan.
        places: Where foci were put.
        absent: By channels and method, channel outputs without the focus (places, draws / 2,
            channels of all views), those of each view over the root of its local expectation.
        present: The same with the focus.
    """

    patient: str
    exposure: float
    places: list[Place]
    absent: dict[tuple[str, str], Array]
    present: dict[tuple[str, str], Array]


def generator(seed: int, patient: str, study: str) -> np.random.Generator:
    """Random generator of one study of one child, independent of all others."""
    return np.random.default_rng([seed, zlib.crc32(patient.encode()), zlib.crc32(study.encode())])


def bone_places(expectation: Array, labels: Array, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Random bone pixels of both views, `APART` from each other and off the border."""
    numbers = [REGIONS.index(name) + 1 for name in BONES]
    half = WINDOW // 2
    bone = np.asarray(np.isin(labels, numbers).all(axis=0) & (expectation > 1e-3).all(axis=0))
    bone[:half], bone[-half:], bone[:, :half], bone[:, -half:] = False, False, False, False
    found: list[tuple[int, int]] = []
    for row, column in rng.permutation(np.argwhere(bone)):
        if all(max(abs(row - r), abs(column - c)) >= APART for r, c in found):
            found.append((int(row), int(column)))
    return found


def make_places(target: Target, rng: np.random.Generator) -> list[Place]:
    """Foci of the sizes in turn at random places in bone, each as strong as `STANDARD_AUC` asks.

    A focus is a Gaussian of sqrt(size² + 7²) mm FWHM in both views, in either in proportion to its
    local expectation (smoothed by 6 mm).
    """
    assert target.expectation is not None
    assert target.labels is not None
    expectation = np.maximum(target.expectation.astype(np.float64), 1e-6)
    local = smooth(expectation, 6.0, target.spacing_mm)
    y, x = ((np.arange(WINDOW) - WINDOW // 2) * s for s in target.spacing_mm)
    places = []
    for number, (row, column) in enumerate(bone_places(expectation, target.labels, rng)):
        size = FOCUS_SIZES_MM[number % len(FOCUS_SIZES_MM)]
        width = math.hypot(size, CAMERA_FWHM_MM)
        gaussian = np.exp(-4 * math.log(2) * (y[:, None] ** 2 + x**2) / width**2)
        levels = local[:, row, column]
        place = Place(row, column, size, 0.0, levels, levels[:, None, None] * gaussian)
        contrast = amplitude_for(expectation[place.window], place.signal, snr_of_auc(STANDARD_AUC))
        places.append(replace(place, contrast=contrast, signal=contrast * place.signal))
    return places


def detection_study(
    pair: ScanPair, restorers: Mapping[str, Callable[[ScanPair], Array]], draws: int, seed: int
) -> Detection:
    """Draw a child with and without foci at known places, restore it, and record channel outputs.

    In every draw each place holds its focus or not, by chance; in the next it is the other way
    round.

    Args:
        pair: A phantom.
        restorers: Name to a way to restore; each sees the same rapid draws.
        draws: Even.
        seed: Seed.
    """
    target, p = pair.target, pair.exposure
    assert target.expectation is not None
    rng = generator(seed, pair.patient, "detection")
    expectation = np.maximum(target.expectation.astype(np.float64), 1e-6)
    places = make_places(target, rng)
    dog = dog_channels(WINDOW, FIRST_CHANNEL)
    sets = {
        size: {
            DOG: dog,
            LAGUERRE_GAUSS: laguerre_gauss_channels(math.hypot(size, CAMERA_FWHM_MM), target.spacing_mm),
        }
        for size in FOCUS_SIZES_MM
    }
    names = [(channels, name) for channels in (DOG, LAGUERRE_GAUSS) for name in (*restorers, STANDARD)]
    seen: dict[int, dict[tuple[str, str], list[list[Array]]]] = {
        present: {name: [[] for _ in places] for name in names} for present in (0, 1)
    }
    bits = np.zeros(len(places), dtype=int)
    for draw in range(draws if places else 0):
        bits = rng.integers(0, 2, len(places)) if draw % 2 == 0 else 1 - bits
        mean = expectation.copy()
        for place, present in zip(places, bits, strict=True):
            mean[place.window] += present * place.signal
        drawn = replace(pair, rapid=rng.poisson(p * mean).astype(np.float32))
        standard = rng.poisson(mean).astype(np.float32)
        images = {name: restore(drawn) for name, restore in restorers.items()} | {STANDARD: standard}
        for number, (place, present) in enumerate(zip(places, bits, strict=True)):
            for name, image in images.items():
                window = image[place.window].reshape(len(image), -1).astype(np.float64)
                for channels, templates in sets[place.size_mm].items():
                    outputs = window @ templates.T / np.sqrt(place.levels)[:, None]
                    seen[present][channels, name][number].append(outputs.ravel())
    without: dict[tuple[str, str], Array] = {name: np.array(seen[0][name]) for name in names}
    with_foci: dict[tuple[str, str], Array] = {name: np.array(seen[1][name]) for name in names}
    return Detection(pair.patient, p, places, without, with_foci)


def texture_study(pair: ScanPair, methods: Sequence[Method], draws: int, seed: int) -> tuple[Rows, Rows]:
    """Noise power spectrum in soft tissue and local impulse response in bone.

    The response is the difference between restorations of a draw with and without the impulses' own
    Poisson
    counts: everything else in the two is the same.

    Args:
        pair: A phantom.
        methods: Ways to restore.
        draws: Two at least.
        seed: Seed.

    Returns:
        Rows of the spectra, one a method and ring of frequency; of the responses, one a method and
        impulse.
    """
    target, p = pair.target, pair.exposure
    assert target.expectation is not None
    assert target.labels is not None
    rng = generator(seed, pair.patient, "texture")
    expectation = np.maximum(target.expectation.astype(np.float64), 1e-6)
    rapid = rng.poisson(p * expectation, (draws, *expectation.shape)).astype(np.float32)
    standard = rng.poisson(expectation, rapid.shape).astype(np.float32)
    windows = soft_tissue_windows(target.labels, target.mask)
    levels = [expectation[v, r : r + 16, c : c + 16].mean() for v, r, c in windows]
    level = float(np.mean(levels)) if windows else 0.0
    # A source in the body is seen by both detectors. All strengths stand in one draw: they are far
    # apart.
    places: dict[float, list[tuple[int, int, int]]] = {counts: [] for counts in IMPULSES}
    extra = np.zeros_like(rapid)
    for number, (row, column) in enumerate(bone_places(expectation, target.labels, rng)):
        counts = IMPULSES[number % len(IMPULSES)]
        for view in range(len(expectation)):
            places[counts].append((view, row, column))
            extra[:, view, row, column] = rng.poisson(p * counts, draws)

    spectra: Rows = []
    responses: Rows = []
    for method in (*methods, None):
        name = STANDARD if method is None else method.name
        restored = standard if method is None else _restore(method, pair, rapid)
        if windows:
            nps = noise_power_spectrum(restored, windows, target.spacing_mm)
            known = {
                "method": name,
                "windows": len(windows),
                "mean_count": level,
                "variance": spectrum_variance(nps, target.spacing_mm),
                "mean_frequency_per_mm": mean_frequency(nps, target.spacing_mm),
            }
            spectra += [
                {**known, "frequency_per_mm": f, "nps_counts2_mm2": power}
                for f, power in radial_spectrum(nps, target.spacing_mm)
            ]
        if method is None or not extra.any():
            continue
        raised = _restore(method, pair, rapid + extra)
        for counts, at in places.items():
            if at:
                found = impulse_response(raised, restored, at, counts, target.spacing_mm)[1]
                known = {"method": name, "impulse_counts": counts, "places": len(at), "draws": draws}
                responses.append({**known, "fwhm_mm": found.fwhm_mm, "gain": found.gain})
    return spectra, responses


def blank_study(
    methods: Sequence[Method], exposure: float, spacing_mm: tuple[float, float], draws: int, seed: int
) -> Rows:
    """Foci hallucinated in constant images without noise and in Poisson noise alone.

    Args:
        methods: Ways to restore.
        exposure: p of the rapid scans.
        spacing_mm: Row and column spacing, mm.
        draws: Poisson draws of each level.
        seed: Seed.

    Returns:
        One row a method, level and draw.
    """
    rng = generator(seed, "", "blank")
    rows: Rows = []
    for level in BLANK_LEVELS:
        truth = np.full(BLANK_SHAPE, level)
        inputs = [("flat", exposure * truth)] + [
            ("noise", rng.poisson(exposure * truth)) for _ in range(draws)
        ]
        for number, (kind, rapid) in enumerate(inputs):
            pair = ScanPair("", rapid.astype(np.float32), exposure, Target(truth, 1.0, spacing_mm, truth))
            images = {m.name: m.restore(pair) for m in methods}
            if kind == "noise":
                images[STANDARD] = rng.poisson(truth)
            rows += [
                {
                    "image": kind,
                    "counts_per_pixel": level,
                    "draw": number,
                    "method": name,
                    "views": len(truth),
                    "hallucinated": len(compare_foci(image, truth, spacing_mm).hallucinated),
                    "bias_percent": 100 * (float(image.mean(dtype=np.float64)) / level - 1),
                }
                for name, image in images.items()
            ]
    return rows


def _restore(method: Method, pair: ScanPair, draws: Array) -> Array:
    return np.stack([method.restore(replace(pair, rapid=rapid)) for rapid in draws])

"""Counts from pictures: 8-bit exports whose greys are the counts times one factor.

The factor is read off the histogram (`rbs.scans.pictures.grey_levels`), and the result has to
behave like counts: Poisson noise at every level, independent from pixel to pixel. Windowed,
gamma-mapped, interpolated and saturated pictures fail one or the other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from rbs.errors import ScanError
from rbs.scans.counts import block_contrasts
from rbs.scans.noise import STANDARD_ERRORS, beside_blanks, blank_pixels, examine
from rbs.scans.pictures.grey_levels import FIRST, LAST, SCALES, fit_grey_levels, greys_of_counts
from rbs.scans.scan import Array
from rbs.utils.files import require_regular

SUFFIXES = (".png", ".jpg", ".jpeg")
"""Pictures that are read."""

LEAST_DRAWN = 0.98
"""Least noise variance over mean where some greys stand for two counts: drawing one of them only
adds noise."""

LARGEST_BLUR = 0.45
"""Spread of greys about those of counts: with more the JPEG is below 99, the counts are lost."""

LEAST_CONFIDENCE = 10.0
"""log10 of the odds against any other scale that the noise allows."""

LEAST_AGREEMENT = 0.3
"""Agreement in each range of grey, see `rbs.scans.pictures.grey_levels.GreyLevels`."""

PLAIN = 0.08
"""Deviation from 1 of the dispersion of plain counts, whose histogram has no gaps."""

MOST_CLIPPED = 5e-3
"""Share of white pixels, whose counts are lost."""

LEAST_PIXELS = 1000
"""Pixels of grey `FIRST` or more without which the scale cannot be seen."""

_MOST_CUT = 9
"""Counts up to which a cut is looked for."""

_RARE = 0.5
"""Share of the least number that Poisson counts can have, below which a count was cut."""

_MOST_PIXELS = 2**24

_NO_COUNTS = "its grey levels are not counts times one factor: it was windowed, mapped or resampled"
_NO_SCALE = (
    "its grey levels do not tell one scale: it was windowed, resampled, a JPEG below 98, or is too faint"
)


@dataclass(frozen=True)
class Recovery:
    """Result of recovering the counts of a picture.

    Attributes:
        counts: Recovered counts, int32 (rows, columns); None where the picture is refused.
        fault: Why it is refused, as a clause; empty where it is not.
        scale: Grey levels a count; NaN where none was found, here and below.
        standard_error: Of the scale.
        confidence: log10 of the odds of this scale against any other that the noise allows.
        dispersion: Noise variance over mean of the counts.
        clipped: Share of white pixels, whose counts are at least 255 / scale.
        cut: The highest count that was cut to 0, as were all below it (`rbs.scans.scan.Scan.cut`).
        ambiguous: Share of the pixels not 0 whose grey stands for two counts (scales below 1).
    """

    counts: Array | None
    fault: str
    scale: float = float("nan")
    standard_error: float = float("nan")
    confidence: float = float("nan")
    dispersion: float = float("nan")
    clipped: float = float("nan")
    cut: int = 0
    ambiguous: float = 0.0


def read_picture(path: str | Path) -> Array:
    """Read an 8-bit PNG or JPEG, uint8 (rows, columns); colours with R = G = B count as grey.

    Raises:
        ScanError: It cannot be read, is no file, or is in colour, transparent or not of 8 bits.
    """
    path = Path(path)
    require_regular(path, ScanError)
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                fault = f"it has {picture.width} x {picture.height} pixels"
                raise ScanError(fault, file=path, remedy="give one picture a whole-body view")
            if picture.mode in ("P", "RGBA", "LA", "PA"):
                pixels = np.asarray(picture.convert("RGBA"))
                if (pixels[..., 3] != 255).any():
                    raise ScanError("it is transparent", file=path, remedy="export it without transparency")
                pixels = pixels[..., :3]
            elif picture.mode in ("L", "RGB"):
                pixels = np.asarray(picture)
            else:
                fault = f"it is no 8-bit grey picture (mode {picture.mode})"
                raise ScanError(fault, file=path, remedy="export 8-bit grey, or the raw counts as DICOM")
    except UnidentifiedImageError as error:
        raise ScanError("it is neither PNG nor JPEG", file=path, remedy="name a PNG or a JPEG") from error
    except OSError as error:
        if error.errno is None:  # Pillow's own, on a damaged file
            raise ScanError(f"it cannot be decoded ({error})", file=path, remedy="copy it again") from error
        fault = f"it cannot be read ({error.strerror})"
        raise ScanError(fault, file=path, remedy="check the name and the permissions") from error
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ScanError(f"it cannot be decoded ({error})", file=path, remedy="copy it again") from error
    if pixels.ndim == 2:
        return pixels
    if (pixels != pixels[..., :1]).any():
        raise ScanError("it is in colour", file=path, remedy="export the grey picture, without a colour map")
    return np.ascontiguousarray(pixels[..., 0])


def recover(grey: Array, *, inverted: bool = False) -> Recovery:
    """Turn greys back into counts, or say why not.

    Args:
        grey: uint8 (rows, columns).
        inverted: True for a picture that is black on white.
    """
    if inverted:
        grey = 255 - grey
    elif np.median(grey) > 127:
        return Recovery(None, "most of it is bright, as in a black-on-white picture (then say --inverted)")
    histogram = np.bincount(grey.ravel(), minlength=256)
    clipped = float(histogram[255]) / grey.size
    if histogram[FIRST : LAST + 1].sum() < LEAST_PIXELS:
        return Recovery(None, "it is blank, or too faint for its scale to be seen", clipped=clipped)
    if clipped > MOST_CLIPPED:
        return Recovery(
            None, f"{100 * clipped:.2g} % of its pixels are white: it was windowed", clipped=clipped
        )
    noise = _noise_of_bright(grey)
    low, high = noise / 2.2, noise / 0.8
    if not (high > SCALES[0] and low < SCALES[1]):  # also where there is too little to tell
        times = f"{SCALES[0]:g} to {SCALES[1]:g}"
        fault = f"its noise ({noise:.2g} times its mean) is not that of counts times {times}"
        return Recovery(None, fault, clipped=clipped)
    levels = fit_grey_levels(histogram, max(low, SCALES[0]), min(high, SCALES[1]))
    scale, error, fault = levels.scale, levels.standard_error, ""
    if levels.confidence < LEAST_CONFIDENCE:
        # Plain counts leave no gaps either; their noise alone can tell.
        scale, error = 1.0, 0.0
        fault = "" if abs(noise - 1) <= 2 * PLAIN else _NO_SCALE
    elif _filled_gap(histogram, scale, 3 * error):
        fault = _NO_COUNTS
    elif levels.agreement < LEAST_AGREEMENT or (levels.blur > LARGEST_BLUR and abs(scale - 1) > 0.06):
        # (Greys that nearly coincide with counts leave the blur open.)
        fault = _NO_COUNTS
    counts, ambiguous = _counts(grey, scale, histogram)
    cut = _cut(histogram, scale)
    counts[counts <= cut] = 0  # those that a JPEG spreads
    found = examine(counts, cut=cut, recovered=True)
    if found.unknown:
        fault = fault or "too few of its counts are beyond the cut ones to tell their noise"
    elif scale == 1 and error == 0 and not abs(found.dispersion - 1) + found.error <= 0.16:
        fault = fault or _NO_SCALE
    elif found.fault or (scale <= 0.98 and found.dispersion + 2 * found.error < LEAST_DRAWN):
        fault = fault or found.fault or f"the noise variance is {found.dispersion:.2g} times its mean"
    return Recovery(
        counts=None if fault else counts,
        fault=fault,
        scale=scale,
        standard_error=error,
        confidence=levels.confidence,
        dispersion=found.dispersion,
        clipped=clipped,
        cut=cut,
        ambiguous=ambiguous,
    )


def _noise_of_bright(grey: Array) -> float:
    """Noise variance over mean of the brighter half of the body, which a cut does not reach.

    NaN where nothing is bright.
    """
    squares, means, levels = block_contrasts(grey.astype(np.float32))
    body = (levels >= FIRST) & (levels < beside_blanks(blank_pixels(grey)))
    bright = body & (levels > np.median(levels[body])) if body.any() else body
    weight = 1 / (levels[bright] + 1)
    return float((weight * squares[bright]).sum() / max(1e-9, (weight * means[bright]).sum()))


def _counts(grey: Array, scale: float, histogram: Array) -> tuple[Array, float]:
    """The count of each grey, and the share of the pixels not 0 whose grey stands for two.

    One of the two is drawn, as often as the neighbouring greys suggest: taking always the same one
    would shift the counts and squeeze their noise. The draw follows from the picture.
    """
    counts = np.rint(np.arange(256) / scale).astype(np.int32)[grey]
    greys, first, number = np.unique(greys_of_counts(scale), return_index=True, return_counts=True)
    shared = np.zeros(256, dtype=bool)
    shared[greys[number > 1]] = True
    if not shared.any():
        return counts, 0.0
    seed = hashlib.sha256(grey.tobytes()).digest()
    rng = np.random.default_rng(int.from_bytes(seed[:8], "big"))
    lower, higher = np.zeros(256, dtype=np.int32), np.full(256, 0.5)
    lower[greys] = first
    # Between the greys on either side lie three counts: the cube root is the step from one to the
    # next.
    below, above = histogram[:-2] + 1.0, histogram[2:] + 1.0
    step = np.clip(np.cbrt(above / below), 0.2, 2.0)
    higher[1:-1] = step / (1 + step)
    doubtful = shared[grey]
    which = grey[doubtful]
    counts[doubtful] = lower[which] + (rng.random(which.size) < higher[which])
    return counts, float(doubtful.sum() / max(1, (grey > 0).sum()))


def _filled_gap(histogram: Array, scale: float, uncertain: float) -> bool:
    """True if a grey of no count has more than half the pixels of the counts beside it.

    Args:
        histogram: Number of pixels of each grey, (256,).
        scale: Grey levels a count.
        uncertain: Deviation of the scale by which a gap must stay one.
    """
    of_counts = greys_of_counts(scale)
    gaps = np.ones(256, dtype=bool)
    for other in (scale - uncertain, scale, scale + uncertain):
        gaps[greys_of_counts(other)] = False
    greys = np.flatnonzero(gaps)
    greys = greys[(greys > of_counts[1]) & (greys < of_counts[-1])]
    above = np.searchsorted(of_counts, greys)
    sides = (histogram[of_counts[above - 1]] + histogram[of_counts[above]]) / 2
    return bool((histogram[greys] > sides / 2 + STANDARD_ERRORS * np.sqrt(sides + 1)).any())


def _cut(histogram: Array, scale: float) -> int:
    """The highest count that was cut to 0: the highest that is rarer than Poisson counts can be.

    Of a mixture of Poisson counts n h(n)^2 <= (n + 1) h(n - 1) h(n + 1) (see `rbs.scans.noise`),
    so that h(n) is at least h(n + 1)^2 (n + 1) / ((n + 2) h(n + 2)). A JPEG spreads zeros and
    fills some of the cut counts again in part.
    """
    number_of_grey = (histogram + 0.5) / np.maximum(1, np.bincount(greys_of_counts(scale), minlength=256))
    n = np.arange(_MOST_CUT + 3)
    # The scale may not tell to which side half a grey was rounded. (Greys 1 and 2 are those that a
    # JPEG makes of zeros, too.)
    either = np.where(scale * n > 2.5, 0.02, 0)
    number = np.max([number_of_grey[np.rint(scale * n + e).astype(int)] for e in (-either, either)], axis=0)
    n = n[1:-2]
    least = number[n + 1] ** 2 * (n + 1) / ((n + 2) * number[n + 2])
    # All below it were cut as well, but for what a JPEG spreads.
    most = np.maximum.accumulate(np.where(np.rint(scale * n) > 2, number[n], 0))
    cut = n[(number[n] < _RARE * least) & (least > 20) & (most < _RARE * number[n + 1])]
    return int(cut.max(initial=0))

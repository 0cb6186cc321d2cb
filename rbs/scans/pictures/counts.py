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
from rbs.scans.counts import dispersion_index
from rbs.scans.pictures.grey_levels import FIRST, LAST, SCALES, fit_grey_levels, greys_of_counts
from rbs.scans.scan import Array
from rbs.utils.files import require_regular

SUFFIXES = (".png", ".jpg", ".jpeg")
"""Pictures that are read."""

DISPERSION = (0.86, 1.18)
"""Noise variance over mean of recovered counts: 1, a little more after JPEG or where low counts
were cut. Narrower than the range of `rbs.scans.dicom.reader.read_nm`, which reads the result."""

LEAST_DRAWN = 0.98
"""Likewise at least, where some greys stand for two counts: drawing one of them only adds noise."""

LARGEST_BLUR = 0.45
"""Spread of greys about those of counts: with more the JPEG is below 99, the counts are lost."""

LEAST_CONFIDENCE = 10.0
"""log10 of the odds against any other scale that the noise allows."""

LEAST_AGREEMENT = 0.3
"""Agreement in each range of grey, see `rbs.scans.pictures.grey_levels.GreyLevels`."""

MOST_UNEVEN = 0.1
"""Relative difference between the dispersion at one count level and at all, beyond four standard
errors."""

MOST_TAKEN = 0.45
"""Counts a pixel by which its noise may exceed its mean where there are few: JPEG adds 0.1 or
so."""

MOST_CORRELATED = 1.25
"""Dispersion of 2x2 sums over that of pixels; interpolation spreads noise and raises it."""

PLAIN = 0.08
"""Deviation from 1 of the dispersion of plain counts, whose histogram has no gaps."""

MOST_CLIPPED = 5e-3
"""Share of white pixels, whose counts are lost."""

LEAST_PIXELS = 1000
"""Pixels of grey `FIRST` or more without which the scale cannot be seen."""

_LEVELS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Mean counts at which the noise is looked at separately."""

_ENOUGH_BLOCKS = 1000
"""Blocks whose dispersion is known to 5 %."""

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
        cut: Number of the lowest counts (1, 2, ...) that are missing: they were cut to 0 and stay
            lost.
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
    noise = dispersion_index(grey)
    # Cut counts add noise, and the true scale has to be among those that compete all the same.
    low, high = noise / 2, noise / 0.8
    if not (high > SCALES[0] and low < SCALES[1]):  # also where there is too little to tell
        times = f"{SCALES[0]:g} to {SCALES[1]:g}"
        fault = f"its noise ({noise:.2g} times its mean) is not that of counts times {times}"
        return Recovery(None, fault, clipped=clipped)
    levels = fit_grey_levels(histogram, max(low, SCALES[0]), min(high, SCALES[1]))
    scale, error, fault = levels.scale, levels.standard_error, ""
    if levels.confidence < LEAST_CONFIDENCE:
        # Plain counts leave no gaps either; their noise alone can tell.
        scale, error = 1.0, 0.0
        fault = "" if abs(noise - 1) <= PLAIN else _NO_SCALE
    elif levels.agreement < LEAST_AGREEMENT or (levels.blur > LARGEST_BLUR and abs(scale - 1) > 0.06):
        # (Greys that nearly coincide with counts leave the blur open.)
        fault = _NO_COUNTS
    counts, ambiguous = _counts(grey, scale, histogram)
    dispersion, cut = dispersion_index(counts), _cut(counts, levels.blur > 0)
    if not (DISPERSION[0] if scale > 0.98 else LEAST_DRAWN) <= dispersion <= DISPERSION[1]:
        fault = fault or f"the noise variance of its counts would be {dispersion:.2f} times their mean"
    elif odd := _odd_noise(counts, dispersion, cut, most=128 / scale):
        fault = fault or odd
    return Recovery(
        None if fault else counts, fault, scale, error, levels.confidence, dispersion, clipped, cut, ambiguous
    )


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


def _cut(counts: Array, blurred: bool) -> int:
    """Number of the lowest counts that are missing, up to two: fewer of them than of the next ones.

    A JPEG spreads zeros and so fills them again in part.
    """
    number = np.bincount(np.minimum(counts.ravel(), 9), minlength=10)
    cut = 0
    few = 0.85 if blurred else 0.5
    while cut < 2 and number[cut + 1] < few * number[cut + 2 : cut + 4].max():
        cut += 1
    return cut


def _odd_noise(counts: Array, dispersion: float, cut: int, most: float) -> str:
    """The fault of the noise, as a clause; empty where it is that of counts.

    The contrast and the mean around it are those of `dispersion_index`; here one index a level of
    the mean: a gamma curve or an offset bends it, as saturation does above `most` counts. And 2x2
    sums of independent pixels are as noisy as the pixels.
    """
    frame = counts.astype(np.float32)
    rows, columns = (n - n % 2 for n in frame.shape)
    sums = frame[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).sum(axis=(1, 3))
    correlated = dispersion_index(sums) / dispersion
    if correlated > MOST_CORRELATED:
        return f"neighbouring pixels share noise ({correlated:.2f} times in 2x2 sums): it was resampled"
    a, b, c, e = (frame[i : i - 3 or None, j : j - 3 or None] for i in (1, 2) for j in (1, 2))
    pairs = frame[:, :-1] + frame[:, 1:]
    outer = pairs[:, :-2] + pairs[:, 2:]
    block = a + b + c + e
    level = (outer[:-3] + outer[1:-2] + outer[2:-1] + outer[3:] - block) / 12
    # Below about four times the highest count that was cut there is no Poisson noise left.
    edges = [edge for edge in _LEVELS if 4 * cut <= edge < most] + [max(most, 4.0)]
    which = np.digitize(level, edges).ravel()
    blocks, variance, mean = (  # of each level
        np.bincount(which, weights, len(edges) + 1)[1:-1]
        for weights in (None, ((a - b - c + e) ** 2 / 4).ravel(), (block / 4).ravel())
    )
    few = np.array(edges[1:]) <= 4
    taken = (variance - mean)[few].sum() / max(1, blocks[few].sum())
    if cut == 0 and blocks[few].sum() >= _ENOUGH_BLOCKS and taken > MOST_TAKEN:
        # Counts from which k were taken vary as if they were k more.
        return f"its noise is that of {taken:.1f} more counts a pixel, as where a window took them off"
    said = blocks >= _ENOUGH_BLOCKS // 10
    index = variance[said] / mean[said]
    off = np.abs(np.log(np.maximum(index, 1e-3) * mean.sum() / max(1.0, variance.sum())))
    if (off > MOST_UNEVEN + 4 * np.sqrt(2.5 / blocks[said])).any():
        low, high = index[0], index[-1]
        return f"its noise is {low:.2f} times the mean at few counts, {high:.2f} times at many: it was mapped"
    return ""

"""Counts recovered from pictures: their number and exactness, and manipulated pictures that pass.

    python benchmarks/recover_counts.py --phantoms 40

Draws Poisson counts of phantom children, as they are and with three times the counts (as an adult's
scan), exports them as PNG and JPEG at random scales, whole or with the lowest counts cut or a
polygon blanked, and recovers them; so with crops of the chest, exported as public collections are:
masked, and with all greys below a threshold cut to 0. Then does the same with pictures that are no
scaled counts. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import io
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from tqdm import tqdm

from rbs.scans.pictures.counts import Recovery, recover
from rbs.synthetic.skeleton import make_child

Array = npt.NDArray[np.generic]
BINS = ((0.8, 1.0), (1.0, 1.3), (1.3, 2.0), (2.0, 3.0), (3.0, 4.0))
SIZES = (("child", 1.0), ("adult", 3.0))
CROPS = 4
SEED = 20_240


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phantoms", type=int, default=40)
    phantoms = parser.parse_args().phantoms
    honest: dict[tuple[str, ...], list[tuple[Recovery, Array, float]]] = defaultdict(list)
    passed: dict[str, list[Recovery]] = defaultdict(list)
    for number in tqdm(range(1, phantoms + 1), unit="phantom"):
        expectation = drawn(number)
        for key, picture, counts, scale in honest_pictures(
            expectation, np.random.default_rng([SEED, number, 1])
        ):
            honest[key].append((recover(picture), counts, scale))
        for name, picture in manipulated_pictures(expectation, np.random.default_rng([SEED, number, 2])):
            passed[name].append(recover(picture))
    for name, photo in photographs():
        passed[name].append(recover(photo))
    print(honest_table(honest))
    print(passed_table(passed))


def drawn(number: int) -> Array:
    """Expected counts of one view of a phantom child."""
    rng = np.random.default_rng([SEED, number])
    return (
        make_child(float(rng.uniform(0.5, 16)), "FM"[number % 2], rng).expectation[number % 2].astype(float)
    )


def honest_pictures(
    expectation: Array, rng: np.random.Generator
) -> Iterator[tuple[tuple[str, ...], Array, Array, float]]:
    """Scan, kind, format and scale of a picture; the picture, its counts and its exact scale."""
    for size, factor in SIZES:
        counts = rng.poisson(factor * expectation)
        for low, high in BINS:
            scale = float(rng.uniform(low, high))
            for kind, changed in variants(counts, rng):
                for form in ("PNG", "JPEG 100", "JPEG 95"):
                    if kind == "whole" or form != "JPEG 95":
                        key = size, kind, form, f"{low:g}-{high:g}"
                        yield key, exported(changed, scale, form), changed, scale
    for _ in range(CROPS):
        counts, scale, cut = chest(expectation, rng)
        kind = f"lowest {min(cut, 4)}{' or more' * (cut > 3)} cut"
        key = "chest crop", kind, "JPEG 100", "0.85-3"
        yield key, exported(counts, scale, "JPEG 100"), counts, scale


def manipulated_pictures(expectation: Array, rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
    """What was done to a picture, and the picture: whole bodies, and crops with cut counts."""
    for _, factor in SIZES:
        counts = rng.poisson(factor * expectation)
        yield from manipulated(counts, float(rng.uniform(1.0, 3.0)), rng)
    for _ in range(CROPS):
        counts, scale, _ = chest(expectation, rng)
        for name, picture in manipulated(counts, scale, rng):
            yield f"chest crop, {name}", picture


def variants(counts: Array, rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
    """Whole, cut and cropped counts."""
    yield "whole", counts
    yield "lowest 1 cut", np.where(counts <= 1, 0, counts)
    yield "lowest 2 cut", np.where(counts <= 2, 0, counts)
    mask = Image.new("1", counts.shape[::-1], 1)
    row, column = rng.integers(0, 800), rng.integers(0, 150)
    corners = [(column, row), (column + 100, row + 20), (column + 80, row + 200), (column - 10, row + 120)]
    ImageDraw.Draw(mask).polygon([(int(x), int(y)) for x, y in corners], fill=0)
    yield "polygon blanked", counts * np.asarray(mask)


def chest(expectation: Array, rng: np.random.Generator) -> tuple[Array, float, int]:
    """A masked crop of one side of the chest, the scale of its export and the highest cut count."""
    body = expectation > 0.05 * np.percentile(expectation, 99)
    rows = np.flatnonzero(body.any(axis=1))
    height, width = int(rng.integers(140, 200)), int(rng.integers(50, 80))
    top = int(rows[0] + rng.uniform(0.17, 0.22) * np.ptp(rows))
    columns = np.flatnonzero(body[top : top + height].any(axis=0))
    left = int(columns.mean()) - width
    region = expectation[top : top + height, left : left + width]
    counts = rng.poisson(region * rng.uniform(5, 12) / region.mean())
    mask = Image.new("1", counts.shape[::-1], 1)
    slope, height = int(rng.integers(20, 60)), len(counts)
    corners = [(0, 0), (width, 0), (width, 4), (0, slope)]
    ImageDraw.Draw(mask).polygon(corners, fill=0)
    jagged = [(width - int(rng.integers(2, 9)), row) for row in range(0, height + 6, 6)]
    ImageDraw.Draw(mask).polygon([(width, 0), *jagged, (width, height)], fill=0)
    scale = float(rng.uniform(0.85, 3))
    cut = int((np.rint(scale * np.arange(20)) < rng.integers(3, 8)).sum()) - 1
    return np.where(counts <= cut, 0, counts) * np.asarray(mask), scale, cut


def exported(counts: Array, scale: float, form: str) -> Array:
    """The picture of scaled counts, as read back."""
    return stored(np.clip(np.rint(scale * counts), 0, 255).astype(np.uint8), form)


def stored(grey: Array, form: str) -> Array:
    """A picture after it was written and read."""
    if form == "PNG":
        return grey
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=int(form.split()[1]))
    return np.asarray(Image.open(file))


def manipulated(counts: Array, scale: float, rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
    """Pictures that are no scaled counts any more."""
    grey = exported(counts, scale, "PNG")
    form = str(rng.choice(["PNG", "JPEG 100"]))

    def greys(values: Array) -> Array:
        return stored(np.clip(np.rint(values), 0, 255).astype(np.uint8), form)

    def sized(factor: float, how: Image.Resampling) -> Array:
        size = round(grey.shape[1] * factor), round(grey.shape[0] * factor)
        return stored(np.asarray(Image.fromarray(grey).resize(size, how)), form)

    yield "saturated (3 % of the body white)", greys(counts * 255 / np.percentile(counts[counts > 0], 97))
    yield "window from 1 count", greys(scale * (counts - 1.0))
    yield "window from 2 counts", greys(scale * (counts - 2.0))
    yield "window from 1.3 counts", greys(scale * (counts - 1.3))
    yield "grey + 10", greys(grey + 10.0)
    for gamma in (0.8, 0.9, 1.1, 1.2):
        yield f"gamma {gamma}", greys(255 * (grey / 255) ** gamma)
        yield f"gamma {gamma} of the counts", greys(scale * 20 * (counts / 20) ** gamma)
    yield "square root", greys(20 * np.sqrt(counts))
    for factor in (0.9, 1.1, 2.0):
        yield f"bicubic x {factor}", sized(factor, Image.Resampling.BICUBIC)
        yield f"bilinear x {factor}", sized(factor, Image.Resampling.BILINEAR)
    yield "nearest x 1.1", sized(1.1, Image.Resampling.NEAREST)
    yield "halved", sized(0.5, Image.Resampling.BOX)
    for angle in (1, 3):
        turned = Image.fromarray(grey).rotate(angle, Image.Resampling.BICUBIC)
        yield f"bicubic, turned by {angle} degrees", stored(np.asarray(turned), form)
    smooth = (grey[:-1].astype(float) + grey[1:]) / 2
    yield "mean of two rows", greys(smooth)
    yield "JPEG 90", stored(grey, "JPEG 90")


def photographs() -> Iterator[tuple[str, Array]]:
    """Grey pictures that scikit-image brings along."""
    from skimage import color, data

    load: Callable[[], Array]
    for load in (
        data.camera,
        data.coins,
        data.moon,
        data.page,
        data.text,
        data.brick,
        data.grass,
        data.gravel,
    ):
        yield "photographs", load()
    for load in (data.astronaut, data.coffee, data.chelsea, data.rocket):
        yield "photographs", (255 * color.rgb2gray(load())).astype(np.uint8)


def honest_table(results: dict[tuple[str, ...], list[tuple[Recovery, Array, float]]]) -> str:
    """Acceptance and exactness of scaled counts."""
    lines = [
        "| scan | picture | format | scale | accepted | largest scale error, % | pixels exact, % (least) "
        "| total counts, % (worst) | dispersion | cut found | wrong |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key, found in results.items():
        good = [(r, truth, scale) for r, truth, scale in found if r.counts is not None]
        cells = [*key, f"{len(good)}/{len(found)}"]
        if good:
            error = [100 * abs(r.scale / scale - 1) for r, _, scale in good]
            exact = [100 * float((r.counts == truth).mean()) for r, truth, _ in good]
            total = [100 * (float(r.counts.sum()) / truth.sum() - 1) for r, truth, _ in good]
            noise = [r.dispersion for r, _, _ in good]
            cut = int(key[1].split()[1]) if "cut" in key[1] else 0
            cuts = (cut,) if cut < 4 else range(4, 11)
            cells += [
                f"{max(error):.2f}",
                f"{np.mean(exact):.2f} ({min(exact):.2f})",
                f"{np.mean(total):+.2f} ({max(total, key=abs):+.2f})",
                f"{min(noise):.2f}-{max(noise):.2f}",
                f"{sum(r.cut in cuts for r, _, _ in good)}",
                f"{sum(e > 2 for e in error)}",
            ]
        else:
            cells += [""] * 6
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def passed_table(results: dict[str, list[Recovery]]) -> str:
    """Number of manipulated pictures that were taken for counts."""
    lines = ["| manipulated | accepted | scales found for these |", "|---|---|---|"]
    for name, found in sorted(results.items()):
        scales = ", ".join(f"{r.scale:.3f}" for r in found if r.counts is not None)
        lines.append(f"| {name} | {sum(r.counts is not None for r in found)}/{len(found)} | {scales} |")
    total = [r for found in results.values() for r in found]
    lines.append(f"| all | {sum(r.counts is not None for r in total)}/{len(total)} | |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

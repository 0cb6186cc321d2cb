"""Pictures of an evaluation: an overview of each representative case, and all methods."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rbs.report import figures
from rbs.report.tables import Evaluation, reading
from rbs.scans.scan import Array
from rbs.utils.files import read_npz
from rbs.utils.words import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHORT = {
    "rapid": "rapid",
    "gaussian": "Gaussian",
    "tv": "total variation",
    "wavelet": "wavelets",
    "nlm": "non-local means",
    "bm3d": "BM3D",
    "stage1": "stage 1",
    "stage2_f1": "stage 2",
    "stage2_f2": "stage 2, second",
    "standard": "standard scan",
    "truth": "truth",
    "degraded": "degraded",
    "median": "median",
    "gamma": "gamma",
    "exposure": "exposure",
    "clahe": "CLAHE",
    "unsharp": "unsharp mask",
    "lucy": "Richardson-Lucy",
    "clean": "clean frame",
}
"""Labels above pictures; a method that is not here is shown by its name."""

GROWN_UP_Y = 18
"""From this age on the growth plates at the knees are closed, years."""


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        name: Name of its file, without a suffix.
        title: Heading.
        caption: Text below it.
        figure: The figure.
        photographs: Whether it shows photographs, which are stored as JPEG.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    photographs: bool = False

    @cached_property
    def source(self) -> str:
        """The figure as a data URI."""
        kind, data = ("jpeg", figures.jpeg) if self.photographs else ("png", figures.png)
        return f"data:image/{kind};base64,{base64.b64encode(data(self.figure)).decode('ascii')}"


@dataclass(frozen=True)
class CasePictures:
    """Pictures of one case: its heading, the overview, and all methods beside each other."""

    heading: str
    overview: Picture
    methods: list[Picture]


def case_pictures(evaluation: Evaluation) -> list[CasePictures]:
    """Pictures of the cases that the evaluation kept, the middle one first.

    Raises:
        RbsError: The pictures are missing or damaged.
    """
    file = evaluation.folder / "pictures.npz"
    make = _frame_case if evaluation.of_frames else _scan_case
    with reading(file, "the pictures are missing or damaged", "run `rbs evaluate` again"):
        arrays = read_npz(file)
        cases = [make(evaluation, arrays, shown) for shown in evaluation.settings["pictures"]]
    middle = len(cases) // 2
    return [*cases[middle : middle + 1], *cases[:middle], *cases[middle + 1 :]]


def choice(evaluation: Evaluation) -> str:
    """Sentence that says how the cases shown were chosen; "" where all are shown."""
    shown, scans = evaluation.settings["pictures"], evaluation.settings["scans"]
    if len(shown) == scans:
        return ""
    if evaluation.of_frames:
        chosen = f"the first, the middle and the last of {counted(scans, 'frame')}"
    elif len({case["patient"] for case in shown}) == len(shown) and all(case.get("age_y") for case in shown):
        chosen = f"the middle one by age, the youngest and the oldest of {counted(scans, 'scan')}"
    else:
        chosen = f"{len(shown)} of {counted(scans, 'scan')}"
    return f"Shown are {chosen}, chosen before anything was restored."


def file_name(*words: str) -> str:
    """A file name of words, in small letters, digits and hyphens."""
    return "-".join(re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words)


def _restored(evaluation: Evaluation) -> str:
    """Name of the method that overviews show: the restorer that ships, or else the last peer."""
    peers = evaluation.settings["peers"]
    trained = [name for name in evaluation.labels if name not in peers]
    return "stage2_f1" if "stage2_f1" in trained else (*trained, *reversed(peers))[0]


def _scan_case(evaluation: Evaluation, arrays: Mapping[str, Array], shown: dict[str, Any]) -> CasePictures:
    prefix, folder, patient = f"{shown['case']}/", evaluation.folder.name, str(shown["patient"])
    peak, (row, column) = float(arrays[prefix + "peak"]), arrays[prefix + "spacing_mm"]
    spacing, views = (float(row), float(column)), shown["views"]
    panels = {
        name: arrays[prefix + name].astype(np.float32)
        for name in (*evaluation.labels, "standard", "truth")
        if prefix + name in arrays
    }
    age = shown.get("age_y")
    heading = f"Patient {patient}" + ("" if age is None else f", {age:.1f} years")
    plates = age is not None and age < GROWN_UP_Y

    def labelled(make: Callable[..., Figure], *args: Any, without: str = "") -> Figure:
        return make({SHORT.get(n, n): x for n, x in panels.items() if n != without}, *args)

    methods = [
        Picture(
            file_name(folder, patient, "whole scan"),
            "Whole scan",
            f"Inverse grey, the same window for all: white 0, black {peak:.1f} counts per pixel (P) and more."
            + _posterior(views),
            labelled(figures.views_figure, views, peak, spacing),
        ),
        Picture(
            file_name(folder, patient, "knees"),
            "Knees",
            f"{'The growth plates, enlarged' if plates else 'Enlarged'}; {views[0]} view, same window.",
            labelled(figures.knees_figure, peak, spacing),
        ),
    ]
    if "truth" in panels:
        limit = figures.DIFFERENCE_SHARE * peak
        methods.append(
            Picture(
                file_name(folder, patient, "difference to the truth"),
                "Difference to the truth",
                f"Estimate minus expected: red too many, blue too few, full colour at {limit:.1f} counts.",
                labelled(figures.difference_figure, panels["truth"], views, peak, spacing, without="truth"),
            )
        )
    overview = _scan_overview(evaluation, panels, shown, peak, spacing, plates=plates)
    return CasePictures(heading, overview, methods)


def _scan_overview(
    evaluation: Evaluation,
    panels: Mapping[str, Array],
    shown: dict[str, Any],
    peak: float,
    spacing_mm: tuple[float, float],
    *,
    plates: bool,
) -> Picture:
    """Rapid, restored and standard scan, truth and difference: the body, the knees and a focus."""
    restored, views, exposures = _restored(evaluation), shown["views"], evaluation.settings["exposures"]
    counts = f", {100 * exposures[0]:g} % of the counts" if len(exposures) == 1 else ""
    titles = {"rapid": f"rapid scan{counts}", "standard": "standard scan", "truth": "truth"}
    titles.setdefault(restored, f"restored: {evaluation.labels[restored]}")
    order = ("rapid", restored, "standard", "truth")
    columns = {titles[name]: panels[name] for name in order if name in panels}
    compared = "truth" if "truth" in panels else "standard"
    details = [figures.knees(columns)]
    caption = f"{'Growth plates at the knees' if plates else 'Knees'}, enlarged"
    focus = _focus(shown)
    if focus and "truth" in panels:
        place = (focus["row"], focus["column"])
        details.append(figures.around("focus", place, panels["truth"], spacing_mm))
        kind = focus.get("kind") or ("hot" if focus["contrast"] > 1 else "cold")
        caption += (
            f"; and, in the middle of the last row, a focus ({kind}, {focus['fwhm_mm']:.0f} mm, "
            f"{focus['region']}, {views[details[-1].view]} view)"
        )
    # The standard scan's own noise would saturate a narrow window.
    saturation, noise = (figures.DIFFERENCE_SHARE, "") if compared == "truth" else (0.5, ", noise included")
    return Picture(
        file_name(evaluation.folder.name, str(shown["patient"]), "overview"),
        "",
        f"{' and '.join(views)} view. ".capitalize()
        + f"{caption}. Inverse grey, one window per row: white is 0 counts per pixel, black as named "
        f"at its left.{_posterior(views)} Last column: restored minus {titles[compared]}{noise}; red "
        f"too many counts, blue too few, full colour at {100 * saturation:g} % of black.",
        figures.overview_figure(
            columns,
            details,
            peak,
            spacing_mm,
            views,
            minus=(titles[restored], titles[compared]),
            saturation=saturation,
        ),
    )


def _posterior(views: list[str]) -> str:
    return " The posterior view is shown as the camera saw it." if "posterior" in views else ""


def _focus(shown: dict[str, Any]) -> dict[str, Any] | None:
    """The hot focus of middle contrast; None where no focus is known."""
    foci = [focus for focus in shown.get("foci", []) if focus["contrast"] > 1]
    return sorted(foci, key=lambda focus: focus["contrast"])[len(foci) // 2] if foci else None


def _frame_case(evaluation: Evaluation, arrays: Mapping[str, Array], shown: dict[str, Any]) -> CasePictures:
    prefix = f"{shown['case']}/"
    frames = {
        name: arrays[prefix + name] / np.float32(255)
        for name in (*evaluation.labels, "clean")
        if prefix + name in arrays
    }
    clean, valid = frames["clean"], arrays[prefix + "valid"]
    lesion = arrays.get(prefix + "lesion", np.zeros_like(valid))
    marked = bool(lesion.any())
    places = np.argwhere(lesion if marked else valid if valid.any() else ~valid)
    row, column = (int(middle) for middle in places.mean(axis=0))
    words = (evaluation.folder.name, str(shown["frame"]))
    panels = {SHORT.get(name, name): frame for name, frame in frames.items()}
    errors = {label: frame for label, frame in panels.items() if label != SHORT["clean"]}
    restored = _restored(evaluation)
    raw = next(iter(evaluation.labels))
    titles = {raw: "degraded frame", "clean": SHORT["clean"]}
    titles.setdefault(restored, f"restored: {evaluation.labels[restored]}")
    detail = f"Detail about the middle of the {'marked lesion' if marked else 'valid area'}"
    error = (
        "mean absolute difference of the three colours to the clean frame, black none, full colour "
        f"{figures.FRAME_ERROR:g} of the range and more"
    )
    overview = Picture(
        file_name(*words, "overview"),
        "",
        f"Below: {detail[0].lower()}{detail[1:]}. Last column: {error}.",
        figures.frame_overview_figure(
            {titles[name]: frames[name] for name in (raw, restored, "clean")},
            titles[restored],
            clean,
            valid,
            (row, column),
        ),
        photographs=True,
    )
    methods = [
        Picture(
            file_name(*words, "frame"),
            "Whole frame",
            "As restored, in sRGB; what is not valid is that of the clean frame everywhere.",
            figures.frames_figure(panels),
            photographs=True,
        ),
        Picture(
            file_name(*words, "detail"),
            "Detail",
            f"{detail}.",
            figures.zoomed_frames_figure(panels, (row, column)),
            photographs=True,
        ),
        Picture(
            file_name(*words, "error"),
            "Error",
            f"{error[0].upper()}{error[1:]}.",
            figures.frame_errors_figure(errors, clean, valid),
        ),
    ]
    done = f": {shown['degradation']}" if shown["degradation"] else ""
    return CasePictures(f"Frame {shown['frame']} of {shown['patient']}{done}", overview, methods)

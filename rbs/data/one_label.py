"""Scans that get their labels from one labelled scan, the atlas, by registration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from rbs.data.labelled_scans import LabelledScansDataModule
from rbs.data.loading import LoadedCase
from rbs.data.manifest import Case
from rbs.errors import ManifestError, RbsError
from rbs.scans.scan import STANDARD_VELOCITY, View
from rbs.segmentation.atlas import body_of, carry_labels, places_of, register

_AT_ONCE = 16  # scans that are registered together


class OneLabelDataModule(LabelledScansDataModule):
    """The atlas and training scans whose own labels and truth, if any, are not looked at.

    Args:
        manifest: The CSV that lists the cases; those of the split "val" are validated with their
            own labels, where there are such cases.
        atlas: Patient whose scan is the atlas; None for the first training patient whose scan has
            labels.
        standard_velocity: Bed velocity of a standard scan, cm/min, by which exposures are stated.
        options: Further arguments of `LabelledScansDataModule`; `children` counts the scans
            without labels, one or more.

    Raises:
        RbsError: An argument is out of range.
    """

    def __init__(
        self,
        manifest: str = "data/phantoms/manifest.csv",
        *,
        atlas: str | None = None,
        standard_velocity: float = STANDARD_VELOCITY,
        **options: Any,
    ) -> None:
        super().__init__(manifest, **options)
        if self.children == 0:
            fault = "labels of the atlas are carried to 0 scans without labels"
            raise RbsError(fault, remedy="set children to 1 or more, or leave it out for all of them")
        self.atlas, self.standard_velocity = atlas, standard_velocity

    def cases(self, split: str) -> list[Case]:
        """The cases of a split, the first of "train" the atlas.

        Raises:
            ManifestError: There is no atlas, or no scan besides.
        """
        cases = self._listed.split(split)
        if split != "train":
            return cases
        named = [c for c in cases if (c.patient == self.atlas if self.atlas else c.labels or c.truth)]
        if not named:
            sought = f"is patient {self.atlas}" if self.atlas else "has labels"
            fault = f"no training scan {sought}"
            raise ManifestError(fault, file=self.manifest, remedy="name the patient of the atlas")
        others = [case for case in cases if case.patient != named[0].patient][: self.children]
        if not others:
            fault = "it lists no training scan besides the atlas"
            raise ManifestError(fault, file=self.manifest, remedy="add scans without labels")
        return [named[0], *others]

    def _relative(self, cases: Sequence[Case]) -> list[float]:
        standard = self.standard_velocity
        return [standard / (case.standard_velocity or standard) for case in cases]

    def _read(self, split: str) -> list[LoadedCase]:
        if split != "train":
            return super()._read(split) if self.cases(split) else []
        atlas, *scans = (replace(scan, rapid=None, expectation=None) for scan in super()._read(split))
        if atlas.labels is None:
            fault = f"patient {self.cases(split)[0].patient} has neither a truth nor a label file"
            raise ManifestError(fault, file=self.manifest, remedy="label the scan of the atlas")
        return [atlas, *carried(atlas, scans)]


def carried(atlas: LoadedCase, scans: Sequence[LoadedCase]) -> list[LoadedCase]:
    """Scans with the labels of the atlas.

    Args:
        atlas: The labelled scan.
        scans: Scans of its views, or of one of them; labels they may have are not looked at.

    Raises:
        ScanError: A scan holds next to nothing.
    """
    found: dict[int, LoadedCase] = {}
    with tqdm(total=len(scans), desc="registering the atlas", unit="scan", leave=False) as bar:
        for views in dict.fromkeys(scan.views for scan in scans):
            shown = _seen(atlas, views)
            frame = body_of(shown.standard, shown.spacing_mm)
            numbers = [number for number, scan in enumerate(scans) if scan.views == views]
            for start in range(0, len(numbers), _AT_ONCE):
                portion = numbers[start : start + _AT_ONCE]
                bodies = [body_of(scans[n].standard, scans[n].spacing_mm) for n in portion]
                for number, body, phi in zip(portion, bodies, register(frame, bodies), strict=True):
                    places = places_of(phi, frame, body, scans[number].standard.shape[1:])
                    assert shown.labels is not None
                    found[number] = replace(scans[number], labels=carry_labels(shown.labels, places))
                bar.update(len(portion))
    return [found[number] for number in range(len(scans))]


def _seen(atlas: LoadedCase, views: tuple[View, ...]) -> LoadedCase:
    """The atlas in the views of a scan.

    Raises:
        ManifestError: It lacks one of them.
    """
    if lacking := [view for view in views if view not in atlas.views]:
        fault = f"the atlas has no {lacking[0]} view, but a scan without labels has"
        raise ManifestError(fault, remedy="label a scan of the views of the others")
    kept = [atlas.views.index(view) for view in views]
    assert atlas.labels is not None
    return replace(atlas, standard=atlas.standard[kept], labels=atlas.labels[kept], views=views)

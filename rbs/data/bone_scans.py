"""Training samples and whole scans for restoring rapid bone scans.

What a network learns to restore is decided by the pair it is shown. If the simulated rapid scan R
is thinned out of its target S, squared error converges to R + (1 - p) E[lambda | R]: the noise of R
is kept. So no pair here shares a count: the target is the disjoint remainder S - R, an independent
scan, or the expectation itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rbs.data.augmentation.blanked import fill_blanked
from rbs.data.datamodule import CropDataModule
from rbs.data.datasets import GRID
from rbs.data.facts import FactsOf
from rbs.data.loading import LoadedCase, load_case
from rbs.data.manifest import Case, Manifest
from rbs.data.samples import Crops, Pairs, WholeScans, compact, divisible, source
from rbs.degradation.learned import LearnedDegrader, load_degrader
from rbs.degradation.noise_filter import WHITE, NoiseFilter
from rbs.errors import ManifestError, RbsError
from rbs.scans.resampling import resample_labels


class RBSDataModule(CropDataModule):
    """Rapid bone scans and their targets, from a manifest.

    Training batches hold random crops of both views, of B samples:

    ===================  ==================  ==================================================
    rapid                float32 (B,2,h,w)   raw counts of the rapid scan; with `scale` 2 each pixel
                                             the sum of 2 x 2 of those of all else
    exposure             float32 (B,)        exposure of `rapid` relative to the standard scan
    target               float32 (B,2,h,w)   counts at its own exposure, none shared with `rapid`
    target_exposure      float32 (B,)        exposure of `target` relative to the standard scan
    spacing_mm           float32 (B,2)       row and column spacing of `target`, mm
    facts                float32 (B,F)       what is known of the child (`rbs.scans.facts`); only
                                             with `facts`
    labels               int64 (B,2,h,w)     region labels; only if all training cases have
                                             truth or label files, and without `scenes`
    expectation          float32 (B,2,h,w)   expected counts of the standard scan; only if all
                                             training cases have a truth file, without `scenes`
    displacement         float32 (B,2,h,w)   from a pixel of `target` to the same tissue in
                                             `rapid`, pixels down, right; only where a case moved
    cut                  int64 (B,)          counts of `target` up to this number were set to 0;
                                             only if those of a training case were (`Scan.cut`).
                                             Those of `rapid` are drawn anew
    places               int64 (B,P,3)       row, column and presence (1, 0) of `foci` and of as
                                             many places without one; -1 in rows not used; only
                                             with `places`
    case                 int64 (B,)          row within the split
    crop                 int64 (B,4)         top, left, height, width; multiples of 16
    flip                 bool (B,2)          left-right and up-down flips, applied after cropping
    patient              list[str]           identifiers
    prior                SemanticPrior       of the crop, cut from that of its whole rapid scan;
                                             only after `attach_priors`
    ===================  ==================  ==================================================

    Validation and test batches are one whole scan each, not flipped, with as many channels V as it
    has views; truth and labels are there if the case has them.
    They use the acquired rapid and standard scan; where there is no rapid scan, half of the
    standard scan's counts (drawn once and for all) is the input and the other the target.

    No file is opened before `setup`. The scans a stage needs are then read once and kept in RAM in
    compact types (about 5 MB for two views of 256x1024 with truth), which worker processes share.

    Args:
        manifest: The CSV that lists the cases.
        pairs: "split" divides the standard scan's counts into a rapid scan of random exposure and a
            disjoint remainder as the target; "measured" takes the acquired rapid and standard
            scans, and finds how the patient moved from one to the other; "rapid" divides the
            acquired rapid scan's counts as "split" does the standard scan's, so that no standard
            scan takes part; "expectation" draws a fresh rapid scan from the known expectation,
            which is the target (phantoms only).
        realisations: Number of rapid scans simulated of each case; None simulates one afresh for
            every crop. Numbered ones exist as whole scans, of which a teacher can say its prior.
        exposures: Smallest and largest exposure of simulated rapid scans, relative to the scan they
            are drawn from; the exposure is uniform between.
        crop: Rows and columns of training crops, multiples of 16; of their targets with `scale` 2.
        scale: Rows and columns of a target per row and column of a rapid scan: 1, or 2, which sums
            the counts of a rapid scan of fine pixels over 2 x 2 of them, for restorers that
            enlarge. Rows and columns of scans that fill no pixel are left out.
        facts: Facts of the child that samples carry: "own", or those of the next child, as a
            placebo ("others"); None for none.
        single_view_probability: Share of two-view crops that show one of their views twice instead,
            so that the restorer also learns scans of one view.
        foci: Mean number of foci, most of them faint, that are put into a training crop
            (`rbs.data.augmentation.lesions`).
        scenes: Share of training crops that show scenes no phantom has
            (`rbs.data.augmentation.scene_mixing`), with pairs
            "expectation".
        textures: Share of training crops whose expectation gets texture
            (`rbs.data.augmentation.texture`), with pairs "expectation".
        activities: Smallest and largest factor on the expectation of a training crop, log-uniform
            between, with pairs "expectation": scans of more and of less activity.
        lesion_crops: Share of training crops placed so that they hold a random pixel of a hot spot
            or growth plate, where the patient has one (`rbs.data.augmentation.lesion_crops`); all
            training cases need labels.
        places: Rows of the batch entry `places`, half of them for foci, which
            `rbs.losses.observer.ObserverLoss` looks at; with `foci` and pairs "expectation".
        degrader: File of a degrader (`make train-degrader`), with pairs "expectation": training
            scans are laid on its pixels, rapid scans are drawn from their degraded expectation, and
            the target stays the good one. Each scan is degraded once, when the data are read.
            Validation scans stay as acquired. Not with `scale` 2.
        blanked: Whether parts of the training scans were painted black, which are then filled
            (`rbs.data.augmentation.blanked`), with pairs "split".
        options: Further arguments of `CropDataModule`: batch_size, samples_per_epoch, num_workers
            and seed.

    Raises:
        RbsError: An argument is out of range.
    """

    def __init__(
        self,
        manifest: str | Path = "data/phantoms/manifest.csv",
        *,
        pairs: Pairs = "split",
        realisations: int | None = None,
        exposures: tuple[float, float] = (0.25, 0.75),
        crop: tuple[int, int] = (256, 128),
        scale: int = 1,
        facts: FactsOf | None = None,
        single_view_probability: float = 0.25,
        foci: float = 0.0,
        scenes: float = 0.0,
        textures: float = 0.0,
        activities: tuple[float, float] = (1.0, 1.0),
        lesion_crops: float = 0.0,
        places: int = 0,
        degrader: str | Path | None = None,
        blanked: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            manifest, realisations=1 if pairs == "measured" else realisations, crop=crop, **options
        )
        if not 0 < exposures[0] <= exposures[1] < 1:
            raise RbsError(
                f"the exposures {tuple(exposures)} do not rise within 0 to 1", remedy="try 0.25 and 0.75"
            )
        if not 0 <= single_view_probability <= 1:
            raise RbsError(f"single_view_probability {single_view_probability} is not within 0 to 1")
        if foci < 0 or (foci and (pairs == "measured" or realisations is not None)):
            raise RbsError(
                f"{foci:g} foci a crop, pairs {pairs} and realisations {realisations} do not go together",
                remedy="put 0 or more foci into simulated pairs without numbered realisations",
            )
        for name, share in (("scenes", scenes), ("textures", textures)):
            # Numbered rapid scans are drawn whole, and show neither.
            if not 0 <= share <= 1 or (share and (pairs != "expectation" or realisations is not None)):
                raise RbsError(
                    f"a share of {share:g} {name}, pairs {pairs} and realisations {realisations} do not go"
                    " together",
                    remedy=f"make {name} 0 to 1 of the crops, of phantoms, with pairs: expectation and"
                    " realisations: null",
                )
        misplaced = tuple(activities) != (1.0, 1.0) and (pairs != "expectation" or realisations is not None)
        if not 0 < activities[0] <= activities[1] or misplaced:
            raise RbsError(
                f"activities {tuple(activities)}, pairs {pairs} and realisations {realisations} do not go"
                " together",
                remedy="give factors above 0 that rise, such as 0.5 and 4, of phantoms, with pairs:"
                " expectation and realisations: null",
            )
        if not 0 <= lesion_crops <= 1 or (lesion_crops and scenes):
            raise RbsError(
                f"lesion_crops {lesion_crops:g} and a share of {scenes:g} scenes do not go together",
                remedy="place 0 to 1 of the crops by labels, which do not fit what scenes show",
            )
        if places < 0 or places % 2 or (places and (not foci or pairs != "expectation")):
            raise RbsError(
                f"{places} places, {foci:g} foci a crop and pairs {pairs} do not go together",
                remedy="give an even number of places, with foci and pairs: expectation",
            )
        shown = foci or scenes or textures
        if degrader is not None and (pairs != "expectation" or shown):
            raise RbsError(
                f"a degrader, pairs {pairs}, {foci:g} foci and shares of {scenes:g} scenes and {textures:g}"
                " textures do not go together",
                remedy="set --data.pairs expectation, and foci, scenes and textures to 0: what they add to a"
                " crop would not be degraded",
            )
        if degrader is not None and scale != 1:
            raise RbsError(
                f"a degrader and scale {scale} do not go together",
                remedy="set --data.scale 1: a degrader has the pixels of the scans it was trained on",
            )
        if blanked and pairs != "split":
            raise RbsError(f"blanked areas are filled with pairs: split, not {pairs}")
        if scale not in (1, 2) or (scale > 1 and realisations is not None):
            raise RbsError(
                f"a scale of {scale} and realisations {realisations} do not go together",
                remedy="set scale to 1, or to 2 with realisations: null",
            )
        self.blanked, self.scale, self.facts = blanked, scale, facts
        self.degrader = None if degrader is None else Path(degrader)
        self.pairs: Pairs = pairs
        self.exposures = exposures
        self.single_view_probability, self.foci, self.scenes = single_view_probability, foci, scenes
        self.textures, self.activities = textures, (activities[0], activities[1])
        self.lesion_crops, self.places = lesion_crops, places

    def cases(self, split: str) -> list[Case]:
        """See `CropDataModule.cases`."""
        return self._listed.split(split)

    @cached_property
    def _listed(self) -> Manifest:
        return Manifest.read(self.manifest)

    def loaded(self, split: str, index: int) -> LoadedCase:
        """The whole arrays of one case, counts as float32, read now if the split was not set up.

        Raises:
            ManifestError: The case is not usable.
            ScanError: A scan cannot be read.
        """
        if split not in self._kept:
            return load_case(self.cases(split)[index])
        kept = self._kept[split][index]
        rapid = None if kept.rapid is None else kept.rapid.astype(np.float32)
        return replace(kept, rapid=rapid, standard=kept.standard.astype(np.float32))

    def training_ranges(self) -> dict[str, list[float]]:
        """Ranges of the training scans, which weights carry so that they are checked in use.

        Returns:
            Lowest and highest "spacing_mm" (mm), "counts_per_pixel" (mean of a raw rapid view) and
            "exposure" (exposure of rapid scans).
        """
        scans = self._surveyed()
        spacing = [value for scan in scans for value in scan.spacing_mm]
        if self.pairs == "measured":
            exposures = [scan.exposure for scan in scans if scan.exposure is not None]
            means = [float(view.mean()) for scan in scans if scan.rapid is not None for view in scan.rapid]
        else:
            sources = [source(scan, self.pairs) for scan in scans]
            exposures = [relative * exposure for relative in self.exposures for _, exposure in sources]
            counts = [float(view.mean()) for whole, _ in sources for view in whole]
            extremes = zip((min(counts), max(counts)), self.exposures, self.activities, strict=True)
            means = [count * exposure * activity for count, exposure, activity in extremes]
        # Of the scans that a restorer is given.
        spacing = [self.scale * mm for mm in spacing]
        means = [self.scale**2 * mean for mean in means]
        spans = {"spacing_mm": spacing, "counts_per_pixel": means, "exposure": exposures}
        return {name: [round(min(values), 4), round(max(values), 4)] for name, values in spans.items()}

    def _crops(self) -> Crops:
        return Crops(self.cases("train"), self._kept["train"], **self._options())

    def _options(self) -> dict[str, Any]:
        """Arguments of `Crops` for the training set."""
        names = (
            "pairs",
            "exposures",
            "single_view_probability",
            "foci",
            "scenes",
            "textures",
            "activities",
            "lesion_crops",
            "scale",
            "facts",
        )
        own = {name: getattr(self, name) for name in (*names, "places")}
        return super()._options() | own | {"noise": self.noise}

    @property
    def noise(self) -> NoiseFilter:
        """Filter of the noise of rapid scans that are drawn from an expectation."""
        return WHITE if self._degrading is None else self._degrading.noise

    @cached_property
    def _degrading(self) -> LearnedDegrader | None:
        return None if self.degrader is None else load_degrader(self.degrader)

    def _whole(self, split: str) -> WholeScans:
        cases, scans = self.cases(split), self._kept[split]
        return WholeScans(cases, scans, seed=self.seed, scale=self.scale, facts=self.facts)

    def _surveyed(self) -> list[LoadedCase]:
        """Training scans that stand for all."""
        return self._kept["train"]

    def _read(self, split: str) -> list[LoadedCase]:
        cases = self.cases(split)
        if not cases:
            raise ManifestError(
                f"no patient is in split '{split}'", file=self.manifest, remedy=f"give some the split {split}"
            )
        bar = tqdm(cases, desc=f"reading {split} scans", unit="case", leave=False)
        register = self._registered(split)
        scans = [_compact(load_case(case, register=register)) for case in bar]
        if split == "train" and self._degrading is not None:
            scans = self._degraded(scans, self._degrading)
        scans = [divisible(scan, self.scale) for scan in scans]
        return [self._unblanked(*numbered) for numbered in enumerate(scans)] if split == "train" else scans

    def _degraded(self, scans: Sequence[LoadedCase], degrader: LearnedDegrader) -> list[LoadedCase]:
        """Training scans on the pixels of a degrader, with the expectation of their rapid scans."""
        found = []
        for number, scan in enumerate(tqdm(scans, desc="degrading", unit="scan", leave=False)):
            if scan.expectation is None:
                found.append(scan)  # which `_check_training` refuses
                continue
            own, onto = scan.spacing_mm, degrader.spacing_mm
            expectation = degrader.on_grid(scan.expectation, own)
            rng = np.random.default_rng((self.seed, 8, number))
            changed = replace(
                scan,
                rapid=None,
                exposure=None,
                motion=None,
                standard=compact(rng.poisson(expectation)),
                labels=None if scan.labels is None else resample_labels(scan.labels, own, onto),
                expectation=expectation,
                spacing_mm=onto,
                expectation_rapid=degrader(expectation, rng),
            )
            found.append(changed)
        return found

    def _registered(self, split: str) -> bool:
        """True where the motion between the two scans must be known."""
        # Validation and test compare with the acquired standard scan whatever the training pairs
        # are.
        return self.pairs == "measured" or split != "train"

    def _unblanked(self, number: int, scan: LoadedCase) -> LoadedCase:
        """A training scan with its blanked areas filled, where there are such."""
        if not self.blanked:
            return scan
        rng = np.random.default_rng((self.seed, 4, number))
        return replace(scan, standard=fill_blanked(scan.standard, scan.cut, rng))

    def _check_training(self) -> None:
        cases, kept = self.cases("train"), self._kept["train"]
        scan, truth = ("rapid", "a rapid scan"), ("expectation", "a truth file")
        of_pairs = {"measured": scan, "rapid": scan, "expectation": truth}
        needed = {}
        if self.pairs in of_pairs:
            needed[f"pairs: {self.pairs}"] = *of_pairs[self.pairs], "use pairs: split"
        if self.lesion_crops:
            needed["lesion_crops"] = "labels", "a truth or label file", "set --data.lesion_crops 0"
        for setting, (attribute, name, remedy) in needed.items():
            both = zip(cases, kept, strict=True)
            without = [case.patient for case, scan in both if getattr(scan, attribute) is None]
            if without:
                raise ManifestError(
                    f"{setting} needs {name} of every training patient; {', '.join(without[:5])}"
                    f"{' and others' if len(without) > 5 else ''} has none",
                    file=self.manifest,
                    remedy=remedy,
                )
        if self.foci and self.pairs != "expectation" and any(scan.cut for scan in kept):
            patient = next(case.patient for case, scan in zip(cases, kept, strict=True) if scan.cut)
            fault = f"low counts of the scans of patient {patient} were cut, to which foci cannot be added"
            raise ManifestError(fault, file=self.manifest, remedy="set --data.foci 0")
        # All crops of a batch have one size, so the smallest scan bounds it.
        for axis, name in enumerate(("rows", "columns")):
            sizes = [scan.standard.shape[1 + axis] for scan in kept]
            size = min(sizes)
            smallest = sizes.index(size)
            if size < self.crop[axis]:
                raise ManifestError(
                    f"the scan of patient {cases[smallest].patient} has {size} {name}, fewer than the crop's"
                    f" {self.crop[axis]}",
                    file=cases[smallest].standard[0],
                    remedy=f"use crops of at most {size // GRID * GRID} {name} or leave the patient out",
                )


def _compact(case: LoadedCase) -> LoadedCase:
    """The same case, its counts `compact`."""
    rapid = None if case.rapid is None else compact(case.rapid)
    return replace(case, rapid=rapid, standard=compact(case.standard))

"""Fitting a restorer to the one scan it is about to restore, by that scan's own counts."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from rbs.data.datasets import GRID
from rbs.data.loading import LoadedCase
from rbs.data.manifest import Case
from rbs.data.samples import Crops
from rbs.degradation.thinning import split
from rbs.inference.fits import KeptFit
from rbs.losses import PoissonDeviance
from rbs.restorers.base import Restorer
from rbs.restorers.checkpoint import LoadedRestorer
from rbs.scans.counts import poisson_deviance, standard_scale
from rbs.scans.scan import Array, View

STEPS = 30
JUDGED = 15
"""Steps between two judgements."""
LEARNING_RATE = 3e-4
BATCH = 4
CROP = 96
FITTED = 0.9
"""Share of the scan's counts that the restorer is fitted to; the others judge the fit."""
SHARES = (0.4, 0.9)
"""Of the counts it is fitted to, those that the restorer is shown; the rest are its target."""
SINGLE_VIEW = 0.25
AVERAGING = 0.9
LARGEST_GRADIENT = 1.0
MIRRORS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
MARGIN = 2.0
"""Least rise of the log-likelihood of held-out counts, nats, with which a fit is used. Those counts
are drawn by chance, and a fit of no worth gains a little on them as often as it loses; as by
Akaike's criterion, what has more freedom must be likelier by more than that. Two nats are a ratio
of likelihoods of 7."""
FAINTEST = 1e-3
"""Standard counts added to an expectation that is judged: a count where none is expected is
unlikely, not impossible."""


@dataclass(frozen=True)
class Fit:
    """The best of a restorer and of what fitting it to a scan gave.

    Attributes:
        restorer: In evaluation mode; the one that was given where no fit was better.
        gain: Rise of the log-likelihood of counts that the fit has not seen; 0 where none is used.
        steps: Steps that were taken; 0 for a fit that was kept.
        sha256: Of the file, hexadecimal, in which it is kept for its camera; empty where it is not.
    """

    restorer: Restorer
    gain: float = 0.0
    steps: int = 0
    sha256: str = ""

    @property
    def brief(self) -> str:
        """Words for short fields: which fit was used, if any."""
        if self.sha256:
            return f"fit {self.sha256[:12]}"
        return "fitted" if self.gain else "not fitted"

    def __str__(self) -> str:
        if not self.gain:
            return "not fitted to the scan: its held-out counts became hardly likelier"
        how = f"to the scan in {self.steps} steps" if self.steps else "to its camera before"
        which = f", {self.brief}" if self.sha256 else ""
        return f"fitted {how}{which}, log-likelihood of held-out counts {self.gain:+.1f}"


@dataclass(frozen=True)
class AdaptingRestorer(LoadedRestorer):
    """A restorer that is fitted to each scan, and averages over its four mirror images.

    Attributes:
        fits: Folder in which fits are kept for other scans of the same camera; None for nowhere.
    """

    fits: Path | None = None

    @classmethod
    def of(cls, loaded: LoadedRestorer, fits: Path | None = None) -> AdaptingRestorer:
        """The same restorer, adapting."""
        values = {field.name: getattr(loaded, field.name) for field in fields(loaded)}
        adaptation = {"steps": STEPS, "learning_rate": LEARNING_RATE, "mirrors": len(MIRRORS)}
        values["provenance"] = loaded.provenance | {"adapted": adaptation}
        return cls(**values, fits=fits)

    def restore(self, rapid: Array, exposure: float) -> Array:
        """See `LoadedRestorer.restore`. The weights themselves stay as they are."""
        return self.fitted(rapid, exposure).restore(rapid, exposure)

    def fitted(self, rapid: Array, exposure: float, camera: str | None = None) -> FittedRestorer:
        """The restorer of one scan.

        Args:
            rapid: Raw counts, aligned (V, H, W).
            exposure: Exposure relative to the standard scan.
            camera: The camera that it was acquired by (`rbs.inference.fits.camera_of`). The first
                fit to one of its scans is kept, and used for the others where it is to their good.

        Raises:
            CheckpointError: The restorer restores frames, or the fit that was kept cannot be used.
            OutputError: The fit cannot be kept.
        """
        self._must_restore("scans")
        place = KeptFit(self.fits, camera, self) if self.fits and camera else None
        kept = place.read() if place else None
        fit = fit_to_scan(self.restorer, rapid, exposure, kept.restorer if kept else None)
        if place and kept is None and fit.gain:
            fit = replace(fit, sha256=place.write(fit.restorer))
        elif kept and fit.restorer is kept.restorer:
            fit = replace(fit, sha256=kept.sha256)
        name = f"{self.name}, {fit}"
        return FittedRestorer(fit.restorer, name, self.version, self.sha256, self.provenance, fit=fit)


@dataclass(frozen=True)
class FittedRestorer(LoadedRestorer):
    """A restorer fitted to one scan, which averages over its four mirror images.

    The mirror images are not judged: they give symmetric answers of the same weights, of which the
    mean is no worse than they are in the mean.

    Attributes:
        fit: What it came of. A scan that no fit made better is restored by the weights as they are.
    """

    fit: Fit | None = None

    def restore(self, rapid: Array, exposure: float) -> Array:
        """See `LoadedRestorer.restore`."""
        axes = MIRRORS if self.fit and self.fit.gain else MIRRORS[:1]
        restore = super().restore
        answers = [np.flip(restore(np.flip(rapid, axis), exposure), axis) for axis in axes]
        return np.asarray(sum(answers) / np.float32(len(answers)))


class Judge:
    """Held-out counts of a scan, which say how good a restoration of all its other counts is.

    Args:
        rapid: Raw counts, aligned (V, H, W).
        exposure: Exposure relative to the standard scan.
        restorer: The one that others are compared with.

    Attributes:
        seen: The counts that restorers may see and be fitted to.
        seen_exposure: Their exposure.
    """

    def __init__(self, rapid: Array, exposure: float, restorer: Restorer) -> None:
        shares = FITTED, 1 - FITTED
        self.seen, self._held_out = split(rapid, shares, np.random.default_rng(0))
        self.seen_exposure, self._exposure = (share * exposure for share in shares)
        self._before = self._likelihood(restorer)

    def gain(self, candidate: Restorer) -> float:
        """Rise of the log-likelihood of the held-out counts by another restorer."""
        return self._likelihood(candidate) - self._before

    def _likelihood(self, candidate: Restorer) -> float:
        """Log-likelihood of the held-out counts, less the largest that any image could give."""
        estimate = LoadedRestorer(candidate.eval(), "", "", "").restore(self.seen, self.seen_exposure)
        expected = self._exposure * (estimate.astype(np.float64) + FAINTEST)
        return -float(poisson_deviance(self._held_out, expected).sum()) / 2


def fit_to_scan(restorer: Restorer, rapid: Array, exposure: float, kept: Restorer | None = None) -> Fit:
    r"""Train a copy of a restorer for a moment on the scan it is to restore, if that helps.

    Binomial thinning splits the counts of a Poisson scan into two independent scans, so that one
    judges what is made of the other without knowledge of the truth:

    .. math::
        \min_f \; \operatorname{E}\, \ell\big(f(a / up),\; r - a\big), \qquad a \sim
        \mathrm{Binomial}(r, u)

    for counts r at exposure p, shares u between `SHARES` and the Poisson deviance at exposure (1 -
    u) p. What a restorer trained on phantoms does not know of patients it finds in this one: the
    principle of Noise2Noise (Lehtinen et al., ICML 2018) on one image, as in Noise2Fast and ZS-N2N
    (CVPR 2023), from trained weights instead of none. A few steps: many would learn the noise by
    heart.

    Counts that the fit never sees, a tenth of the scan, judge the restoration of the others. Every
    `JUDGED` steps their likelihood must have risen, or the fit ends. It is used as it was when they
    were likeliest, and not at all where they never became likelier by `MARGIN` than before it
    began. They judge the weights alone: the mirror images, which `FittedRestorer` averages over,
    are symmetric answers of the same weights.

    Args:
        restorer: It is left as it is.
        rapid: Raw counts, aligned (V, H, W).
        exposure: Exposure p relative to the standard scan.
        kept: A fit to another scan, which is used without a step where this scan's held-out counts
            are likelier by `MARGIN` under it.

    Returns:
        The best restorer. The crops and the thinning are the same each time.
    """
    if not rapid.any():
        return Fit(restorer)
    judge = Judge(rapid, exposure, restorer)
    if kept is not None and (gain := judge.gain(kept)) >= MARGIN:
        return Fit(kept, gain)
    fit, last = Fit(restorer), -np.inf
    own = copy.deepcopy(restorer).train().requires_grad_(True)
    averaged = AveragedModel(own, multi_avg_fn=get_ema_multi_avg_fn(AVERAGING))
    optimizer = torch.optim.Adam(own.parameters(), lr=LEARNING_RATE)
    loss = PoissonDeviance()
    device = next(own.parameters()).device
    batches = DataLoader(_crops(judge.seen, judge.seen_exposure), batch_size=BATCH)
    # The bar is for a terminal only, and gives way to that of a folder.
    for step, batch in enumerate(tqdm(batches, desc="adapting", unit="step", leave=False, disable=None), 1):
        given: dict[str, Tensor] = {name: batch[name].to(device) for name in _USED}
        x = standard_scale(given["rapid"], given["exposure"])
        optimizer.zero_grad()
        loss(own(x, given["exposure"]), given["target"], given["target_exposure"]).backward()
        torch.nn.utils.clip_grad_norm_(own.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        averaged.update_parameters(own)
        if step % JUDGED == 0 or step == len(batches):
            mean = cast("Restorer", averaged.module)
            gain = judge.gain(mean)
            if not gain > last:  # nor where it is not finite
                break
            last = gain
            if gain >= MARGIN:
                fit = Fit(copy.deepcopy(mean).eval().requires_grad_(False), gain, step)
    return fit


_USED = ("rapid", "exposure", "target", "target_exposure")


def _crops(rapid: Array, exposure: float) -> Crops:
    """Training samples thinned from one scan; a scan smaller than a crop is one."""
    counts = np.asarray(rapid)
    # Restorers know views as first and second only, whatever their names.
    views = (View.ANTERIOR, View.POSTERIOR)[: len(counts)]
    scan = LoadedCase(counts, counts, exposure, None, None, views, (1.0, 1.0))
    height, width = (min(CROP, side // GRID * GRID or side) for side in counts.shape[1:])
    return Crops(
        [Case("", "train", (), ())],
        [scan],
        pairs="rapid",
        realisations=None,
        exposures=SHARES,
        crop=(height, width),
        length=STEPS * BATCH,
        single_view_probability=SINGLE_VIEW,
        foci=0,
        scenes=0,
        seed=0,
    )

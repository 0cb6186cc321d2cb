"""Fitting a restorer to the one scan it is about to restore, by that scan's own counts."""

from __future__ import annotations

import copy
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from rbs.data.datasets import GRID
from rbs.data.manifest import Case, LoadedCase
from rbs.data.samples import Crops
from rbs.losses import PoissonDeviance
from rbs.restorers.base import Restorer
from rbs.restorers.checkpoint import LoadedRestorer
from rbs.scans.counts import standard_scale
from rbs.scans.scan import Array, View

STEPS = 80
LEARNING_RATE = 1e-4
BATCH = 4
CROP = 128
SHARES = (0.4, 0.9)
"""Of the scan's counts that the restorer is shown; it is judged by the rest."""
SINGLE_VIEW = 0.25
AVERAGING = 0.95
LARGEST_GRADIENT = 1.0
MIRRORS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))


class AdaptingRestorer(LoadedRestorer):
    """A restorer that is fitted to each scan, and averages over its four mirror images."""

    @classmethod
    def of(cls, loaded: LoadedRestorer) -> AdaptingRestorer:
        """The same restorer, adapting."""
        values = {field.name: getattr(loaded, field.name) for field in fields(loaded)}
        adaptation = {"steps": STEPS, "learning_rate": LEARNING_RATE, "mirrors": len(MIRRORS)}
        values["name"] = f"{loaded.name}, adapted to each scan"
        values["provenance"] = loaded.provenance | {"adapted": adaptation}
        return cls(**values)

    def restore(self, rapid: Array, exposure: float) -> Array:
        """See `LoadedRestorer.restore`. The weights themselves stay as they are."""
        self._must_restore("scans")
        own = adapted(self.restorer, rapid, exposure)
        plain = LoadedRestorer(own, self.name, self.version, self.sha256, self.provenance)
        answers = [np.flip(plain.restore(np.flip(rapid, axes), exposure), axes) for axes in MIRRORS]
        return np.asarray(sum(answers) / np.float32(len(answers)))


def adapted(restorer: Restorer, rapid: Array, exposure: float) -> Restorer:
    r"""A copy of a restorer, trained for a moment on the scan it is to restore.

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

    Args:
        restorer: It is left as it is.
        rapid: Raw counts, aligned (V, H, W).
        exposure: Exposure p relative to the standard scan.

    Returns:
        The copy, in evaluation mode, with averaged weights. The crops and the thinning are the same
        each time.
    """
    if not rapid.any():
        return restorer
    own = copy.deepcopy(restorer).train().requires_grad_(True)
    averaged = AveragedModel(own, multi_avg_fn=get_ema_multi_avg_fn(AVERAGING))
    optimizer = torch.optim.Adam(own.parameters(), lr=LEARNING_RATE)
    loss = PoissonDeviance()
    device = next(own.parameters()).device
    batches = DataLoader(_crops(rapid, exposure), batch_size=BATCH)
    # The bar is for a terminal only, and gives way to that of a folder.
    for batch in tqdm(batches, desc="adapting", unit="step", leave=False, disable=None):
        given: dict[str, Tensor] = {name: batch[name].to(device) for name in _USED}
        x = standard_scale(given["rapid"], given["exposure"])
        optimizer.zero_grad()
        loss(own(x, given["exposure"]), given["target"], given["target_exposure"]).backward()
        torch.nn.utils.clip_grad_norm_(own.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        averaged.update_parameters(own)
    own.load_state_dict(averaged.module.state_dict())
    return own.eval().requires_grad_(False)


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

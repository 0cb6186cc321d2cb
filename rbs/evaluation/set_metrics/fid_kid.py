"""FID and KID: distances between the pictures of a method and the reference pictures, as sets.

Both compare features of an Inception network trained on photographs: metrics of texture, as LPIPS
is, that reward noise like the standard scan's own. They judge a whole split, never a scan, and two
figures are comparable only with the same tiles, window, number of tiles and weights.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rbs.errors import CheckpointError
from rbs.evaluation.scans.metrics import Metric
from rbs.inference.devices import torch_device
from rbs.scans.scan import Array
from rbs.weights.external import find

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

FILES = ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth")
"""One file under two names: that of pytorch-fid and that of torch-fidelity."""
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILES[1]}"

TILE = 128
BATCH = 8
STANDARD = "standard"
"""Name of the features of the standard scans, the set that all others are compared with."""


@dataclass(frozen=True)
class Inception:
    """The feature extractor: torch-fidelity's Inception of 2015.

    Attributes:
        model: uint8 pictures (N, 3, H, W) to a tuple of features (N, 2048).
        sha256: Of its weights.
    """

    model: torch.nn.Module
    sha256: str = SHA256

    def features(self, pictures: Array) -> Array:
        """Features of pictures uint8 (N, 3, h, w), float32 (N, 2048)."""
        import torch

        device = next(self.model.parameters()).device
        batches = [torch.tensor(pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH)]
        with torch.inference_mode():
            found = [self.model(batch.to(device))[0].cpu() for batch in batches]
        return torch.cat(found).numpy() if found else np.empty((0, 2048), np.float32)


def frechet_distance(features: Array, reference: Array) -> float:
    """|μ1 - μ2|² + tr(Σ1 + Σ2 - 2 (Σ1 Σ2)^½) of two sets of features (N, D); NaN below two.

    Heusel et al., NeurIPS 2017, arXiv 1706.08500.
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    if min(len(features), len(reference)) < 2:
        return float("nan")
    sets = [features.astype(np.float64), reference.astype(np.float64)]
    if len(features) + len(reference) < features.shape[1]:
        # So few points span few directions: in axes along those nothing changes but the time.
        axes = np.linalg.qr(np.concatenate(sets).T)[0]
        sets = [points @ axes for points in sets]
    statistics = [{"mu": points.mean(axis=0), "sigma": np.cov(points, rowvar=False)} for points in sets]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def kernel_distance(features: Array, reference: Array) -> float:
    """Unbiased squared maximum mean discrepancy of (N, D) features, kernel (x·y/D + 1)³; or NaN.

    Bińkowski et al., ICLR 2018, arXiv 1801.01401: the mean over 100 subsets of 1000; where one set
    has no more, subsets of its size.
    """
    import torch
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    size = min(1000, len(features), len(reference))
    if size < 2:
        return float("nan")
    # Subsets as large as both sets are the sets themselves, the same a hundred times.
    whole = size == max(len(features), len(reference))
    sets = (torch.from_numpy(points.astype(np.float64)) for points in (features, reference))
    found = kid_features_to_metric(
        *sets, kid_subset_size=size, kid_subsets=1 if whole else 100, rng_seed=0, verbose=False
    )
    return float(found[KEY_METRIC_KID_MEAN])


_SET = "the standard scans of the same split (noisy), as a set"

SET_METRICS: tuple[Metric, ...] = (
    Metric(
        "fid",
        "FID",
        "",
        False,
        _SET,
        "Fréchet distance of two Gaussians fitted to the features; with fewer than thousands of tiles it "
        "comes out far too high: a second standard scan does not score zero either, as its row shows",
        frechet_distance,
        mask="tiles that hold body",
        peak="window [0, P]",
    ),
    Metric(
        "kid",
        "KID",
        "",
        False,
        _SET,
        "unbiased squared maximum mean discrepancy of the features, kernel (x·y/2048 + 1)³; zero for sets of "
        "one distribution, and below by chance or because both sets show the same patients",
        kernel_distance,
        mask="tiles that hold body",
        peak="window [0, P]",
    ),
)


def set_scores(features: Mapping[str, Array], reference: str = STANDARD) -> pd.DataFrame:
    """FID and KID of every set of features.

    Args:
        features: Name of the method or reference to the features (N, 2048) of all its images,
            `reference` among them; or nothing.
        reference: The set that all others are compared with.

    Returns:
        Columns method, metric, tiles, value.
    """
    rows = [
        (name, metric.name, len(points), metric.compute(points, features[reference]))
        for name, points in features.items()
        if name != reference
        for metric in SET_METRICS
    ]
    return pd.DataFrame(rows, columns=["method", "metric", "tiles", "value"])


def load_inception() -> Inception | None:
    """The feature extractor, or None, with a line in the log, where its weights are not at hand.

    Raises:
        CheckpointError: The file is another one: with other weights the figures would be no FID and
            no KID.
    """
    file = find(*FILES)
    if file is None:
        log.warning(
            "FID and KID are left out: put %s into the folder RBS_WEIGHTS, or download it with "
            "python -c \"import torch; torch.hub.load_state_dict_from_url('%s')\"",
            FILES[0],
            URL,
        )
        return None
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != SHA256:
        raise CheckpointError(
            f"it is not the Inception network of FID and KID (SHA-256 {found[:8]}..., not {SHA256[:8]}...)",
            file=file,
            remedy="remove or download it again",
        )
    model = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file)
    )
    return Inception(model.to(torch_device("auto")), found)

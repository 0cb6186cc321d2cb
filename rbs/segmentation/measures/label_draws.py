"""Label maps drawn from the probabilities of a segmenter: how sure a boundary is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rbs.scans.scan import Array

CORRELATION_MM = 24.0
"""Distance over which errors of a boundary are correlated: chosen on training phantoms, so that
intervals of regional measures cover their truth (docs/quantify.md)."""

SURE = 0.995
"""Probability from which on a pixel keeps its label in every draw."""


LABELS = 3
"""Labels that are drawn from in each pixel."""


def likeliest(probabilities: Array) -> Array:
    """Label of the largest probability, uint8 (V, H, W), of (V, 1 + K, H, W)."""
    return np.asarray(probabilities.argmax(axis=1), np.uint8)


def label_draws(
    probabilities: Array, spacing_mm: tuple[float, float], draws: int, seed: int = 0
) -> Iterator[Array]:
    """Draw label maps whose pixels have the given probabilities and whose errors are correlated.

    The label is argmax_k(log p_k + G_k) with standard Gumbel noise G: it is k with probability p_k
    (Gumbel-max; Maddison et al., NIPS 2014). The noise of neighbours is alike, as the errors of a
    boundary are: a Gaussian field, interpolated between independent nodes `CORRELATION_MM` apart
    and scaled to unit variance, is mapped by G = -log(-log Φ(z)). Independent noise would average
    out over a region and understate its error.

    Args:
        probabilities: Of background and regions (V, 1 + K, H, W).
        spacing_mm: Row and column spacing, mm.
        draws: Number of label maps.
        seed: Seed of the draws.

    Yields:
        Labels, uint8 (V, H, W).
    """
    from scipy.special import log_ndtr

    rng = np.random.default_rng(seed)
    fixed = likeliest(probabilities)
    view, row, column = np.nonzero(probabilities.max(axis=1) < SURE)
    here = probabilities[view, :, row, column]
    # The few likeliest labels of a pixel have all but a thousandth of the probability.
    among = np.argsort(here, axis=1)[:, -LABELS:]
    logits = np.log(np.maximum(np.take_along_axis(here, among, axis=1), 1e-9))
    at = [row * spacing_mm[0] / CORRELATION_MM, column * spacing_mm[1] / CORRELATION_MM]
    low = [place.astype(int) for place in at]
    weights = [np.stack([1 - place + first, place - first]) for place, first in zip(at, low, strict=True)]
    nodes = [int(place.max(initial=0)) + 2 for place in at]
    for _ in range(draws):
        field = rng.standard_normal((len(probabilities), *nodes, probabilities.shape[1]))
        z = np.zeros(logits.shape)
        variance = np.zeros(len(row))
        for down in (0, 1):
            for across in (0, 1):
                weight = weights[0][down] * weights[1][across]
                corner = (low[0] + down)[:, None], (low[1] + across)[:, None]
                z += weight[:, None] * field[view[:, None], *corner, among]
                variance += weight**2
        gumbel = -np.log(-log_ndtr(z / np.sqrt(variance)[:, None]))
        labels = fixed.copy()
        best = (logits + gumbel).argmax(axis=1)
        labels[view, row, column] = np.take_along_axis(among, best[:, None], axis=1)[:, 0]
        yield labels

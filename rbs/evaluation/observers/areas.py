"""AUC of model observers at each place, the bound it has, and paired differences of methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rbs.evaluation.methods import RAPID
from rbs.evaluation.observers.observers import (
    auc_of_snr,
    bootstrap_mean,
    channelised_auc,
    snr_of_auc,
    within_covariance,
)
from rbs.evaluation.observers.simulation import (
    STANDARD,
    STANDARD_AUC,
    Detection,
    Rows,
    detection_study,
)
from rbs.evaluation.scans.pairs import ScanPair
from rbs.scans.scan import Array

IDEAL_RAPID, IDEAL_STANDARD = f"ideal {RAPID.name}", f"ideal {STANDARD}"
"""Rows of the ideal observers, the bounds of all others."""

_PLACE = ["patient", "row", "column"]


def detection_areas(
    pairs: Iterable[ScanPair],
    restorers: Mapping[str, Callable[[ScanPair], Array]],
    draws: int = 16,
    seed: int = 1,
) -> pd.DataFrame:
    """AUC of restoring functions on a few phantom children, summarised by `summarise_areas`.

    The raw rapid and standard scans and their bounds are added. A restoration of each draw by each
    function is nearly all of the cost.

    Args:
        pairs: Phantoms; of a generator one is in memory at a time.
        restorers: Name to a function from a pair to standard counts (V, H, W); the first is what
            the others are compared with.
        draws: Of each child, a multiple of 4 from 8 on. All functions see the same.
        seed: Seed of places and draws.

    Returns:
        As `place_areas`.
    """
    everything = {RAPID.name: RAPID.restore, **restorers}
    drawn = [arrays(detection_study(pair, everything, draws, seed)) for pair in pairs]
    return place_areas(drawn, next(iter(restorers), None))


def arrays(detection: Detection) -> dict[str, Array]:
    """A child's outputs as arrays that a file can hold, none where there are no places."""
    if not detection.places:
        return {}
    found = {
        f"{side}/{channels}/{method}": values
        for side, outputs in (("absent", detection.absent), ("present", detection.present))
        for (channels, method), values in outputs.items()
    }
    places = {
        name: np.array([getattr(place, name) for place in detection.places])
        for name in ("row", "column", "size_mm")
    }
    return {
        **found,
        **places,
        "patient": np.array(detection.patient),
        "exposure": np.array(detection.exposure),
    }


def place_areas(detections: Sequence[Mapping[str, Any]], first: str | None = None) -> pd.DataFrame:
    """AUC at each place, by channels and method; a template for all places of a size.

    Internal noise has the variance that the standard scan's own noise has in each channel: the same
    for every method, as a reader's is who sees all of them in one window of grey.

    Args:
        detections: `arrays` of each child; the same methods in all.
        first: Method with which the others are compared beside the rapid scan; None for none.

    Returns:
        Columns patient, row, column, size_mm, channels, method, auc, auc_internal_noise, and the
        AUC minus that of the raw rapid scan and of `first` at the same place, auc_minus_rapid and
        auc_minus_first. Bounds are the closed form of `observers`.
    """
    detections = [child for child in detections if child]
    frames = []
    for size in sorted({float(size) for child in detections for size in child["size_mm"]}):
        kept = [(child, child["size_mm"] == size) for child in detections]
        places = pd.concat(
            [
                pd.DataFrame({"patient": str(child["patient"]), "row": child["row"][inside]}).assign(
                    column=child["column"][inside], size_mm=size, exposure=float(child["exposure"])
                )
                for child, inside in kept
            ],
            ignore_index=True,
        )
        for channels, found in _by_channels(kept).items():
            internal = np.diag(np.diag(within_covariance(found[STANDARD][0])))
            for method, (absent, present) in found.items():
                plain = channelised_auc(absent, present)
                noisy = channelised_auc(absent, present, internal)
                known = {"channels": channels, "method": method}
                frames.append(places.assign(**known, auc=plain, auc_internal_noise=noisy))
            bounds: dict[str, Any] = {IDEAL_RAPID: places["exposure"].map(bound), IDEAL_STANDARD: bound(1.0)}
            for method, area in bounds.items():
                known = {"channels": channels, "method": method}
                frames.append(places.assign(**known, auc=area, auc_internal_noise=math.nan))
    if not frames:
        return pd.DataFrame()
    return _with_differences(pd.concat(frames, ignore_index=True).drop(columns="exposure"), first)


def bound(exposure: float) -> float:
    """AUC of the ideal observer of a scan of this exposure, for foci of `STANDARD_AUC`."""
    return auc_of_snr(math.sqrt(exposure) * snr_of_auc(STANDARD_AUC))


def summarise_areas(areas: pd.DataFrame, seed: int) -> Rows:
    """Means over places with 95 % intervals that resample children; differences are paired.

    Args:
        areas: Of `place_areas`.
        seed: Seed of the resampling.

    Returns:
        Rows with channels, size_mm, method, quantity, n (places), mean, low, high.
    """
    rows = Rows()
    if areas.empty:
        return rows
    for (channels, size, method), part in areas.groupby(["channels", "size_mm", "method"], sort=False):
        for quantity in ("auc", "auc_minus_rapid", "auc_minus_first", "auc_internal_noise"):
            values = part[quantity].to_numpy()
            if np.isfinite(values).any():
                mean, low, high = bootstrap_mean(values, part["patient"].to_numpy(), seed)
                known = {"channels": channels, "size_mm": size, "method": method, "quantity": quantity}
                rows.append({**known, "n": len(values), "mean": mean, "low": low, "high": high})
    return rows


def _with_differences(areas: pd.DataFrame, first: str | None) -> pd.DataFrame:
    """Paired differences, NaN for the method itself and for bounds."""
    for column, reference in (("auc_minus_rapid", RAPID.name), ("auc_minus_first", first)):
        keys = [*_PLACE, "channels"]
        theirs = areas[areas["method"] == reference].set_index(keys)["auc"]
        minus = areas["auc"] - theirs.reindex(pd.MultiIndex.from_frame(areas[keys])).to_numpy()
        areas[column] = minus.where(~areas["method"].isin([reference, IDEAL_RAPID, IDEAL_STANDARD]))
    return areas


def _by_channels(
    kept: Sequence[tuple[Mapping[str, Any], Array]],
) -> dict[str, dict[str, tuple[Array, Array]]]:
    """Outputs of all children without and with the focus, by channels and method."""
    found: dict[str, dict[str, tuple[Array, Array]]] = {}
    for key in kept[0][0]:
        if key.startswith("absent/"):
            _, channels, method = key.split("/", 2)
            absent, present = (
                np.concatenate([child[f"{side}/{channels}/{method}"][inside] for child, inside in kept])
                for side in ("absent", "present")
            )
            found.setdefault(channels, {})[method] = absent, present
    return found

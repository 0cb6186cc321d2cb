"""Pairs of a degraded image and the target that its restorations are compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from rbs.scans.scan import Array, Spacing

if TYPE_CHECKING:
    from rbs.restorers.checkpoint import LoadedRestorer


class Pair(ABC):
    """A degraded image and its target; `ScanPair` and `FramePair` are the two kinds.

    Attributes:
        patient: Unit of the statistics: a patient, or the group of a frame.
        target: Reference of the metrics.
    """

    patient: str
    target: Any

    @property
    @abstractmethod
    def network_input(self) -> tuple[Array, float]:
        """Input of a restorer, float32 (C, H, W), and its exposure."""

    @property
    @abstractmethod
    def spacing_mm(self) -> Spacing:
        """Row and column spacing, mm; 1 of frames."""

    @abstractmethod
    def restored(self, loaded: LoadedRestorer) -> Array:
        """Restoration by a restorer, (C, H, W)."""

    @abstractmethod
    def to_target(self, estimate: Array, *, raw: bool = False) -> Array:
        """Bring an estimate, (C, H, W), into the geometry and range of the target.

        Args:
            estimate: Made of the degraded image.
            raw: Whether it has the noise of counts, which interpolation would smooth.
        """

    @abstractmethod
    def error(self, estimate: Array) -> float:
        """Error of an estimate that the parameters of classical peers are tuned by."""

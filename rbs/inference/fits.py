"""Fits kept for a camera: what a restorer learned of one scan serves the next ones of its kind."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from rbs.errors import CheckpointError, OutputError
from rbs.restorers.base import Restorer
from rbs.restorers.checkpoint import LoadedRestorer, load_restorer, save_restorer
from rbs.scans.scan import Scan
from rbs.weights.shipped import file_sha256


def camera_of(scan: Scan) -> str | None:
    """Words that scans of one camera share: maker, model, device, collimator and pixel size.

    Returns:
        None for a scan without a header.
    """
    header = scan.provenance.header
    if header is None:
        return None
    detectors = header.get("DetectorInformationSequence") or [{}]
    facts = [
        header.get("Manufacturer"),
        header.get("ManufacturerModelName"),
        header.get("DeviceSerialNumber") or header.get("StationName"),
        detectors[0].get("CollimatorGridName") or detectors[0].get("CollimatorType"),
        *(f"{side:.3f} mm" for side in scan.spacing_mm),
    ]
    return ", ".join(str(fact or "unknown").strip() for fact in facts)


def require_writable(folder: Path) -> None:
    """Refuse a folder that cannot take a fit, before one is made; it is made where there is none.

    Raises:
        OutputError: Nothing can be written to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        fault = f"fits cannot be kept in it ({error.strerror or error})"
        remedy = "name a folder that can be written with --fits, or leave --fits out"
        raise OutputError(fault, file=folder, remedy=remedy) from error


@dataclass(frozen=True)
class KeptFit:
    """A place for the fit of one camera to some weights.

    Attributes:
        folder: Folder of such fits.
        camera: See `camera_of`.
        loaded: The restorer that is fitted.
    """

    folder: Path
    camera: str
    loaded: LoadedRestorer

    @property
    def key(self) -> str:
        """Short hash of the camera and the weights, which names the file."""
        return hashlib.sha256(f"{self.camera} {self.loaded.sha256}".encode()).hexdigest()[:12]

    @property
    def file(self) -> Path:
        """The file, whether or not there is one."""
        return self.folder / f"{self.key}.safetensors"

    def read(self) -> LoadedRestorer | None:
        """The restorer as it was fitted; None where none was kept.

        Raises:
            CheckpointError: The file is damaged, or holds something else.
        """
        if not self.file.exists():
            return None
        found = load_restorer(self.file)
        own = self.loaded.restorer
        if found.provenance.get("fit") != self.key or found.restorer.spec() != own.spec():
            fault = "it is no fit of these weights to this camera"
            raise CheckpointError(fault, file=self.file, remedy="name another folder with --fits")
        return replace(found, restorer=found.restorer.to(next(own.parameters()).device))

    def write(self, restorer: Restorer) -> str:
        """Keep a fit.

        Returns:
            SHA-256 of its file, hexadecimal, which unlike `key` tells it from a later fit.

        Raises:
            OutputError: The file cannot be written.
        """
        save_restorer(self.file, restorer, {"fit": self.key, "weights_sha256": self.loaded.sha256})
        return file_sha256(self.file)

"""The description in a weight file or an export, typed and within range."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rbs.utils.schema import require_types, shown

KEY = "rbs"
"""Name of the description in the metadata of a file."""

_Range = tuple[float, float]
_PROVENANCE = {
    "spacing_mm": _Range,
    "counts_per_pixel": _Range,
    "exposure": _Range,
    "preset": str | None,
    "longest_side": int | None,
    "steps": int,
}
"""Types of what is read of a provenance; the rest is only recorded."""


@dataclass(frozen=True)
class Description:
    """The description that all files share.

    Attributes:
        version: Version of rbs that wrote it; "unknown" where the file does not say.
        provenance: Record of the making of its weights.
        digest: SHA-256 of the weights and of the rest of the description; None in files of rbs
            0.2.0 and before.

    Raises:
        ValueError: A value is out of range.
    """

    version: str = "unknown"
    provenance: dict[str, Any] = field(default_factory=dict)
    digest: str | None = None

    def __post_init__(self) -> None:
        if not self.version.isprintable() or len(self.version) > 64:
            raise ValueError(f"its version is {shown(self.version)}")
        require_types(self.provenance, _PROVENANCE)
        for name, hint in _PROVENANCE.items():
            if hint is _Range and name in self.provenance:
                low, high = self.provenance[name]
                if not 0 <= low <= high:
                    raise ValueError(f"its {name} is {shown(self.provenance[name])}, no range")


@dataclass(frozen=True)
class Spec:
    """A module that a file holds: class and arguments, from which it is built."""

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightsDescription(Description):
    """The description in a file of weights: of a restorer, a second one, or a head.

    Attributes:
        class_path: Class of the restorer; empty where the file holds none.
        init_args: Arguments of that class.
        f2: `Spec` of a second restorer.
        embedding_dim: Channels of the embedding that its SPI reads, 0 for masks alone; None without
            SPI.
        sees: Image that it restores (`rbs.distillation.cascade`); None in files before 0.3.
        head: `Spec` of an uncertainty head.
        f1_sha256: SHA-256 of the file of the restorer that the head belongs to.
    """

    class_path: str = ""
    init_args: dict[str, Any] = field(default_factory=dict)
    f2: dict[str, Any] | None = None
    embedding_dim: int | None = None
    sees: Literal["i1", "rapid", "standard"] | None = None
    head: dict[str, Any] | None = None
    f1_sha256: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embedding_dim is not None and not 0 <= self.embedding_dim <= 4096:
            raise ValueError(f"its embedding_dim is {self.embedding_dim}")

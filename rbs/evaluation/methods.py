"""Methods that are compared: from a rapid scan to an estimate of the standard scan."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbs.errors import CheckpointError, RbsError, printable
from rbs.inference.devices import torch_device
from rbs.inference.strengths import SIGMA_MM, Strength, apply, deviation
from rbs.scans.scan import Array
from rbs.utils.places import without_places
from rbs.weights.shipped import SHIPPED

if TYPE_CHECKING:
    from rbs.inference.onnx import OnnxRestorer
    from rbs.restorers.checkpoint import LoadedRestorer

log = logging.getLogger(__name__)

CASCADE_FILE = "cascade.safetensors"
"""File of the second restorer, which training writes beside restorer.safetensors."""


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        name: As in the CSV files.
        label: As printed.
        restore: Pair to estimate, laid out as the pair: standard counts (V, H, W), or colours (3,
            H, W).
        settings: What it was made with: tuned parameters, weight hashes.
        raw: Whether its estimates are scaled counts, never smoothed.
        deviation: Pair to the standard deviation it states of that estimate; None where it states
            none.
    """

    name: str
    label: str
    restore: Callable[[Any], Array]
    settings: dict[str, Any] = field(default_factory=dict)
    raw: bool = False
    deviation: Callable[[Any], Array] | None = None

    def describe(self) -> dict[str, Any]:
        """Its entry in the settings file; weights of old versions name places."""
        return {"name": self.name, "label": self.label, "settings": without_places(self.settings)}


RAPID = Method("rapid", "Rapid scan, scaled", lambda pair: pair.rapid / pair.exposure, raw=True)


def trained_methods(
    stage1: Sequence[Path],
    stage2: Path | None = None,
    teacher: Path | None = None,
    base_checkpoint: Path | None = None,
    *,
    adapt: bool = False,
    strengths: bool = False,
    uncertainty: bool = False,
) -> list[Method]:
    """The restorers.

    Args:
        stage1: Weights of stage 1, .safetensors, .ckpt or, for scans, .onnx, and of others to
            compare with it; or none.
        stage2: Weights of stage 2; its second restorer is read from `cascade.safetensors` beside
            them.
        teacher: Segmenter of the second restorer's priors: file, or folder of an adapted SAM.
        base_checkpoint: SAM's base weights that it was adapted from; None for the shipped or
            downloaded ones.
        adapt: Whether these have a second row each, fitted to every scan before it is restored.
        strengths: Whether these have a row more of each strength.
        uncertainty: Whether the first of them states its deviation, by the head that lies beside
            its weights.

    Raises:
        CheckpointError: One of them is missing or does not fit.
        RbsError: `adapt` or `strengths` without stage 1, or with one of frames; or an ONNX file
            where the network itself is needed.
    """
    from rbs.restorers.checkpoint import load_restorer

    options = {"--adapt": adapt, "--uncertainty": uncertainty, "--stage2": stage2 is not None}
    looks_inside = next((name for name, asked in options.items() if asked), None)
    option = "--adapt" if adapt else "--strengths" if strengths else None
    if option and not stage1:
        raise RbsError(f"{option} is about stage 1, but none is named", remedy="name it with --stage1")

    methods: list[Method] = []
    restorers = [load_stage1(file, looks_inside) for file in stage1]
    first = restorers[0] if restorers else None
    for number, (file, loaded) in enumerate(zip(stage1, restorers, strict=True), 1):
        name, label = ("stage1", "Stage 1") if number == 1 else (f"stage1_{number}", f"Stage 1, no. {number}")
        label = "Shipped restorer" if file == SHIPPED else label
        if option and loaded.shows != "scans":
            raise RbsError(f"{option} weighs counts, and frames have none", remedy="leave it out")
        own = restorer_method(name, label, loaded)
        if uncertainty and number == 1:
            own = _with_deviation(own, loaded, file)
        methods += stage1_methods(own, loaded, adapt=adapt, strengths=strengths)
    if stage2 is not None:
        second = load_restorer(stage2)
        methods.append(restorer_method("stage2_f1", "Stage 2, first restorer", second))
        cascade = stage2.parent / CASCADE_FILE
        if cascade.is_file():
            methods += _two_passes(first, second, cascade, teacher, base_checkpoint)
        else:
            log.warning("stage 2 (f2) is left out: there is no %s", printable(cascade))
    return methods


def load_stage1(file: Path, looks_inside: str | None = None) -> Any:
    """A restorer of either kind, `LoadedRestorer` or `OnnxRestorer`, by the suffix of its file.

    Args:
        file: The weights.
        looks_inside: Option that needs the network itself.

    Raises:
        CheckpointError: The file is missing or does not fit.
        RbsError: It is an ONNX file where the network itself is needed.
    """
    from rbs.inference.onnx import load_onnx
    from rbs.restorers.checkpoint import load_restorer

    if file.suffix != ".onnx":
        return load_restorer(file)
    if looks_inside:
        fault = f"{looks_inside} looks into the network of stage 1, which an ONNX file does not allow"
        raise RbsError(fault, file=file, remedy="name the weights it was exported from")
    return load_onnx(file, "auto")


def stage1_methods(own: Method, loaded: Any, *, adapt: bool = False, strengths: bool = False) -> list[Method]:
    """Rows of a restorer of scans: its own answer, fitted to each scan, and of each strength.

    Args:
        own: The first row.
        loaded: The restorer.
        adapt: Whether there is the second row.
        strengths: Whether there are the last ones.
    """
    if strengths:
        own = replace(own, restore=once(own.restore))
    methods = [own]
    if adapt:
        from rbs.inference.test_time_adaptation import AdaptingRestorer

        fitted = AdaptingRestorer.of(loaded)
        methods.append(restorer_method(f"{own.name}_adapted", f"{own.label}, adapted to each scan", fitted))
    if strengths:
        methods += [_of_strength(own, strength) for strength in Strength]
    return methods


def restorer_method(name: str, label: str, loaded: LoadedRestorer | OnnxRestorer) -> Method:
    """A restorer as a row of the table, on the accelerator where there is one.

    Args:
        name: As in the CSV files.
        label: As printed.
        loaded: The restorer.
    """
    from rbs.inference.onnx import OnnxRestorer

    if not isinstance(loaded, OnnxRestorer):
        loaded.restorer.to(torch_device("auto"))
    settings = {**loaded.provenance, "weights": loaded.name, "sha256": loaded.sha256, "shows": loaded.shows}
    return Method(name, label, lambda pair: pair.restored(loaded), settings)


def once(restore: Callable[[Any], Array]) -> Callable[[Any], Array]:
    """The same function, which gives its last answer where it is asked for the same pair again."""
    last: list[tuple[Any, Array]] = []

    def remembered(pair: Any) -> Array:
        if not last or last[0][0] is not pair:
            last[:] = [(pair, restore(pair))]
        return last[0][1]

    return remembered


def _of_strength(method: Method, strength: Strength) -> Method:
    """A row more: what that method restores, of a strength, and the deviation of that."""

    def around(pair: Any) -> tuple[Array, float, tuple[float, float]]:
        return pair.rapid, pair.exposure, pair.target.spacing_mm

    stated = method.deviation
    return replace(
        method,
        settings=method.settings | {"strength": {"share": strength.share, "sigma_mm": SIGMA_MM}},
        name=f"{method.name}_{strength}",
        label=f"{method.label}, {strength}",
        restore=lambda pair: apply(strength, method.restore(pair), *around(pair)),
        deviation=stated and (lambda pair: deviation(strength, stated(pair), *around(pair))),
    )


def _with_deviation(method: Method, loaded: LoadedRestorer, file: Path) -> Method:
    """The same row, stating its deviation."""
    from rbs.restorers.uncertainty import head_file, load_uncertainty

    head = load_uncertainty(loaded, head_file(file))
    known = {**head.provenance, "weights": head.name, "sha256": head.sha256}
    about = method.settings | {"uncertainty": known}
    return replace(method, settings=about, deviation=lambda pair: head.deviation(pair.rapid, pair.exposure))


def _two_passes(first: Any, second: Any, file: Path, folder: Path | None, base: Path | None) -> list[Method]:
    """The whole cascade of stage 2; its prior is that of the whole scan as stage 1 restores it.

    That is what training uses with `prior: cached` and `prior: frozen`; with `prior: online` it
    uses the prior of the crop as the first restorer of stage 2 restores it at that step, which no
    longer exists. One trained on true masks is given true masks.
    """
    from rbs.distillation.cascade import load_cascade
    from rbs.evaluation.second_restorer import labelled_priors, second_restoration, segmented_priors
    from rbs.segmentation.checkpoint import load_segmenter
    from rbs.weights.shipped import file_sha256

    device = torch_device("auto")
    cascade, provenance = load_cascade(file, second.restorer)
    cascade.to(device)
    settings = {**provenance, "weights": file.name, "sha256": file_sha256(file)}
    prior_of, source = None, provenance.get("prior") if cascade.spi is not None else None
    if source == "placebo":
        log.warning("stage 2 (f2) is left out: it was trained on the masks of other patients")
        return []
    if source == "truth":
        settings["prior"] = "true masks"
        prior_of = labelled_priors(source, second.restorer.images, device)
    elif cascade.spi is not None:
        if folder is None or first is None:
            log.warning("stage 2 (f2) is left out: its semantic priors need --stage1 and --teacher")
            return []
        teacher = load_segmenter(folder, base)
        if provenance.get("teacher") not in (None, teacher.sha256):
            remedy = "give that one as --teacher"
            raise CheckpointError(
                f"it was trained with another teacher than {folder}", file=file, remedy=remedy
            )
        if provenance.get("init_from") not in (None, first.sha256):
            log.warning(
                "%s was not trained from the stage-1 weights given: its priors will differ", printable(file)
            )
        settings["prior"] = (
            f"{provenance.get('prior', 'not recorded')} in training; here of the whole scan as restored by"
            f" {first.name}, SHA-256 {first.sha256}"
        )
        prior_of = segmented_priors(teacher.segmenter.to(device), first.restorer, device)
    restore_f2 = second_restoration(cascade, prior_of, device)

    def restore(pair: Any) -> Array:
        restored = restore_f2(pair, lambda: None)
        if restored is None:
            fault = f"the second restorer needs true masks, but {pair.patient} has no labels"
            raise RbsError(fault, file=file, remedy="leave --stage2 out")
        return restored

    return [Method("stage2_f2", "Stage 2, second restorer", restore, settings)]

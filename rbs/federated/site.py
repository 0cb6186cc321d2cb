"""A site: a round of its training on its own scans, by the same `fit` as everything else."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from rbs.data.manifest import Manifest
from rbs.errors import RbsError
from rbs.federated.layers import Arrays, arrays_of, clipped, layout, put, require_kinds, shared_names
from rbs.federated.networks import Network, kind_trained
from rbs.federated.plan import Order
from rbs.utils.experiments import experiment_file
from rbs.utils.guard import concerning

MOST_STEPS = 100_000
"""Steps of a round that a server may order."""
_ROUND = ".round-"
"""Folders of a round begin with it."""
_AVERAGED = 0.1
"""Last part of a round over which weights are averaged."""


@dataclass(frozen=True)
class Answer:
    """What leaves a site: weights, a count of patients and of steps, a mean loss."""

    arrays: Arrays
    patients: int
    steps: int
    loss: float


def read_experiment(name: str | Path) -> dict[str, Any]:
    """An experiment of a restorer or a segmenter, by file or by name.

    Raises:
        RbsError: There is none, or it trains something else.
    """
    file = experiment_file(name)
    settings: dict[str, Any] = yaml.safe_load(file.read_text())
    try:
        kind_trained(settings)
    except RbsError as error:
        raise concerning(error, file) from None
    return settings


def untrained(experiment: Mapping[str, Any]) -> Network:
    """The network of an experiment, the same each time."""
    import torch
    from jsonargparse import ArgumentParser

    kind = kind_trained(experiment)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(kind.base, "network")
    spec = {"network": experiment["model"]["init_args"][kind.argument]}
    with torch.random.fork_rng():
        torch.manual_seed(int(experiment.get("seed_everything", 1)))
        network: Network = parser.instantiate_classes(parser.parse_object(spec)).network
    return network


class Site:
    """Scans of one hospital and the training on them.

    Optimiser states begin afresh each round: those of the round before belong to weights that the
    server has replaced since, and they would not survive a restart. Every round is one warm-up and
    decay of the learning rate, whose peaks decrease linearly over the rounds.

    Args:
        experiment: Settings of `read_experiment`.
        manifest: Manifest of the site.
        folder: Folder of the site: the network with its own local layers, and the runs.
        local: Kinds of layers that never leave the site; the server must mean the same.
        clip: The longest update that leaves the site, whatever the server orders; None for any.
        settings: Settings that replace those of the experiment, by dotted names.

    Raises:
        RbsError: The manifest cannot be used, or has no patients to train on or to validate on.
    """

    def __init__(
        self,
        experiment: Mapping[str, Any],
        manifest: Path,
        folder: Path,
        *,
        local: Sequence[str] = (),
        clip: float | None = None,
        **settings: Any,
    ) -> None:
        require_kinds(local)
        cases = Manifest.read(manifest)
        patients, validating = ({case.patient for case in cases.split(name)} for name in ("train", "val"))
        if not patients:
            raise RbsError("no patient of it is for training", file=manifest, remedy="give some split train")
        if not validating:  # as every training wants
            raise RbsError("no patient of it is for validation", file=manifest, remedy="give some split val")
        self.experiment, self.manifest, self.folder = experiment, manifest.resolve(), folder
        self.kind = kind_trained(experiment)
        self.settings, self.patients, self.file = settings, len(patients), folder / self.kind.file
        self.local, self.clip = tuple(local), clip
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_ROUND}*"):  # of a round that was killed
            shutil.rmtree(left)
        self.network = untrained(experiment)
        if self.file.exists():  # local layers of a session before
            self.network = self.kind.read(self.file)

    def train(self, arrays: Arrays, order: Order) -> Answer:
        """Train for one round from the weights of the server.

        Raises:
            RbsError: The server means another network or too many steps, or the training fails.
        """
        if not 1 <= order.steps <= MOST_STEPS:
            fault = f"the server orders {order.steps} steps"
            raise RbsError(fault, remedy=f"let the server order 1 to {MOST_STEPS}")
        names = self.take(arrays, order)
        update_from = arrays_of(self.network, names)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=_ROUND) as work:
            loss = self._fit(Path(work), order)
            self.network = self.kind.read(Path(work) / "round" / self.kind.file)
        self.keep(order)
        after = arrays_of(self.network, names)
        update = [new - old for new, old in zip(after, update_from, strict=True)]
        longest = min(filter(None, (order.clip, self.clip)), default=None)
        sent = [o + u for o, u in zip(update_from, clipped(update, longest), strict=True)]
        return Answer(sent, self.patients, order.steps, loss)

    def take(self, arrays: Arrays, order: Order) -> list[str]:
        """Take over shared weights; returns their names.

        Raises:
            RbsError: The server means another network.
        """
        names = shared_names(self.network, self.local)
        if layout(self.network, names) != order.layout:
            fault = "the network of this site's experiment, or what stays of it, is not that of the server"
            raise RbsError(fault, remedy="use the --config and the --local that the server was started with")
        put(self.network, names, arrays)
        return names

    def keep(self, order: Order) -> None:
        """Write the network of the site: the shared weights and its own local layers."""
        provenance = {"federated": {"round": order.round, "rounds": order.rounds, "local": self.local}}
        self.kind.save(self.file, self.network, provenance)

    def _fit(self, work: Path, order: Order) -> float:
        """One training; returns the mean loss of its second half."""
        from rbs.tasks.fit import fit

        start = work / "start.safetensors"
        self.kind.save(start, self.network, {})
        own = self.experiment
        task, seed = own["model"]["init_args"], int(own.get("seed_everything", 1))
        remaining = (order.rounds - order.round + 1) / order.rounds
        averaged = 1 - 1 / max(1, _AVERAGED * order.steps)
        trainer: dict[str, Any] = {
            "max_steps": order.steps,
            "default_root_dir": work,
            "limit_val_batches": 0,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
        }
        if order.mu:
            pull = {"class_path": "rbs.tasks.callbacks.Proximal", "init_args": {"mu": order.mu}}
            trainer["callbacks"] = [pull]
        settings = {
            "name": "round",
            "wandb": "disabled",
            "seed_everything": seed * 1000 + order.round,
            "data.init_args.manifest": self.manifest,
            "data.init_args.seed": seed * 1000 + order.round,
            "model.init_args.init_from": start,
            "model.init_args.lr": float(task.get("lr", 1e-3)) * remaining,
            "model.init_args.warmup_steps": min(int(task.get("warmup_steps", 100)), order.steps // 10),
            "checkpoint.save_last": False,
            "checkpoint.save_top_k": 0,
            "ema.decay": min(float(own.get("ema", {}).get("decay", 0.999)), averaged),
            "trainer": trainer,
        }
        run = fit(own, **settings, **self.kind.settings, **self.settings)
        with next(run.glob("version_*/metrics.csv")).open(newline="") as file:
            losses = [float(row["train/total"]) for row in csv.DictReader(file) if row.get("train/total")]
        return fmean(losses[len(losses) // 2 :])

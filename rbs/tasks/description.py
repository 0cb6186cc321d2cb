"""Training of description networks from phantom children and the sentences true of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbs.data.manifest import manifest_record
from rbs.description.calibration import fit_temperatures
from rbs.description.checkpoint import save_describer
from rbs.description.describer import PLACES, Describer
from rbs.description.grammar import FOCI_CHOICES
from rbs.description.sentences import SENTENCES, TOPICS
from rbs.restorers.semantic_features import STRIDE, load_semantic_network, save_semantic_network
from rbs.scans.scan import REGIONS
from rbs.tasks.task import Batch, TrainingTask, images_of

_PER_SENTENCE, _PER_FOCUS, _PER_PLACE = 0.1, 20.0, 50.0
"""Weights that bring the terms of the loss to one size."""


class DescriptionTask(TrainingTask):
    r"""Training of encoder and decoder together by the true sentence of each topic.

    The loss is the sum of their negative log-likelihoods. Beside it two convolutions of 1 x 1 tell
    from the encoder's features, of each cell, the regions in it and whether it holds a focus, with
    cross-entropies: a sentence alone says too little of where to look. They are not kept. For the
    same reason the first head of the decoder is told where the foci of a part lie. Batches that
    hold scans that are `encoded` already train the decoder alone.
    At the end `describer.safetensors` is written, its temperatures fitted to the validation
    children, and its encoder alone as `semantic.safetensors`.

    Args:
        describer: The network.
        lr: Peak learning rate of AdamW.
        weight_decay: Its weight decay.
        warmup_steps: Steps of linear warm-up, before a cosine decay to zero.
        cells_weight: Weight of what is told of each cell.
        encoder: Weight file of an encoder to start from.
        output: Folder of the product; None: the command line puts in the run's own folder.
    """

    def __init__(
        self,
        describer: Describer,
        lr: float = 2e-3,
        weight_decay: float = 0.02,
        warmup_steps: int = 50,
        cells_weight: float = 1.0,
        encoder: Path | None = None,
        output: Path | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, output)
        self.save_hyperparameters(ignore=["describer"])
        self.save_hyperparameters({"describer": describer.spec()})
        self.describer, self.cells_weight = describer, cells_weight
        self.regions = nn.Conv2d(describer.encoder.feature_channels, 1 + len(REGIONS), 1)
        self.foci = nn.Conv2d(describer.encoder.feature_channels, 2, 1)
        nn.init.constant_(self.foci.bias, -6.0)  # type: ignore[arg-type]
        self._validated: list[tuple[Tensor, Tensor]] = []
        if encoder is not None:
            describer.encoder.load_state_dict(load_semantic_network(encoder).state_dict())

    def forward(self, x: Tensor, exposure: Tensor) -> Tensor:
        """Logarithms of the probabilities of all sentences; see `Describer.forward`."""
        return self.describer(x, exposure)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Loss of a batch of whole scans."""
        terms = self.losses(batch)
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()}, batch_size=1)
        return self.total(batch, terms)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss, "total" among them."""
        encoded = self._encoded(batch)
        logits, looks = self.describer.read(encoded)
        written = self.describer.rated(logits, self.describer.temperature)
        sentences = -written.gather(1, batch["sentences"]).sum(dim=1).mean()
        where = F.binary_cross_entropy_with_logits(looks[:, FOCI_CHOICES], batch["where"].flatten(2))
        total = _PER_SENTENCE * sentences + _PER_PLACE * where
        terms = {"sentences": sentences, "where": where, "total": total}
        if "encoded" in batch:
            return terms
        features = encoded[:, :-PLACES]
        regions = F.cross_entropy(self.regions(features).float(), region_shares(batch["labels"]))
        foci = F.binary_cross_entropy_with_logits(self.foci(features).float(), batch["foci"])
        cells = regions + _PER_FOCUS * foci
        return terms | {"regions": regions, "foci": foci, "total": terms["total"] + self.cells_weight * cells}

    def _encoded(self, batch: Batch) -> Tensor:
        """What the decoder reads, computed now or before."""
        if "encoded" in batch:
            kept: Tensor = batch["encoded"].float()
            return kept
        return self.describer.encode(images_of(batch, self.describer.encoder.domain), batch["exposure"])

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self._validated = []

    def validation_step(self, batch: Batch, index: int) -> None:
        """Rate the words of all sentences of the scans."""
        self._validated.append((self.describer.word_logits(self._encoded(batch)), batch["sentences"]))

    def on_validation_epoch_end(self) -> None:
        """Log likelihood, and the share of claims that are right and of facts that are found."""
        logits, truth = (torch.cat(parts) for parts in zip(*self._validated, strict=True))
        written = self.describer.rated(logits, self.describer.temperature)
        self.log("val/sentences", -written.gather(1, truth).sum(dim=1).mean(), prog_bar=True)
        for kind, score in scores_by_kind(written.cpu(), truth.cpu()).items():
            self.log(f"val/f1/{kind.replace(' ', '_')}", score)

    def write(self, folder: Path) -> None:
        """Write the network and its encoder."""
        if not self.trainer.is_global_zero:
            return
        self._calibrate()
        save_describer(folder / "describer.safetensors", self.describer, self.provenance())
        save_semantic_network(folder / "semantic.safetensors", self.describer.encoder, self.provenance())

    def _calibrate(self) -> None:
        """Fit the temperatures to the validation children, with the weights of now."""
        self.describer.eval()
        found = []
        with torch.inference_mode():
            for batch in self.datamodule.val_dataloader():
                batch = {n: part.to(self.device) if n != "patient" else part for n, part in batch.items()}
                found.append((self.describer.word_logits(self._encoded(batch)), batch["sentences"]))
        logits, truth = (torch.cat(parts) for parts in zip(*found, strict=True))
        self.describer.temperature.copy_(fit_temperatures(self.describer, logits, truth))

    def provenance(self) -> dict[str, Any]:
        """Record of the making of the weights."""
        return self.datamodule.training_ranges() | {
            "steps": self.global_step,
            "seed": os.environ.get("PL_GLOBAL_SEED"),
            **manifest_record(self.datamodule.manifest),
        }


def region_shares(labels: Tensor) -> Tensor:
    """Share of each region in each cell, (B, 1 + K, h, w), from labels (B, V, H, W)."""
    shares = [
        F.avg_pool2d((labels == region).float().mean(dim=1, keepdim=True), STRIDE)
        for region in range(1 + len(REGIONS))
    ]
    return torch.cat(shares, dim=1)


def scores_by_kind(written: Tensor, truth: Tensor) -> dict[str, float]:
    """F1 of the likeliest sentences, by kind.

    Args:
        written: Logarithms of the probabilities of all sentences, (B, S).
        truth: True sentence of each topic, (B, T).
    """
    topics = torch.tensor([number for number, _, _ in SENTENCES])
    claims = torch.tensor([statement.claims for _, statement, _ in SENTENCES])
    counts: dict[str, list[int]] = {}
    for number, topic in enumerate(TOPICS):
        said = written.masked_fill(topics != number, -torch.inf).argmax(dim=1)
        true = truth[:, number]
        own = counts.setdefault(topic.kind, [0, 0])
        own[0] += 2 * int(((said == true) & claims[true]).sum())
        own[1] += int(claims[said].sum() + claims[true].sum())
    return {kind: right / total if total else 1.0 for kind, (right, total) in counts.items()}

"""Training of description networks."""

from pathlib import Path

import pytest
import torch
from trainings import brief_trainer

from rbs.data.described_scans import DescribedScansDataModule, EncodedScansDataModule
from rbs.description.checkpoint import load_describer
from rbs.description.describer import PLACES, Describer
from rbs.description.sentences import PARTS, SENTENCES, TOPICS
from rbs.restorers.semantic_features import load_semantic_network, save_semantic_network
from rbs.synthetic.cohort import write_cohort
from rbs.tasks.description import DescriptionTask, region_shares, scores_by_kind

FIRSTS = [next(n for n, one in enumerate(SENTENCES) if one[0] == number) for number in range(len(TOPICS))]
"""The first sentence of each topic."""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantoms, one of each split. Read only."""
    return write_cohort(tmp_path_factory.mktemp("phantoms"), 3, 12, workers=1, progress=False)


def network() -> Describer:
    return Describer((4, 6, 8), (0, 1, 1), heads=2)


def test_a_training_writes_the_network_and_its_encoder(manifest, tmp_path) -> None:
    data = DescribedScansDataModule(str(manifest), batch_size=1, samples_per_epoch=2)
    torch.manual_seed(0)
    task = DescriptionTask(network(), output=tmp_path)
    brief_trainer(tmp_path, 2).fit(task, data)
    written = load_describer(tmp_path / "describer.safetensors")
    assert written.provenance["steps"] == 2
    assert written.provenance["exposure"] == [0.2, 1.0]
    assert not torch.equal(written.describer.temperature, torch.ones_like(written.describer.temperature))
    encoder = load_semantic_network(tmp_path / "semantic.safetensors")
    for name, weight in written.describer.encoder.state_dict().items():
        assert torch.equal(weight, encoder.state_dict()[name])


def test_the_decoder_alone_is_trained_on_what_the_encoder_sees(manifest, tmp_path) -> None:
    torch.manual_seed(0)
    first = network()
    save_semantic_network(tmp_path / "semantic.safetensors", first.encoder, {})
    data = EncodedScansDataModule(
        str(manifest), encoder=tmp_path / "semantic.safetensors", scans=4, batch_size=2, together=2
    )
    task = DescriptionTask(network(), encoder=tmp_path / "semantic.safetensors", output=tmp_path)
    before = task.describer.words.weight.detach().clone()
    brief_trainer(tmp_path, 2).fit(task, data)
    for name, weight in task.describer.encoder.state_dict().items():
        assert torch.equal(weight, first.encoder.state_dict()[name])
    assert not torch.equal(task.describer.words.weight, before)
    batch = next(iter(data.train_dataloader()))
    assert batch["encoded"].shape[:2] == (2, 8 + PLACES)


def test_the_loss_falls_on_a_scan_that_is_shown_again() -> None:
    torch.manual_seed(1)
    task = DescriptionTask(network())
    batch = {
        "rapid": torch.poisson(torch.full((1, 2, 64, 32), 5.0)),
        "exposure": torch.ones(1),
        "sentences": torch.tensor([FIRSTS]),
        "labels": torch.randint(0, 10, (1, 2, 64, 32), dtype=torch.uint8),
        "foci": torch.zeros(1, 2, 8, 4),
        "where": torch.zeros(1, len(PARTS), 8, 4),
        "patient": ["P1"],
    }
    optimizer = torch.optim.AdamW(task.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        terms = task.losses(batch)
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
        losses.append(terms["sentences"].item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(weight.grad is not None for weight in task.parameters())


def test_shares_of_regions_sum_to_one() -> None:
    labels = torch.zeros(1, 2, 16, 8, dtype=torch.uint8)
    labels[:, 0, :8] = 3
    shares = region_shares(labels)
    assert shares.shape == (1, 10, 2, 1)
    assert shares[0, :, 0, 0].tolist() == [0.5, 0, 0, 0.5, 0, 0, 0, 0, 0, 0]
    assert torch.equal(shares.sum(dim=1), torch.ones(1, 2, 1))


def test_f1_counts_claims_and_not_denials() -> None:
    truth = torch.tensor(
        [[n for n, _ in enumerate(SENTENCES) if SENTENCES[n][0] == t][:1] for t in range(len(TOPICS))]
    ).T
    written = torch.full((1, len(SENTENCES)), -9.0)
    written[0, truth[0]] = 0.0
    perfect = scores_by_kind(written, truth)
    assert perfect["age"] == perfect["hot foci"] == 1.0
    focus = next(n for n, (t, one, _) in enumerate(SENTENCES) if one.kind == "hot foci" and one.claims)
    written[0, focus] = 1.0
    assert scores_by_kind(written, truth)["hot foci"] == 0.0

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rbs.description.answers import LEAST_CONFIDENCE, confident_answers
from rbs.description.calibration import fit_temperatures
from rbs.description.checkpoint import load_describer, save_describer
from rbs.description.describer import Describer
from rbs.description.sentences import SENTENCES, TOPICS
from rbs.errors import CheckpointError, ScanError
from rbs.restorers.semantic_features import SemanticNetwork, save_semantic_network


@pytest.fixture(scope="module")
def describer() -> Describer:
    torch.manual_seed(0)
    return Describer((4, 6, 8), (0, 1, 1), heads=2).eval()


def scans(rows: int = 128, columns: int = 64) -> torch.Tensor:
    return torch.poisson(torch.full((2, 2, rows, columns), 4.0), generator=torch.Generator().manual_seed(1))


def test_probabilities_of_all_sentences_of_a_topic_sum_to_one(describer) -> None:
    chances = describer(scans(), torch.full((2,), 0.5)).exp()
    topics = torch.tensor([number for number, _, _ in SENTENCES])
    sums = torch.zeros(2, len(TOPICS)).index_add(1, topics, chances)
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-4)


def test_what_it_reads_depends_on_where_it_lies(describer) -> None:
    x = torch.zeros(1, 2, 128, 64)
    x[..., 30:60, 10:20] = 9
    there, mirrored = (describer(one, torch.ones(1)) for one in (x, x.flip(3)))
    assert not torch.allclose(there, mirrored, atol=1e-4)


def test_rows_below_the_last_scanned_one_hardly_matter(describer) -> None:
    """Scans of a batch are as long as the longest."""
    x = scans()
    padded = torch.nn.functional.pad(x, (0, 0, 0, 64))
    short, long = (describer(one, torch.ones(2)).exp() for one in (x, padded))
    assert torch.allclose(short, long, atol=0.02)


def test_a_saved_network_is_read_back_and_one_of_other_sentences_is_refused(
    describer, tmp_path, monkeypatch
) -> None:
    file = tmp_path / "describer.safetensors"
    save_describer(file, describer, {"steps": 2})
    counts = scans()[0].numpy()
    ours = describer(scans()[:1] / 0.5, torch.tensor([0.5]))[0].exp().detach().numpy()
    assert np.allclose(load_describer(file).chances(counts, 0.5), ours, atol=1e-5)
    one_view = load_describer(file).chances(counts[:1], 0.5)
    assert one_view.shape == ours.shape
    monkeypatch.setattr("rbs.description.grammar.grammar_digest", lambda: "others")
    with pytest.raises(CheckpointError, match="it was taught other sentences"):
        load_describer(file)


def test_an_encoder_alone_is_refused(tmp_path) -> None:
    save_semantic_network(tmp_path / "semantic.safetensors", SemanticNetwork((4, 6, 8), (0, 1, 1)), {})
    with pytest.raises(CheckpointError, match="is no Describer"):
        load_describer(tmp_path / "semantic.safetensors")


def test_temperatures_undo_confidence_that_is_too_great(describer) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, *describer.allowed.shape, generator=generator)
    chances = describer.rated(logits, torch.ones(len(describer.allowed)))
    truth = []
    for number in range(len(TOPICS)):
        own = [n for n, (topic, _, _) in enumerate(SENTENCES) if topic == number]
        drawn = torch.multinomial(chances[:, own].exp(), 1, generator=generator)[:, 0]
        truth.append(torch.tensor(own)[drawn])
    fitted = fit_temperatures(describer, 2 * logits, torch.stack(truth, 1))
    # Kinds of several topics are known best.
    assert fitted.median() == pytest.approx(2, abs=0.3)


def test_temperatures_are_fitted_where_the_logits_lie() -> None:
    """Every step on an accelerator, of which no computer needs one: tensors without values."""
    describer = Describer((4, 6, 8), (0, 1, 1), heads=2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for name, values in list(describer.named_buffers()):
            setattr(describer, name, values.to("cuda"))
        logits = torch.zeros(3, *describer.allowed.shape, device="cuda")
        truth = torch.zeros(3, len(TOPICS), dtype=torch.long, device="cuda")
        assert fit_temperatures(describer, logits, truth).device.type == "cpu"


def test_a_scan_that_is_too_large_is_refused(describer, tmp_path) -> None:
    save_describer(tmp_path / "describer.safetensors", describer, {})
    with pytest.raises(ScanError, match="2,097,152 are described at once"):
        load_describer(tmp_path / "describer.safetensors").chances(np.zeros((1, 2049, 1024)), 0.5)


def test_sentences_below_a_confidence_are_left_out_and_counted() -> None:
    chances = np.zeros(len(SENTENCES))
    firsts = [next(n for n, one in enumerate(SENTENCES) if one[0] == number) for number in range(len(TOPICS))]
    chances[firsts] = 1.0
    claims = sum(SENTENCES[n][1].claims for n in firsts)
    assert 0 < claims < len(TOPICS)  # nothing is denied
    assert (len(confident_answers(chances)[0]), confident_answers(chances)[1]) == (claims, 0)
    chances[firsts[0]], chances[firsts[0] + 1] = LEAST_CONFIDENCE - 0.01, 0.31
    kept, left_out = confident_answers(chances)
    assert (len(kept), left_out) == (claims - 1, 1)
    assert len(confident_answers(chances, 0.5)[0]) == claims


def test_where_the_number_of_foci_is_not_sure_that_there_are_some_may_be() -> None:
    chances = np.zeros(len(SENTENCES))
    spine = next(number for number, topic in enumerate(TOPICS) if topic.name == "<hot foci spine>")
    own = [n for n, one in enumerate(SENTENCES) if one[0] == spine]
    chances[own] = [0.1, 0.4, 0.4, 0.1]
    (only,) = confident_answers(chances)[0]
    assert str(only) == "0.90  One or more foci of raised uptake in the spine."

"""The training of a site: the same fit, local layers that stay, nothing of a patient that leaves."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from rbs.errors import RbsError
from rbs.federated.layers import LOCAL, arrays_of, layout, norm, shared_names
from rbs.federated.plan import Order, Plan
from rbs.federated.site import Site, read_experiment, untrained
from rbs.restorers.checkpoint import load_restorer
from rbs.segmentation.checkpoint import load_segmenter

SMALL = {"width": 4, "enc_blocks": [1], "middle_blocks": 1, "dec_blocks": [1]}


@pytest.fixture(scope="module")
def manifest(make_cohort, tmp_path_factory):
    splits = ("train", "train", "val")
    return make_cohort(tmp_path_factory.mktemp("site"), splits=splits, truth=False, rapid=False)


def experiment():
    settings = read_experiment("federated")
    settings["model"]["init_args"]["f1"]["init_args"] = SMALL
    settings["data"]["init_args"] |= {"crop": [64, 64], "batch_size": 1, "samples_per_epoch": 4}
    settings["trainer"] |= {"accelerator": "cpu", "precision": "32-true"}
    return settings


def order(restorer, **options):
    names = shared_names(restorer, options.pop("local", ()))
    return Order(layout(restorer, names), 1, 2, 3, **options), names


def test_a_round_trains_from_the_weights_of_the_server(manifest, tmp_path):
    site = Site(experiment(), manifest, tmp_path)
    asked, names = order(site.network)
    given = [array + np.float32(0.01) for array in arrays_of(site.network, names)]
    answer = site.train(given, asked)
    assert (answer.patients, answer.steps, np.isfinite(answer.loss)) == (2, 3, True)
    moved = norm([after - before for after, before in zip(answer.arrays, given, strict=True)])
    assert 1e-4 < moved < 1
    # The second round draws other crops, and its learning rate is half as high.
    again = site.train(given, replace(asked, round=2))
    assert 0 < norm([a - b for a, b in zip(again.arrays, given, strict=True)]) < moved
    # A strong pull holds the weights where they were; an update is no longer than the clip.
    pulled = site.train(given, replace(asked, mu=1e4))
    assert norm([a - b for a, b in zip(pulled.arrays, given, strict=True)]) < moved
    short = site.train(given, replace(asked, clip=1e-4))
    assert norm([a - b for a, b in zip(short.arrays, given, strict=True)]) == pytest.approx(1e-4, rel=1e-2)
    site.clip = 5e-5  # which the site decides, whatever the server orders
    short = site.train(given, replace(asked, clip=1.0))
    assert norm([a - b for a, b in zip(short.arrays, given, strict=True)]) == pytest.approx(5e-5, rel=1e-2)
    assert not list(tmp_path.glob(".round-*"))


def test_local_layers_stay_and_survive_a_restart(manifest, tmp_path):
    site = Site(experiment(), manifest, tmp_path, local=LOCAL)
    asked, names = order(site.network, local=LOCAL)
    local = sorted(set(shared_names(site.network)) - set(names))
    before = arrays_of(site.network, local)
    answer = site.train(arrays_of(site.network, names), asked)
    assert len(answer.arrays) == len(names)
    after = arrays_of(site.network, local)
    assert norm([a - b for a, b in zip(after, before, strict=True)]) > 0
    folder = tmp_path / ".round-killed"
    folder.mkdir()
    restarted = Site(experiment(), manifest, tmp_path, local=LOCAL)
    assert not folder.exists()
    restarted.take([array * 0 for array in answer.arrays], asked)
    for one, other in zip(arrays_of(restarted.network, local), after, strict=True):
        np.testing.assert_array_equal(one, other)
    restarted.keep(asked)
    kept = load_restorer(tmp_path / "restorer.safetensors").restorer
    assert norm(arrays_of(kept, names)) == 0
    assert norm(arrays_of(kept, local)) > 0


def test_another_network_is_refused(manifest, tmp_path):
    site = Site(experiment(), manifest, tmp_path)
    asked, names = order(site.network)
    with pytest.raises(RbsError, match="not that of the server"):
        site.train(arrays_of(site.network, names), replace(asked, layout="0" * 16))


def test_a_server_has_no_say_over_what_stays_and_how_long_a_round_is(manifest, tmp_path):
    site = Site(experiment(), manifest, tmp_path, local=["norms"])
    everything, names = order(site.network)
    with pytest.raises(RbsError, match="not that of the server"):
        site.take(arrays_of(site.network, names), everything)
    asked, names = order(site.network, local=["norms"])
    for steps in (0, 10**9):
        with pytest.raises(RbsError, match=f"orders {steps} steps"):
            site.train(arrays_of(site.network, names), replace(asked, steps=steps))


def test_a_site_needs_patients_to_train_on(make_cohort, tmp_path):
    with pytest.raises(RbsError, match="no patient of it is for training"):
        Site(experiment(), make_cohort(tmp_path / "data", splits=("val", "test")), tmp_path / "site")
    with pytest.raises(RbsError, match="no patient of it is for validation"):
        Site(experiment(), make_cohort(tmp_path / "other", splits=("train", "test")), tmp_path / "site")


@pytest.mark.parametrize("name", ["stage1_stream", "one_label", "uncertainty", "endoscopy/stage1"])
def test_an_experiment_that_trains_something_else_is_refused(name):
    with pytest.raises(
        RbsError, match="neither a restorer of stage 1 nor a segmenter, or not on the scans"
    ) as e:
        read_experiment(name)
    assert e.value.file.stem == name.rpartition("/")[2]


def test_hospitals_train_a_segmenter_on_their_labelled_scans(make_cohort, tmp_path):
    pytest.importorskip("flwr", reason="pip install 'rbs[federate]'")
    from rbs.federated.network import simulate

    settings = read_experiment("segment")
    settings["model"]["init_args"]["segmenter"]["init_args"] = {"filters": [4, 4, 6, 8]}
    settings["data"]["init_args"] |= {"crop": [128, 64], "batch_size": 1, "samples_per_epoch": 4}
    settings["data"]["init_args"]["num_workers"] = 0
    settings["trainer"] |= {"accelerator": "cpu", "precision": "32-true"}
    assert settings["data"]["init_args"]["children"] == 0  # phantoms without end, not those of a site
    sites = {}
    for number, name in enumerate(("north", "south"), 1):
        manifest = make_cohort(
            tmp_path / name, splits=("val", *("train",) * number), rapid=False, seed=number
        )
        sites[name] = Site(settings, manifest, tmp_path / f"site {name}", local=LOCAL)
    plan = Plan(clients=2, minimum=2, rounds=1, steps=3, local=LOCAL)
    first = untrained(settings)
    start = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    shared = load_segmenter(simulate(plan, first, sites, tmp_path / "server")).segmenter.state_dict()
    names = shared_names(first, LOCAL)
    assert any(not torch.equal(shared[name], start[name]) for name in names)
    for site in sites.values():
        own = load_segmenter(site.file)
        assert site.file.name == "segmenter.safetensors"
        assert own.provenance["federated"]["round"] == 1
        assert all(torch.equal(own.segmenter.state_dict()[name], shared[name]) for name in names)
    kept = sorted(set(start) - set(names))
    assert "backbone.input_block.conv1.conv.weight" in kept
    assert len({sites[name].network.state_dict()[kept[0]].sum().item() for name in sites}) == 2
    lines = [
        (row["site"], row["patients"]) for row in csv.DictReader((tmp_path / "server" / "rounds.csv").open())
    ]
    assert lines == [("north", "1"), ("south", "2")]


def test_an_untrained_restorer_is_the_same_everywhere():
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    one, other = untrained(experiment()).state_dict(), untrained(experiment()).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(state, torch.random.get_rng_state())

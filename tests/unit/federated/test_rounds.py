"""Rounds of a federation: averages, refusals, privacy, what is kept. Sites answer as tests say."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("flwr", reason="pip install 'rbs[federate]'")

from federated_sites import Shift
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import SimpleClientManager
from small_cohort import net

from rbs.errors import CheckpointError, RbsError
from rbs.federated.layers import LOCAL, arrays_of, clipped, norm, shared_names
from rbs.federated.network import SiteClient, _Here
from rbs.federated.plan import Order, Plan
from rbs.federated.rounds import FederationServer, Rounds
from rbs.restorers.checkpoint import load_restorer

PLAN = Plan(clients=3, rounds=2, steps=5, minimum=2, wait_s=0)


class Tampered(SiteClient):
    """A client whose answers are changed before they are sent."""

    def __init__(self, site, name, change):
        super().__init__(site, name)
        self.change = change

    def fit(self, ins):
        return self.change(super().fit(ins))


def federated(folder, *clients, plan=PLAN, start=None):
    torch.manual_seed(1)
    rounds = Rounds(plan, start or net(), folder)
    manager = SimpleClientManager()
    for client in clients:
        manager.register(_Here(client))
    server = FederationServer(client_manager=manager, strategy=rounds)
    server.set_max_workers(1)
    server.fit(plan.rounds, None)
    return rounds


def client(name, shift, patients=10):
    return SiteClient(Shift(shift, patients), name)


def weights(rounds):
    return arrays_of(load_restorer(rounds.file).restorer, rounds.names)


def start():
    torch.manual_seed(1)
    return net()


def rows(folder):
    return list(csv.DictReader((folder / "rounds.csv").open()))


def test_weights_are_averaged_by_counts_of_patients(tmp_path):
    a, b = client("A", 0.1, patients=30), client("B", 0.2, patients=10)
    rounds = federated(tmp_path, a, b)
    for after, before in zip(weights(rounds), arrays_of(start(), rounds.names), strict=True):
        np.testing.assert_allclose(after, before + 2 * 0.125, atol=1e-6)
    told = load_restorer(rounds.file).provenance["federated"]
    assert "patients" not in told  # the weights are handed on, the table stays at the server
    assert {row["site"]: row["patients"] for row in rows(tmp_path)} == {"A": "30", "B": "10"}
    assert (told["round"], told["strategy"]["mu"]) == (2, 0.0)
    assert [(row["round"], row["site"], row["refused"]) for row in rows(tmp_path)] == [
        *(("1", "A", ""), ("1", "B", "")),
        *(("2", "A", ""), ("2", "B", "")),
    ]
    assert all(float(row["mb_up"]) > 0 and float(row["loss"]) == 0.5 for row in rows(tmp_path))
    for one in (a, b):  # every site is handed the result of the last round
        for kept, mean in zip(one.site.kept, weights(rounds), strict=True):
            np.testing.assert_array_equal(kept, mean)


def nan(answer):
    arrays = parameters_to_ndarrays(answer.parameters)
    arrays[3].flat[0] = np.nan
    return replaced(answer, parameters=ndarrays_to_parameters(arrays))


def replaced(answer, **changes):
    values = {"status": answer.status, "parameters": answer.parameters}
    values |= {"num_examples": answer.num_examples, "metrics": answer.metrics}
    return FitRes(**values | changes)


def other_shape(answer):
    arrays = parameters_to_ndarrays(answer.parameters)
    arrays[0] = arrays[0][:1]
    return replaced(answer, parameters=ndarrays_to_parameters(arrays))


def other_names(answer):
    return replaced(answer, metrics=answer.metrics | {"layout": "0"})


def no_array(answer):
    answer.parameters.tensors[0] = b"\x93NUMPY nonsense"
    return answer


def fewer(answer):
    del answer.parameters.tensors[-1]
    return answer


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (nan, "it is not finite"),
        (other_shape, "its weights have other shapes or types"),
        (fewer, "its weights have other shapes or types"),
        (no_array, "it cannot be read (ValueError)"),
        (
            lambda a: replaced(a, metrics=a.metrics | {"layout": "0"}),
            "its weights have other names or shapes",
        ),
        (lambda a: replaced(a, metrics=a.metrics | {"loss": "low"}), "it cannot be read (ValueError)"),
        (lambda a: replaced(a, num_examples=0), "0 patients cannot be"),
        (lambda a: replaced(a, num_examples=10**9), "1000000000 patients cannot be"),
        (lambda a: replaced(a, status=Status(Code.FIT_NOT_IMPLEMENTED, "")), "it could not train"),
    ],
)
def test_nonsense_is_refused_and_the_round_goes_on(tmp_path, caplog, change, reason):
    bad = Tampered(Shift(0.3), "bad", change)
    rounds = federated(tmp_path, client("A", 0.1), client("B", 0.1), bad, plan=replace(PLAN, rounds=1))
    for after, before in zip(weights(rounds), arrays_of(start(), rounds.names), strict=True):
        np.testing.assert_allclose(after, before + 0.1, atol=1e-6)
    assert {row["site"]: row["refused"] for row in rows(tmp_path)} == {"A": "", "B": "", "bad": reason}
    assert f"the update of bad is not used: {reason}" in caplog.text


def test_an_update_of_a_hundred_times_the_usual_norm_is_refused(tmp_path):
    rounds = federated(
        tmp_path, client("A", 0.01), client("B", 0.012), client("bad", 1.0), plan=replace(PLAN, rounds=1)
    )
    reasons = {row["site"]: row["refused"] for row in rows(tmp_path)}
    assert reasons == {"A": "", "B": "", "bad": "its norm is 83 times the median of the round"}
    change = weights(rounds)[0] - arrays_of(start(), rounds.names)[0]
    np.testing.assert_allclose(change, 0.011, atol=1e-6)


def test_a_site_that_fails_or_vanishes_does_not_stop_the_others_and_may_come_back(tmp_path, caplog):
    class Moody(Shift):
        def train(self, arrays, order):
            if order.round == 1:
                raise RbsError("P0001 has no scan", file=tmp_path / "P0001" / "scan.dcm")
            return super().train(arrays, order)

    federated(tmp_path, client("A", 0.1), client("B", 0.1), SiteClient(Moody(0.1), "C"))
    assert [row["refused"] for row in rows(tmp_path) if row["site"] == "C"] == ["it could not train", ""]
    vanished = tmp_path / "vanished"

    class Gone(_Here):
        def fit(self, ins, timeout, group_id):
            raise ConnectionError

    rounds = Rounds(replace(PLAN, rounds=1), start(), vanished)
    manager = SimpleClientManager()
    for proxy in (_Here(client("A", 0.1)), _Here(client("B", 0.1)), Gone(client("C", 0.1))):
        manager.register(proxy)
    FederationServer(client_manager=manager, strategy=rounds).fit(1, None)
    assert {r["site"]: r["refused"] for r in rows(vanished)}["C"] == "it vanished or was too late"


def test_rounds_with_too_few_updates_are_repeated_and_end_with_the_reason(tmp_path):
    clients = [client("A", 0.1), *(Tampered(Shift(0.1), name, nan) for name in "BC")]
    with pytest.raises(RbsError, match="3 rounds in a row had too few usable updates"):
        federated(tmp_path, *clients)
    assert not (tmp_path / "restorer.safetensors").exists()
    assert {row["round"] for row in rows(tmp_path)} == {"1"}


def test_a_server_goes_on_after_the_last_round_that_it_wrote(tmp_path):
    once = federated(tmp_path, client("A", 0.1), client("B", 0.1), plan=replace(PLAN, rounds=1))
    first = weights(once)
    a = client("A", 0.1)
    twice = federated(tmp_path, a, client("B", 0.1))
    assert [order.round for order in a.site.orders] == [2]
    np.testing.assert_allclose(weights(twice)[0], first[0] + 0.1, atol=1e-6)
    assert [row["round"] for row in rows(tmp_path)] == ["1", "1", "2", "2"]
    # A federation that is over only hands out its result, and another one is not mixed with it.
    federated(tmp_path, a, client("B", 0.1))
    assert len(a.site.orders) == 1
    with pytest.raises(CheckpointError, match="other settings"):
        federated(tmp_path, a, plan=replace(PLAN, mu=0.1))
    (tmp_path / "rounds.csv").unlink()
    with pytest.raises(CheckpointError, match="table of its rounds is gone"):
        federated(tmp_path, a, client("B", 0.1))


def test_noise_and_clipping_hold_what_epsilon_assumes(tmp_path):
    plan = replace(PLAN, rounds=1, clip=0.5, noise=2.0)
    rounds = federated(tmp_path, client("A", 10.0, patients=90_000), client("B", 8.0), plan=plan)
    change = [
        after - before
        for after, before in zip(weights(rounds), arrays_of(start(), rounds.names), strict=True)
    ]
    flat = np.concatenate([array.ravel() for array in change])
    # Equal weights and a fixed denominator: two updates of the norm 0.5 along one direction, over 3.
    mean = 2 * 0.5 / np.sqrt(len(flat)) / 3
    spread = 2.0 * 0.5 / 3
    assert flat.std() == pytest.approx(spread, rel=0.1)
    assert flat.mean() == pytest.approx(mean, abs=4 * spread / np.sqrt(len(flat)))
    assert load_restorer(rounds.file).provenance["federated"]["epsilon"] > 1
    with pytest.raises(RbsError, match="noise without a norm"):
        Plan(clients=2, rounds=1, steps=1, minimum=1, noise=1.0)


def test_with_noise_no_update_is_refused_for_those_of_others(tmp_path):
    # Its presence would show in who else is refused; clipping bounds it.
    plan = replace(PLAN, rounds=1, clip=0.5, noise=2.0)
    federated(tmp_path, client("A", 0.01), client("B", 0.012), client("far", 1.0), plan=plan)
    assert [row["refused"] for row in rows(tmp_path)] == ["", "", ""]


def test_of_two_updates_none_is_unusual(tmp_path):
    federated(tmp_path, client("A", 1.0), client("B", 0.001), plan=replace(PLAN, rounds=1))
    assert [row["refused"] for row in rows(tmp_path)] == ["", ""]


def test_a_stranger_is_turned_away(tmp_path, caplog):
    known = [SiteClient(Shift(0.1), name, "a key of the federation") for name in "AB"]
    strangers = SiteClient(Shift(5.0), "C", "another"), SiteClient(Shift(5.0), "../x", known[0].key)
    plan = replace(PLAN, rounds=1, key="a key of the federation")
    federated(tmp_path, *known, *strangers, plan=plan)
    assert {row["site"] for row in rows(tmp_path)} == {"A", "B"}
    assert caplog.text.count("turned away") == 2
    assert all(not stranger.site.orders for stranger in strangers)


def test_local_layers_are_normalisations_and_the_first_convolution():
    every, some = shared_names(net()), shared_names(net(), LOCAL)
    kept = set(every) - set(some)
    assert {"backbone.intro.weight", "backbone.intro.bias"} < kept
    rest = kept - {"backbone.intro.weight", "backbone.intro.bias"}
    assert rest
    assert all(".norm1." in name or ".norm2." in name for name in rest)
    assert len(every) == len(net().state_dict())


def test_with_local_layers_the_server_keeps_no_restorer_to_be_used(tmp_path):
    rounds = federated(tmp_path, client("A", 0.1), client("B", 0.1), plan=replace(PLAN, local=LOCAL))
    assert rounds.file.name == "shared.safetensors"
    assert not (tmp_path / "restorer.safetensors").exists()
    with pytest.raises(RbsError, match="name norms or first"):
        replace(PLAN, local=("last",))


def test_clipping_shortens_long_updates_only():
    update = [np.full((2, 2), 3.0, np.float32), np.full(5, 4.0, np.float32)]
    assert norm(clipped(update, 1.0)) == pytest.approx(1.0)
    assert clipped(update, 100.0) is update
    assert clipped(update, None) is update


def test_a_plan_that_cannot_be_is_refused():
    with pytest.raises(RbsError, match="at least 4 of 3 sites"):
        replace(PLAN, minimum=4)
    for wrong in ({"delta": 1.0}, {"noise": math.nan}, {"mu": math.inf}):
        with pytest.raises(RbsError, match="between 0 and 1"):
            replace(PLAN, **wrong)
    assert Order("x", 1, 1, 1).mu == 0

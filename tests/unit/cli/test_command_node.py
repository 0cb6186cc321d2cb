"""`rbs node status|retry|drop|check` and `rbs watch`."""

import json

import pytest
from node_scans import Node, write_scan

from rbs.node.queue import State

BOTH = ("anterior", "posterior")


@pytest.fixture
def node(tmp_path):
    (tmp_path / "node.toml").write_text('spool = "spool"\nport = 0\n[limits]\nreserve_mib = 0\n')
    return Node(tmp_path)


@pytest.fixture
def rbs_node(rbs, tmp_path):
    return lambda *arguments: rbs("node", *arguments, "--settings", tmp_path / "node.toml")


def test_status_counts_and_with_scans_lists(node, rbs_node):
    node.receive("a", views=BOTH)
    node.receive("b", study="1.3", velocity=None, views=BOTH)
    node.work()
    node.queue.failed(1, "it does not answer", due=0)
    node.receive("c", study="1.4")
    status, out, _ = rbs_node("status")
    assert status == 0
    lines = out.splitlines()
    assert {"     1  received", "     1  restored", "     1  refused", "     0  sent"} <= set(lines)
    assert lines[-2].startswith("oldest on its way: ")
    assert lines[-1] == "to pacs: 1 pending, it does not answer"
    _, out, _ = rbs_node("status", "--scans")
    (refused,) = (line for line in out.splitlines() if line.startswith("     2  refused  CAM  "))
    assert "velocity is unknown" in refused
    document = json.loads(rbs_node("status", "--scans", "--json")[1])
    assert document["counts"]["refused"] == 1
    assert [scan["id"] for scan in document["scans"]] == [1, 2, 3]


def test_retry_and_drop(node, rbs_node):
    for name, study in (("a", "1.2"), ("b", "1.3")):
        node.receive(name, study=study, velocity=None, views=BOTH)
    node.receive("c", study="1.4", views=BOTH)
    node.work()
    node.queue.give_up(1, "given up")
    assert rbs_node("retry", 1)[1] == "1: is tried again\n"
    assert rbs_node("retry", 1) == (1, "", "1: there is nothing to try again\n")
    assert rbs_node("drop", 99) == (1, "", "99: there is no such scan\n")
    status, out, _ = rbs_node("retry", "all")
    assert (status, out) == (0, "2: is tried again\n3: is tried again\n")
    assert node.queue.due()
    node.work()
    assert rbs_node("drop", "all")[1] == "1: dropped\n2: dropped\n"
    assert rbs_node("drop", 2) == (1, "", "2: there is no such scan\n")
    assert list(node.spool.refused.iterdir()) == []
    assert [entry.id for entry in node.queue.entries(State.RESTORED)] == [3]
    assert node.spool.received.joinpath(node.queue.get(3).path.name).exists()


def test_check_names_what_fails(node, rbs_node, tmp_path):
    status, out, _ = rbs_node("check")
    assert status == 0
    assert [line.partition(":")[0] for line in out.splitlines()] == ["ok"] * 3
    text = (tmp_path / "node.toml").read_text()
    (tmp_path / "node.toml").write_text(f'checkpoint = "none.onnx"\n{text}')
    status, out, _ = rbs_node("check")
    assert status == 1
    assert out.splitlines()[0].startswith(f"failed: weights {tmp_path / 'none.onnx'}: ")
    (tmp_path / "node.toml").write_text(f"speed = 3\n{text}")
    assert "speed is no setting of a node" in rbs_node("check")[2]


def test_watch_once_restores_what_lies_there_and_tells_what_it_refuses(rbs, tmp_path):
    for number, view in enumerate(BOTH):
        write_scan(tmp_path / "in" / f"{view}.dcm", views=(view,), study="1.2", seed=number)
    write_scan(tmp_path / "in" / "slow.dcm", velocity=None, views=BOTH)
    arguments = ("watch", tmp_path / "in", tmp_path / "out", "--once")
    status, out, err = rbs(*arguments)
    assert status == 1
    assert [line.partition(":")[0] for line in out.splitlines()] == ["anterior.dcm", "posterior.dcm"]
    assert "restored alone" not in out
    assert "1 of 1" not in err
    assert sorted(path.name for path in (tmp_path / "out").glob("*.dcm")) == ["anterior.dcm", "posterior.dcm"]
    assert rbs(*arguments) == (0, "", "")
    status, _, err = rbs("watch", tmp_path, tmp_path)
    assert (status, "choose another folder for them" in err) == (1, True)

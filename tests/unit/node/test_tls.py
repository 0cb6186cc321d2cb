"""Encryption between the node and its peers."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from node_peers import Node, certificates, scan, send, status_of_echo, storage
from servers import until

from rbs.errors import RbsError
from rbs.node.delivery import echo
from rbs.node.settings import Tls
from rbs.node.tls import client_context, server_context

Tables = dict[str, dict[str, Path]]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("certificates")
    ours = certificates(folder / "ours", "node", "camera", "pacs")
    return {**ours, "stranger": certificates(folder / "theirs", "stranger")["stranger"]}


def without_certificate(tables: Tables) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(tables["camera"]["authority"]))


def test_a_sender_with_a_certificate_of_the_authority(tables: Tables, tmp_path: Path) -> None:
    with Node(tmp_path, tls=tables["node"]).receiving() as node:
        context = client_context(Tls(**tables["camera"]))
        (answer,) = send(node.port, scan(tmp_path / "a.dcm"), tls_args=(context, "127.0.0.1"))
        assert answer.Status == 0
        assert len(node.queue.entries()) == 1


def test_senders_without_one_are_turned_away(tables: Tables, tmp_path: Path) -> None:
    with Node(tmp_path, tls=tables["node"], limits={"idle_s": 1}).receiving() as node:
        file = scan(tmp_path / "a.dcm")
        assert send(node.port, file) == []  # no TLS
        assert send(node.port, file, tls_args=(without_certificate(tables), "127.0.0.1")) == []
        foreign = client_context(Tls(**{**tables["stranger"], "authority": tables["node"]["authority"]}))
        assert send(node.port, file, tls_args=(foreign, "127.0.0.1")) == []
        old = without_certificate(tables)
        old.load_cert_chain(tables["camera"]["certificate"], tables["camera"]["key"])
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        assert send(node.port, file, tls_args=(old, "127.0.0.1")) == []
        assert node.queue.entries() == []
        events = until(lambda: len(node.events()) == 4 and node.events())
        assert {(event["event"], event["reason"]) for event in events} == {("association refused", "TLS")}


def test_an_encrypted_sender_at_a_node_without_tls(tables: Tables, tmp_path: Path) -> None:
    with Node(tmp_path).receiving() as node:
        context = client_context(Tls(**tables["camera"]))
        assert send(node.port, scan(tmp_path / "a.dcm"), tls_args=(context, "127.0.0.1")) == []
        assert status_of_echo(node) == 0


def destination(port: int, host: str = "127.0.0.1") -> dict[str, object]:
    return {"name": "pacs", "ae_title": "PACS", "host": host, "port": port, "tls": True}


def test_a_destination_with_tls(tables: Tables, tmp_path: Path) -> None:
    with storage(ssl_context=server_context(Tls(**tables["pacs"]))) as (port, _):
        for host in ("127.0.0.1", "localhost"):
            node = Node(tmp_path, tls=tables["node"], destinations=[destination(port, host)])
            echo(node.settings.destinations[0], node.settings)


@pytest.mark.parametrize("server", ["no tls", "foreign", "another host"])
def test_a_destination_that_cannot_be_trusted(server: str, tables: Tables, tmp_path: Path) -> None:
    contexts = {"no tls": None, "foreign": server_context(Tls(**tables["stranger"]))}
    context = contexts.get(server, server_context(Tls(**tables["pacs"])))
    host = "127.0.0.2" if server == "another host" else "127.0.0.1"  # which the certificate does not name
    with storage(ssl_context=context, host=host) as (port, taken):
        node = Node(tmp_path, tls=tables["node"], destinations=[destination(port, host)])
        with pytest.raises(RbsError, match="cannot be reached"):
            echo(node.settings.destinations[0], node.settings)
        assert taken == []


@pytest.mark.parametrize(
    ("broken", "named", "fault"),
    [
        ({"key": "missing"}, "missing", "No such file"),
        ({"certificate": "missing"}, "missing", "No such file"),
        ({"authority": "missing"}, "missing", "No such file"),
        ({"authority": "empty"}, "empty", "no certificate"),
        ({"key": "other.key"}, "node.pem", "do not belong together"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    broken: dict[str, str], named: str, fault: str, tables: Tables, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "other.key").write_bytes(tables["camera"]["key"].read_bytes())
    table = {**tables["node"], **{kind: tmp_path / name for kind, name in broken.items()}}
    with pytest.raises(RbsError, match=fault) as caught:
        server_context(Tls(**table))
    assert caught.value.file is not None
    assert caught.value.file.name == named

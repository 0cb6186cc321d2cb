"""Server and sites over connections on this machine: late ones, certificates, nothing else."""

import datetime
import ipaddress
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("flwr", reason="pip install 'rbs[federate]'")

from federated_sites import Listener, Shift
from flwr.supercore import telemetry
from servers import free_port
from small_cohort import net

from rbs.errors import RbsError
from rbs.federated.layers import arrays_of
from rbs.federated.network import SiteClient, Tls, join, serve
from rbs.federated.plan import Plan
from rbs.restorers.checkpoint import load_restorer

# gRPC's own thread may meet a channel that Flower has just closed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

PLAN = Plan(clients=2, rounds=2, steps=5, minimum=1, wait_s=20, round_s=30)


@pytest.fixture(autouse=True)
def signals():
    """Flower's server takes the signals of the process."""
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


def joined(*clients, port, **options):
    options = {"authority": None, "wait_s": 10} | options

    def take_part(client):
        with suppress(RbsError):  # some tests leave a site without a server
            join(client, f"127.0.0.1:{port}", **options)

    threads = [threading.Thread(target=take_part, args=(one,), daemon=True) for one in clients]
    for thread in threads:
        thread.start()
    return threads


def served(folder, port, plan=PLAN, tls=None):
    torch.manual_seed(1)
    return serve(plan, net(), folder, f"127.0.0.1:{port}", tls)


def test_only_weights_and_counts_pass_between_site_and_server(tmp_path):
    port = free_port()
    listener = Listener(port)
    clients = [SiteClient(Shift(0.1), name) for name in ("first", "second")]
    for client in clients:
        client.site.secret = "P0001"
    threads = joined(*clients, port=listener.port)
    file = served(tmp_path, port)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()  # the server has said good-bye
    weights = arrays_of(load_restorer(file).restorer, list(net().state_dict()))
    torch.manual_seed(1)
    before = arrays_of(net(), list(net().state_dict()))
    np.testing.assert_allclose(weights[0], before[0] + 0.2, atol=1e-6)
    # Two rounds of two sites, and the result: little beside the numbers themselves.
    size = sum(array.nbytes + 128 for array in before)
    assert 4 * size < len(listener.up) < 4.3 * size
    assert 6 * size < len(listener.down) < 6.4 * size
    for word in (b"first", b"second", b"layout", b"NUMPY"):
        assert word in listener.up
    for word in (b"P0001", str(tmp_path).encode(), b".dcm", b"manifest"):
        assert word not in listener.up
        assert word not in listener.down
    listener.close()


def test_nothing_is_reported_to_the_makers_of_flower():
    assert telemetry.FLWR_TELEMETRY_ENABLED == "0"


def test_a_site_that_is_late_does_not_hold_up_the_round(tmp_path, caplog):
    class Slow(Shift):
        def train(self, arrays, order):
            time.sleep(3.5)
            return super().train(arrays, order)

    port = free_port()
    joined(SiteClient(Shift(0.1), "quick"), SiteClient(Slow(0.1), "slow"), port=port)
    began = time.monotonic()
    served(tmp_path, port, replace(PLAN, rounds=1, round_s=2))
    assert time.monotonic() - began < 30
    assert "the update of slow is not used: it vanished or was too late" in caplog.text


def test_connections_with_certificates_and_none_without(tmp_path):
    tls = certificates(tmp_path)
    port = free_port()
    trusting = SiteClient(Shift(0.1), "trusting")
    doubting = SiteClient(Shift(0.1), "doubting")
    other = certificates(tmp_path / "other")
    threads = joined(trusting, port=port, authority=tls.authority)
    joined(doubting, port=port, authority=other.authority, wait_s=1)
    served(tmp_path / "out", port, replace(PLAN, wait_s=3), tls)
    threads[0].join(20)
    assert len(trusting.site.orders) == 2
    assert doubting.site.orders == []


def certificates(folder):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files = folder / "authority.pem", folder / "server.pem", folder / "server.key"
    for file, content in zip(files, (pem, pem, private), strict=True):
        file.write_bytes(content)
    return Tls(*files)


def test_a_site_that_was_turned_away_is_told(tmp_path):
    port, told = free_port(), []

    def stranger():
        with pytest.raises(RbsError) as error:
            join(SiteClient(Shift(0.1), "stranger", "another"), f"127.0.0.1:{port}", None, 10)
        told.append(str(error.value))

    thread = threading.Thread(target=stranger, daemon=True)
    thread.start()
    joined(SiteClient(Shift(0.1), "known", "a key of the federation"), port=port)
    served(
        tmp_path, port, Plan(clients=2, rounds=1, steps=5, minimum=1, wait_s=3, key="a key of the federation")
    )
    thread.join(20)
    assert "ended the connection without a result; check --key and --name" in told[0]


def test_open_connections_are_for_this_machine_only(tmp_path):
    with pytest.raises(RbsError, match=r"0\.0\.0\.0:9092 is reached from other machines"):
        serve(PLAN, net(), tmp_path, "0.0.0.0:9092")
    for tls, key in ((None, "a key of the federation"), (certificates(tmp_path), "")):
        with pytest.raises(RbsError, match="certificates or a key are missing"):
            serve(replace(PLAN, key=key), net(), tmp_path, "0.0.0.0:9092", tls)
    with pytest.raises(RbsError, match="name PEM files"):
        join(SiteClient(Shift(0), "a"), "127.0.0.1:1", tmp_path / "none.pem", 1)


def test_a_server_that_is_not_there_is_waited_for_and_then_named(tmp_path, caplog):
    port = free_port()
    with pytest.raises(RbsError, match=f"the server 127.0.0.1:{port} cannot be reached"):
        join(SiteClient(Shift(0), "a"), f"127.0.0.1:{port}", None, 3)
    assert caplog.text.count("cannot be reached; it is tried again") == 1


def test_a_port_that_is_taken_is_named(tmp_path):
    listener = Listener(free_port())
    with pytest.raises(RbsError, match=f"cannot listen on 127.0.0.1:{listener.port}"):
        served(tmp_path, listener.port)
    listener.close()

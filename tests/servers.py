"""What tests of servers share: ports that are free, and waiting for what others do."""

from __future__ import annotations

import socket
import socketserver
import time
from collections.abc import Callable
from typing import Any

# Servers of Python and of pynetdicom look twice a second whether they are to end.
socketserver.BaseServer.serve_forever.__defaults__ = (0.02,)


def free_ports(number: int) -> list[int]:
    """TCP ports of this machine that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]


def until(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """The value of a condition once it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return value

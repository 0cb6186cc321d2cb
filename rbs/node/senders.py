"""Senders that are let in: the allow-list, and how much each may send."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import TypeAlias

from rbs.errors import RbsError
from rbs.node.audit import Audit
from rbs.node.settings import Peer

Network: TypeAlias = IPv4Network | IPv6Network
ANYWHERE = ("0.0.0.0/0", "::/0")


class AllowList:
    """AE titles with the addresses they may call from; an empty list lets everybody in.

    Raises:
        RbsError: A host has no address.
    """

    def __init__(self, peers: Iterable[Peer]) -> None:
        self._networks: defaultdict[str, list[Network]] = defaultdict(list)
        for peer in peers:
            for address in peer.addresses or ANYWHERE:
                self._networks[peer.ae_title] += _networks(address)

    def __call__(self, title: str, address: str) -> bool:
        """True for a sender that is let in."""
        return not self._networks or _within(self._networks.get(title, []), address)

    def knows(self, address: str) -> bool:
        """True for an address that some sender may call from."""
        return not self._networks or any(_within(found, address) for found in self._networks.values())


def _networks(address: str) -> list[Network]:
    """A network, or the addresses of a host.

    Raises:
        RbsError: There is no such host.
    """
    try:
        return [ipaddress.ip_network(address)]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(address, None)
    except OSError as error:
        fault = f"the host {address} of the allow-list has no address ({error.strerror})"
        raise RbsError(fault, remedy="correct `addresses`, or give a network") from error
    return [ipaddress.ip_network(entry[4][0]) for entry in found]


def _within(networks: Iterable[Network], address: str) -> bool:
    found = ipaddress.ip_address(address)
    found = getattr(found, "ipv4_mapped", None) or found  # of a socket that takes both versions
    return any(found in network for network in networks)


class Rate:
    """Counts the instances of each sender in the last minute."""

    def __init__(self, per_minute: int) -> None:
        self._most = per_minute
        self._times: defaultdict[str, deque[float]] = defaultdict(deque)
        self._lock = threading.Lock()

    def __call__(self, title: str) -> bool:
        """True if a sender may send one more now."""
        now = time.monotonic()
        with self._lock:
            times = self._times[title]
            while times and times[0] < now - 60:
                times.popleft()
            if len(times) >= self._most:
                return False
            times.append(now)
            return True


class Refusals:
    """Records associations that were refused: so many a minute, and then how many more there were.

    Args:
        audit: Where they are recorded.
        most: Lines a minute.
    """

    def __init__(self, audit: Audit, most: int = 60) -> None:
        self._audit, self._most = audit, most
        self._begun, self._lines, self._more = time.monotonic(), 0, 0
        self._lock = threading.Lock()

    def __call__(self, *, address: str, reason: str, peer: str = "") -> None:
        """Record one, or count it."""
        with self._lock:
            if time.monotonic() > self._begun + 60:
                self._sum_up()
                self._begun, self._lines = time.monotonic(), 0
            self._lines += 1
            if self._lines > self._most:
                self._more += 1
                return
        self._audit.record("association refused", peer=peer, address=address, reason=reason)

    def close(self) -> None:
        """Record the count of those that have no line."""
        with self._lock:
            self._sum_up()

    def _sum_up(self) -> None:
        count, self._more = self._more, 0
        if count:
            self._audit.record("association refused", count=count, reason="too many for a line each")

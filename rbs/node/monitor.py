"""The node observed: health, metrics and a status page, for this machine alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from rbs.errors import RbsError
from rbs.node.queue import Queue
from rbs.node.status import Status
from rbs.utils.version import VERSION

if TYPE_CHECKING:
    from rbs.node.settings import Settings

HOST = "127.0.0.1"
TIMEOUT_S = 10
"""Seconds after which a connection that asks nothing is closed."""


class Monitor:
    """An HTTP server on the loopback: `/health`, `/metrics` and `/`.

    Args:
        settings: Of the node.
        queue: The queue.
        working: False once the process that restores has died and does not come back.
    """

    def __init__(self, settings: Settings, queue: Queue, working: Callable[[], bool]) -> None:
        self._settings, self._queue, self._working = settings, queue, working
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> int:
        """Begin to answer, in a thread.

        Returns:
            The port.

        Raises:
            RbsError: The port is taken.
        """
        handler = type("Handler", (_Handler,), {"monitor": self})
        port = self._settings.monitor_port or 0
        try:
            self._server = ThreadingHTTPServer((HOST, port), handler)
        except OSError as error:
            fault = f"port {port} of the status page cannot be used ({error.strerror})"
            raise RbsError(fault, remedy="choose another monitor_port") from error
        threading.Thread(target=self._server.serve_forever, name="monitor", daemon=True).start()
        return self._server.server_address[1]

    def stop(self) -> None:
        """Answer no longer."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    def status(self) -> tuple[Status | None, list[str]]:
        """The state, None where it cannot be read, and the reasons to look at it."""
        dead = [] if self._working() else ["the process that restores has stopped"]
        try:
            status = Status.of(self._queue)
            return status, dead + status.problems(self._settings)
        except (RbsError, OSError) as error:
            return None, [*dead, f"the queue cannot be read ({type(error).__name__})"]

    def health(self) -> tuple[HTTPStatus, str]:
        """The answer to `/health`: 200, or 503 where a person has to look, with the reasons."""
        status, problems = self.status()
        told: dict[str, Any] = {"healthy": not problems, "problems": problems, "version": VERSION}
        if status:
            told |= {"scans": status.counts, "oldest_undelivered_s": round(status.waited_s)}
        return HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK, json.dumps(told)

    def page(self) -> tuple[HTTPStatus, str]:
        """The answer to `/`."""
        status, problems = self.status()
        if status is None:
            return HTTPStatus.SERVICE_UNAVAILABLE, "; ".join(problems)
        return HTTPStatus.OK, status.page(problems)

    def metrics(self) -> tuple[HTTPStatus, str]:
        """The answer to `/metrics`."""
        return HTTPStatus.OK, generate_latest(self._registry).decode()

    def collect(self) -> Iterator[Metric]:
        """The metrics, read from the queue."""
        status, problems = self.status()
        yield _gauge("rbs_healthy", "1 if no person has to look", {(): not problems})
        if status is None:
            return
        scans = {(str(state),): float(number) for state, number in status.counts.items()}
        yield _gauge("rbs_scans", "Scans in the queue", scans, "state")
        ways = {way: float(number) for way, number in status.destinations().items()}
        yield _gauge("rbs_deliveries", "Files for a destination", ways, "destination", "state")
        yield _gauge("rbs_spool_bytes", "Bytes of the scans in the spool", {(): status.size})
        waited = "Age of the oldest scan that is not sent yet"
        yield _gauge("rbs_oldest_undelivered_seconds", waited, {(): status.waited_s})
        if len(status.seconds) > 1:
            cuts = quantiles(status.seconds, n=20, method="inclusive")
            shown = {("0.5",): cuts[9], ("0.95",): cuts[18]}
            yield _gauge("rbs_restoring_seconds", "Time to restore a scan, of those kept", shown, "quantile")


def _gauge(name: str, meaning: str, values: Mapping[Any, float], *labels: str) -> Metric:
    """A metric with its values by those of its labels."""
    metric = GaugeMetricFamily(name, meaning, labels=labels)
    for own, value in values.items():
        metric.add_metric(own, value)
    return metric


class _Handler(BaseHTTPRequestHandler):
    monitor: Monitor
    timeout = TIMEOUT_S
    server_version, sys_version = "rbs", ""

    def do_GET(self) -> None:
        """Answer."""
        answers = {
            "/": (self.monitor.page, "text/html"),
            "/health": (self.monitor.health, "application/json"),
            "/metrics": (self.monitor.metrics, "text/plain; version=0.0.4"),
        }
        # A page of elsewhere that calls this machine by a name of its own must not read this one.
        if (self.headers.get("Host") or HOST).rsplit(":", 1)[0] not in (HOST, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path not in answers:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            answer, kind = answers[self.path]
            code, text = answer()
            content = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
            with suppress(ConnectionError):  # who asked may have gone
                self.end_headers()
                self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Log no requests."""

"""A node whole in one process, with a filter in the place of a network; it may be killed."""

from __future__ import annotations

import threading
from pathlib import Path

from node_peers import Node
from node_scans import Filter

from rbs.clinic.restore_scans import ScanRestorer
from rbs.node import worker
from rbs.node.delivery import Sender
from rbs.node.worker import Worker


def serve(folder: Path, port: int, to: int) -> None:
    """Receive at a port, restore, and send to another one until this process is killed."""
    worker.PAUSE_S = 0.2
    node = Node(
        folder,
        port=port,
        wait_s=5,
        limits={"per_minute": 100_000},
        retries={"first_s": 0.1, "longest_s": 0.3},
        destinations=[{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": to}],
    )
    stop = threading.Event()
    threading.Thread(target=Sender(node.settings, node.queue, node.audit).run, args=(stop,)).start()
    restorer = ScanRestorer(Filter(), None)
    with node.receiving():
        Worker(node.settings, node.queue, node.spool, restorer, node.audit, ["pacs"]).run(stop)

"""Sites that answer as tests say, and what passes between them and a server."""

import contextlib
import socket
import threading

import numpy as np

from rbs.federated.site import Answer


class Shift:
    """A site whose training adds a number to every weight."""

    file = "restorer.safetensors"

    def __init__(self, shift, patients=10):
        self.shift, self.patients, self.orders, self.kept = shift, patients, [], None

    def train(self, arrays, order):
        self.orders.append(order)
        return Answer([array + np.float32(self.shift) for array in arrays], self.patients, order.steps, 0.5)

    def take(self, arrays, order):
        self.kept = arrays

    def keep(self, order):
        pass


class Listener:
    """Passes connections on to a server, and keeps all bytes."""

    def __init__(self, port):
        self.target, self.up, self.down = port, bytearray(), bytearray()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.socket.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:  # no server yet
                near.close()
                continue
            for source, sink, kept in ((near, far, self.up), (far, near, self.down)):
                threading.Thread(target=_pass_on, args=(source, sink, kept), daemon=True).start()

    def close(self):
        self.socket.close()


def _pass_on(source, sink, kept):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            kept += data
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)

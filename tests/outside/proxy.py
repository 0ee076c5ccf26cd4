"""A TCP proxy that cuts links: at will, or when a connection has carried a number of bytes drawn from a seeded source."""

import selectors
import socket
import struct
import threading


class Proxy:
    """Listens on a free loopback port and forwards to `target`.

    `budget()` is asked once for each connection: how many bytes it carries towards the server before both sides are
    reset, wherever that falls in a packet; None never cuts.
    """

    def __init__(self, target, budget=lambda: None):
        self.target = target
        self.budget = budget
        self.cuts = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.links = set()
        self.lock = threading.Lock()
        self.closed = False

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closed = True
        self.listener.close()
        self.cut()

    def cut(self):
        """Resets every link now."""
        with self.lock:
            links = list(self.links)
        for near, far in links:
            self._reset(near, far)

    def _accept(self):
        while not self.closed:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.target, timeout=5)
            except OSError:          # the server is down: the client sees a refused link
                reset(near)
                continue
            with self.lock:
                self.links.add((near, far))
            threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near, far):
        left = self.budget()
        try:
            with selectors.DefaultSelector() as ready:
                ready.register(near, selectors.EVENT_READ, far)
                ready.register(far, selectors.EVENT_READ, near)
                while True:
                    for key, _ in ready.select(0.5):
                        data = key.fileobj.recv(65536)
                        if not data:
                            return
                        if key.fileobj is near and left is not None:
                            data, left = data[:left], left - len(data)
                        key.data.sendall(data)
                        if left is not None and left <= 0:
                            return
        except (OSError, ValueError):
            return
        finally:
            self._reset(near, far)

    def _reset(self, near, far):
        with self.lock:
            if (near, far) not in self.links:
                return
            self.links.discard((near, far))
            self.cuts += 1
        reset(near)
        reset(far)


def reset(connection):
    """Closes with RST, so that nothing in flight is delivered politely."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()

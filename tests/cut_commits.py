"""A TCP proxy in front of PostgreSQL that cuts the connection at the next COMMIT."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from selectors import EVENT_READ, DefaultSelector

from sqlalchemy import make_url

COMMIT = b"COMMIT\0"
LATE_S = 0.2


class Proxy:
    """Forwards everything, until told what to do at the next COMMIT."""

    def __init__(self, url: str) -> None:
        self._server = make_url(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = self._server.set(host="127.0.0.1", port=port).render_as_string(
            hide_password=False
        )
        self._cut: str | None = None
        self._spared = 0
        self.cuts = 0
        self.refuse = False  # new connections
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, how: str, *, spared: int = 0) -> None:
        """At the next COMMIT after some that are spared, lose what `how` says.

        The `reply`, or the `commit` itself. Or it comes `late`: the client has lost its connection
        0.2 s before the server is told to commit. With `frozen`, the server never is, but learns as
        much later that the client is gone.
        """
        self._cut, self._spared = how, spared

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuse:
                client.close()
                continue
            threading.Thread(target=self._forward, args=[client], daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        server = socket.create_connection((self._server.host, self._server.port))
        other = {client: server, server: client}
        with client, server, DefaultSelector() as ready:
            for each in other:
                ready.register(each, EVENT_READ)
            try:
                while True:
                    for key, _ in ready.select():
                        source = key.fileobj
                        data = source.recv(65536)
                        if not data:
                            return
                        if source is client and COMMIT in data and (how := self._next_cut()):
                            self._lose(how, data, client, server)
                            return
                        other[source].sendall(data)
            except OSError:
                return

    def _next_cut(self) -> str | None:
        if self._cut and self._spared:
            self._spared -= 1
            return None
        how, self._cut = self._cut, None
        return how

    def _lose(self, how: str, data: bytes, client: socket.socket, server: socket.socket) -> None:
        self.cuts += 1
        if how in {"late", "frozen"}:
            client.shutdown(socket.SHUT_RDWR)
            time.sleep(LATE_S)
        if how in {"reply", "late"}:
            server.sendall(data)
            server.recv(65536)  # the server has answered: it is done there


@contextmanager
def proxy_to(url: str) -> Iterator[Proxy]:
    """A proxy to the server of this URL."""
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.close()

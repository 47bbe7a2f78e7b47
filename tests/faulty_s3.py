"""An S3 server that fails on purpose: a proxy that misbehaves before a real one."""

import http.client
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ERRORS = {
    403: b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>",
    500: b"<Error><Code>InternalError</Code><Message>oops</Message></Error>",
    503: b"<Error><Code>SlowDown</Code><Message>less</Message></Error>",
}


class Handler(BaseHTTPRequestHandler):
    """Answers one request, with or without a fault.

    A fault is an HTTP status to answer with, or one of `reset` (after the server has done it),
    `cut` (half of the body, then a closed connection), `flipped` (a wrong byte) and `slow`.
    """

    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        """Forward the request unless it has a fault."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.headers.get("Range")))
        fault = self._fault()
        if fault is not None:
            self.server.injected += 1
        if isinstance(fault, int):
            self._answer(fault, ERRORS.get(fault, b""), {})
            return
        if fault == "slow":
            time.sleep(self.server.slow_s)
        connection = http.client.HTTPConnection(self.server.target)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        self._forward(answer, answer.read(), fault)
        connection.close()

    def __getattr__(self, name: str) -> object:
        if name.startswith("do_"):
            return self.handle_any
        raise AttributeError(name)

    def log_message(self, *words: object) -> None:
        """Quiet."""

    def _fault(self) -> object:
        faults = self.server.faults
        if faults and faults[0][0] == self.command:
            return faults.popleft()[1]
        return self.server.always.get(self.command, self.server.always.get("*"))

    def _forward(self, answer: http.client.HTTPResponse, body: bytes, fault: object) -> None:
        if fault == "reset":  # after the server has done it
            self.close_connection = True
            return
        if fault == "flipped" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        self._answer(answer.status, body, dict(answer.getheaders()), cut=fault == "cut")

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False
    ) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length", str(len(body)))
        for name, value in (headers | {"Content-Length": length}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut


class FaultyS3(ThreadingHTTPServer):
    """Forwards requests to `target`, but for those that have a fault.

    Each fault queued in `faults` spoils the next request of its method; one in `always` spoils
    every request of a method, or of any (`*`), as long as it is there.
    """

    daemon_threads = True

    def __init__(self, target: str, handler: type[Handler] = Handler) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.target = urlsplit(target).netloc
        self.faults: deque[tuple[str, object]] = deque()
        self.always: dict[str, object] = {}
        self.slow_s = 1.0
        self.injected = 0
        self.seen: list[tuple[str, str | None]] = []  # method and range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that has left is no error here."""


@contextmanager
def faulty_s3(target: str, handler: type[Handler] = Handler) -> Iterator[FaultyS3]:
    """Such a server before the one at `target`."""
    server = FaultyS3(target, handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

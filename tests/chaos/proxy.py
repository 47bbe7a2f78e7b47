"""A TCP proxy between two parts, which delays, drops, resets and cuts what passes.

It runs in a thread with an event loop of its own. Faults are attributes, read as bytes pass, so
that a test may change them while connections are open.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

CHUNK = 1 << 16
NOW = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset
WAIT_S = 30.0
COMMIT, ROLLBACK = b"COMMIT\0", b"ROLLBACK\0"  # as PostgreSQL's clients say it


class Proxy:
    """Forwards connections on a port of 127.0.0.1 to a TCP address or a socket file."""

    def __init__(self, host: str | None = None, port: int = 0, *, path: str | None = None) -> None:
        self._target = (host, port, path)
        self.delay_s = 0.0  # before each piece of bytes, in both directions
        self.half_open = False  # connections stay, and no byte passes
        self.refusing = False  # new connections are reset
        self.cut_after: int | None = None  # bytes of replies, after which a connection is reset
        self.lost_reply_to: bytes | None = None  # a request that passes, and whose reply does not
        self.lost_reply_after: bytes | None = None  # the reply to COMMIT in a transaction with this
        self.skipped = 0  # such transactions that pass before
        self.losses = 0  # replies that were lost; each ends the two above
        self.passed = 0  # bytes of replies
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self.port = 0

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        self._server = self._call(self._listen())
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Reset every connection and end."""
        self.refusing = True
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def reset(self) -> int:
        """Reset every connection that is open; return how many there were."""
        return self._call(self._reset())

    def lead_to(self, port: int) -> int:
        """Lead new connections to another port of this machine; reset those that are open."""
        self._target = ("127.0.0.1", port, None)
        return self.reset()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._forward, "127.0.0.1", 0, limit=CHUNK)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._reset()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _reset(self) -> int:
        writers, self._open = self._open, set()
        for writer in writers:
            abort(writer)
        return len(writers) // 2

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            abort(writer)
            return
        try:
            from_server, to_server = await self._connect()
        except OSError:
            abort(writer)
            return
        pair = _Pair(writer, to_server)
        self._open |= {writer, to_server}
        requests = asyncio.create_task(self._requests(reader, pair))
        try:
            await self._replies(from_server, pair)
            writer.close()  # after what is still on its way
            await writer.wait_closed()
        except (OSError, asyncio.CancelledError):
            abort(writer)
        finally:
            requests.cancel()
            self._open -= {writer, to_server}
            abort(to_server)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port, path = self._target
        if path is not None:
            return await asyncio.open_unix_connection(path)
        return await asyncio.open_connection(host, port)

    async def _requests(self, reader: asyncio.StreamReader, pair: "_Pair") -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._pause()
                self._look_at(data, pair)
                pair.server.write(data)
                await pair.server.drain()
            pair.server.write_eof()

    def _look_at(self, data: bytes, pair: "_Pair") -> None:
        """Decide whether the reply to this request is going to be lost."""
        if self.lost_reply_to is not None and self.lost_reply_to in data:
            self.lost_reply_to, pair.loses = None, True
        if self.lost_reply_after is None:
            return
        pair.said = (pair.said or self.lost_reply_after in data) and ROLLBACK not in data
        if pair.said and COMMIT in data:
            pair.said, self.skipped = False, self.skipped - 1
            if self.skipped < 0:
                self.lost_reply_after, pair.loses = None, True

    async def _replies(self, reader: asyncio.StreamReader, pair: "_Pair") -> None:
        sent = 0
        while data := await reader.read(CHUNK):
            await self._pause()
            if pair.loses:  # the server has done it, and nobody hears of it
                self.losses += 1
                raise ConnectionResetError
            limit = self.cut_after
            if limit is not None and sent + len(data) > limit:
                pair.client.write(data[: max(0, limit - sent)])
                await pair.client.drain()
                raise ConnectionResetError
            sent += len(data)
            self.passed += len(data)
            pair.client.write(data)
            await pair.client.drain()

    async def _pause(self) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        while self.half_open:
            await asyncio.sleep(0.02)


class _Pair:
    """The two ends of a connection."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self.server = client, server
        self.loses = False
        self.said = False


def abort(writer: asyncio.StreamWriter) -> None:
    """Close a connection by a reset, whatever waits to be sent."""
    with contextlib.suppress(OSError, AttributeError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NOW)
    writer.transport.abort()


@contextmanager
def proxied(url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy before the server of a URL, and the URL of the same service through it."""
    parts = urlsplit(url)
    proxy = Proxy(parts.hostname, int(parts.port or 0))
    proxy.start()
    login = parts.netloc.rpartition("@")[0]
    place = f"{login}@127.0.0.1:{proxy.port}" if login else f"127.0.0.1:{proxy.port}"
    try:
        yield proxy, parts._replace(netloc=place).geturl()
    finally:
        proxy.stop()

"""The bytes of an object in a bucket, read on when a connection breaks."""

import io
import time
from collections.abc import Callable
from typing import Any

from db.errors import Unreachable

READ_TRIES = 5  # fruitless requests in a row for the rest of a broken stream
_SKIPPED_AT_ONCE = 1 << 20  # bytes


class ResumedStream(io.RawIOBase):
    """An object's bytes from `start`. If the connection breaks, `get` requests the rest."""

    def __init__(self, get: Callable[[int], Any], start: int) -> None:
        self._get = get
        self._at = start
        self._tries = 0
        self._body: Any = None  # for `close`, should `get` raise
        self._body = get(start)

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes; `Unreachable` after `READ_TRIES` fruitless requests in a row."""
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - as in s3.new_client

        while self._body is not None:
            try:
                data = self._body.read(len(buffer))
            except BotoCoreError as error:
                self._tries += 1
                if self._tries >= READ_TRIES:
                    raise Unreachable(
                        f"object store: reading failed {READ_TRIES} times in a row: {error}"
                    ) from error
                self._body.close()
                time.sleep(0.1 * 2**self._tries)
                self._body = self._get(self._at)
                continue
            buffer[: len(data)] = data
            self._at += len(data)
            self._tries = 0
            return len(data)
        return 0

    def close(self) -> None:
        """Close the stream and its connection's body."""
        if self._body is not None:
            self._body.close()
        super().close()


class CutBody:
    """Bytes `start` to `stop` of the body of a whole object, from a server without ranged reads."""

    def __init__(self, body: Any, start: int, stop: int | None) -> None:
        self._body = body
        self._left = None if stop is None else stop - start
        while start > 0 and (skipped := len(body.read(min(start, _SKIPPED_AT_ONCE)))):
            start -= skipped

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""
        data: bytes = self._body.read(size if self._left is None else min(size, self._left))
        if self._left is not None:
            self._left -= len(data)
        return data

    def close(self) -> None:
        """Close the connection's body."""
        self._body.close()

"""What a target shows of all its items, read again while items are compared with it."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

SHARE = 10  # how many times as long as reading it takes, it is used

T = TypeVar("T")


class Renewed(Generic[T]):
    """Something that threads share, read again once it is old; that takes a tenth of the time.

    `read` is given what it returned the last time, which it may return again.
    """

    def __init__(self, read: Callable[[T | None], T]) -> None:
        self._read = read
        self._found: T | None = None
        self._until = 0.0
        self._reading = threading.Lock()

    def get(self) -> T:
        """What was read; others wait meanwhile."""
        with self._reading:
            began = time.monotonic()
            if self._found is None or began > self._until:
                self._found = self._read(self._found)
                ended = time.monotonic()
                self._until = ended + SHARE * (ended - began)
            return self._found

"""Watched threads: whoever started one can tell a thread that works from one that hangs.

A thread that hangs cannot be ended, only its process: whoever started that starts it again.
"""

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Generic, NoReturn, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


class Watched(threading.Thread, Generic[T]):
    """Runs `act` in a thread of its own that does not keep its process from ending.

    `silent_s` is the time since it began or last called `pulse`.
    """

    def __init__(self, name: str, act: Callable[[], T]) -> None:
        super().__init__(name=name, daemon=True)
        self._act = act
        self._results: list[T] = []
        self._error: BaseException | None = None
        self.pulsed_at = time.monotonic()

    def run(self) -> None:
        """Run `act`, and keep what it returns or raises."""
        try:
            self._results.append(self._act())
        except BaseException as error:  # raised again by `outcome`
            self._error = error

    @property
    def silent_s(self) -> float:
        """For how long it has not got on; 0 once it has ended."""
        return time.monotonic() - self.pulsed_at if self.is_alive() else 0.0

    def outcome(self) -> T:
        """What `act` returned, once the thread has ended. Raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._results[0]


def pulse() -> None:
    """Say that this thread gets on, if it is watched."""
    thread = threading.current_thread()
    if isinstance(thread, Watched):
        thread.pulsed_at = time.monotonic()


def end_process(reason: str, *, stuck: threading.Thread | None = None) -> NoReturn:
    """End this process at once, to be started again; the log says why, and where `stuck` is."""
    log.error("%s: the process ends, to be started again%s", reason, _place(stuck))
    os._exit(os.EX_TEMPFAIL)


def _place(thread: threading.Thread | None) -> str:
    frame = sys._current_frames().get(thread.ident or 0) if thread else None
    return f"\n{''.join(traceback.format_stack(frame))}" if frame else ""

"""Isolation: what fails, in whatever way, is told and does not stop what comes after it."""

import time
import traceback
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TypeVar

from db.errors import GenmillError
from worker.watched import pulse

T = TypeVar("T")

MEANT = (KeyboardInterrupt, SystemExit, GeneratorExit)  # these end a process or a block on purpose
MAX_TEXT = 500  # characters
FIRST_PAUSE_S, LAST_PAUSE_S = 5.0, 600.0
PATIENCE_S = 10.0


class Isolated:
    """A `with` block that ends at any error, keeps it as `error`, and goes on after the block.

    That includes what is no `Exception`, as the panics of native libraries, but not what is meant
    to end the process. A watched thread that comes to such a block gets on.
    """

    error: BaseException | None = None

    def __enter__(self) -> "Isolated":
        pulse()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if isinstance(error, MEANT):
            return False
        self.error = error
        return True


def described(error: BaseException) -> str:
    """An error in a line, for records and logs; one that is not Genmill's begins with its type."""
    if isinstance(error, GenmillError):
        text = str(error)
    else:
        text = traceback.format_exception_only(error)[0]
    return (text.strip().splitlines() or [type(error).__name__])[0][:MAX_TEXT]


def each(
    items: Iterable[str], act: Callable[[str], object], *, patience_s: float = PATIENCE_S
) -> dict[str, BaseException]:
    """`act` on each item, whatever becomes of the others; return the errors of those that failed.

    Once one has failed, the rest is left for another time after `patience_s`: a service that is
    away may keep each of them waiting.
    """
    failed: dict[str, BaseException] = {}
    deadline = time.monotonic() + patience_s
    for item in items:
        with Isolated() as attempt:
            act(item)
        if attempt.error is not None:
            failed[item] = attempt.error
        if failed and time.monotonic() > deadline:
            break
    return failed


class Survivor:
    """Keeps a loop of one process alive, and tells of what fails: at once, then ever less often."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._told: dict[str, tuple[str, float, float]] = {}  # the error, the pause, its end

    def survive(self, what: str, act: Callable[[], T]) -> T | None:
        """The result of `act`, or None if it fails in any way."""
        with Isolated() as attempt:
            result = act()
            self._told.pop(what, None)
            return result
        if attempt.error is not None:
            self._note(what, described(attempt.error))
        return None

    def _note(self, what: str, error: str) -> None:
        last, pause_s, until = self._told.get(what, ("", 0.0, 0.0))
        now = time.monotonic()
        if error == last and now < until:
            return
        pause_s = min(LAST_PAUSE_S, 2 * pause_s) if error == last else FIRST_PAUSE_S
        self._told[what] = (error, pause_s, now + pause_s)
        with Isolated():  # as of a terminal that was closed
            self._tell(f"{what} failed: {error}")

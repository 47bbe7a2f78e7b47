"""What was stored is also said: its id is handed out before anything else can go wrong.

An id goes to `OnStored` right after its commit, and an interrupt waits for that.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from sqlalchemy.orm import Session

from db.errors import Unreachable
from worker.services import Services

T = TypeVar("T")

OnStored = Callable[[str], None]  # gets the id of a job or a batch

HELD_BACK = (signal.SIGINT, signal.SIGTERM)


def say_nothing(reference: str) -> None:
    """Hand the id to nobody: the caller gets the row."""


@contextmanager
def undivided() -> Iterator[None]:
    """Hold an interrupt back until the end of the block; a second one is obeyed at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals interrupt the main thread alone
        return
    found = {int(number): signal.getsignal(number) for number in HELD_BACK}
    before = {number: it for number, it in found.items() if it not in {None, signal.SIG_IGN}}
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)
        if len(held) > 1:
            signal.signal(number, before[number])
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        signal.raise_signal(held[0])


def store_or_find(
    services: Services,
    store: Callable[[Session], T],
    find: Callable[[Session], T | None],
    *,
    noun: str,
    reference: str,
) -> T:
    """Store in a transaction; if the database went away meanwhile, look whether it is there.

    Raises `Unreachable`, which names the id if that cannot be seen.
    """
    try:
        return services.database.transact(store)
    except Unreachable as lost:
        try:
            with services.database.read() as session:
                found = find(session)
        except Unreachable:
            raise Unreachable(
                f"{lost.message}; whether {noun} {reference} was stored is not known",
                remedy=f"once the database answers, see `genmill job wait {reference}` before you "
                "submit it again",
            ) from lost
        if found is None:
            raise
        return found

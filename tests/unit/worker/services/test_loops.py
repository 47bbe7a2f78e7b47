"""Passes over items in several threads of one process."""

import threading
from contextlib import contextmanager
from types import SimpleNamespace

from worker.services.loops import Loop


class Database:
    """One without setbacks, which answers once it is told to."""

    def __init__(self) -> None:
        self.asked, self.answers = threading.Event(), threading.Event()

    @contextmanager
    def read(self):
        self.asked.set()
        self.answers.wait()
        yield SimpleNamespace(scalars=lambda _: [])


def look(database: Database) -> threading.Thread:
    """Look up what is paused, in another thread."""
    loop = Loop(SimpleNamespace(database=database), "a pass")
    thread = threading.Thread(target=lambda: loop.paused, daemon=True)
    thread.start()
    return thread


def test_no_pass_waits_for_the_database_of_another() -> None:
    slow, quick = Database(), Database()
    quick.answers.set()
    waiting = look(slow)
    slow.asked.wait()
    other = look(quick)
    other.join(timeout=30)
    assert not other.is_alive()
    slow.answers.set()
    waiting.join()

"""Long output on a terminal goes through a pager, as that of `git` and `gh` does."""

import io
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from db.errors import GenmillError
from worker.environment import default_pager, pager_environment

_NONE = "cat"  # as a pager: none


class _Screen(io.StringIO):
    """Takes what is printed for a terminal; whoever prints takes it for one."""

    def isatty(self) -> bool:
        return True


@contextmanager
def paged() -> Iterator[None]:
    """Page through what the block prints, if it goes to a terminal and is longer than that.

    GENMILL_PAGER, or else PAGER, is the program; `cat` means none.
    """
    terminal = sys.stdout
    if not terminal.isatty():
        yield
        return
    screen = _Screen()
    sys.stdout = screen
    try:
        yield
    finally:
        sys.stdout = terminal
        _show(screen.getvalue())


def _show(text: str) -> None:
    long = text.count("\n") >= shutil.get_terminal_size().lines
    if not (long and (command := _command()) and _page(text, command)):
        sys.stdout.write(text)
        sys.stdout.flush()


def _command() -> list[str]:
    """The pager with its arguments; empty for none."""
    from worker.settings import read_settings  # noqa: PLC0415 - slow, and few outputs are long

    chosen = None
    with suppress(GenmillError):  # what the command needed was read; a pager is no reason to fail
        chosen = read_settings().pager
    with suppress(ValueError):  # a quotation mark that is not closed
        words = shlex.split(default_pager() if chosen is None else chosen)
        return [] if words[:1] == [_NONE] else words
    return []


def _page(text: str, command: list[str]) -> bool:
    """Show `text` with the pager; False if that cannot be run."""
    try:
        pager = subprocess.Popen(  # noqa: S603 - the user's own choice
            command, stdin=subprocess.PIPE, env=pager_environment(), text=True, errors="replace"
        )
    except OSError:
        return False
    with suppress(BrokenPipeError, KeyboardInterrupt):  # it was left before the end
        pager.communicate(text)
    while pager.poll() is None:
        with suppress(KeyboardInterrupt):  # which is for the pager: its search, for instance
            pager.wait()
    return True

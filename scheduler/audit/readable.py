"""Rows that are read although somebody has edited one of them so that it cannot be."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from db.errors import BadRecord
from scheduler.audit.violations import Violation, Violations

K = TypeVar("K")
T = TypeVar("T")


def readable(
    read: Callable[[Sequence[K]], T], keys: Sequence[K]
) -> Iterator[tuple[Sequence[K], T | BadRecord]]:
    """What `read` returns of rows by their keys, all at once; of an edited one, why it cannot."""
    found: T | BadRecord
    try:
        found = read(keys)
    except BadRecord as error:
        if len(keys) > 1:
            middle = len(keys) // 2
            yield from readable(read, keys[:middle])
            yield from readable(read, keys[middle:])
            return
        found = error
    yield keys, found


def as_far_as_readable(check: Violations) -> Violations:
    """The violations of a check; one of them is that it met a row that it cannot read."""
    try:
        yield from check
    except BadRecord as error:
        yield Violation(f"{error.message}, and what comes after that was not checked")

"""Marks: what a sample carries about itself, so that strangers can tell what it is and whence.

One file a mark, with one contract: `worker.marks.base.Mark`. Every module here that is not among
`OTHERS` is the mark of its name, so a new mark is a new file. `profiles` names the marks that go
together, `apply` applies them and reads them back. Knows no queue, database or store; no torch,
because the scheduler reads marks too.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from db.errors import Refused

if TYPE_CHECKING:
    from worker.marks.base import Mark

OTHERS = frozenset({"base", "tagged", "profiles", "apply"})  # modules that are no marks
MARKS = tuple(
    sorted(
        module.name
        for module in pkgutil.iter_modules(__path__)
        if not module.ispkg and module.name not in OTHERS
    )
)


def find_mark(name: str) -> "Mark":
    """The mark called `name`; `Refused` if there is none."""
    if name not in MARKS:
        raise Refused.unknown("mark", name, MARKS)
    mark: Mark = importlib.import_module(f"{__name__}.{name}").MARK
    return mark


def all_marks() -> "Iterator[Mark]":
    """Every mark, by name."""
    yield from map(find_mark, MARKS)

"""Lists from a record with damaged rows: what can be read of it, and which rows cannot."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from db.errors import BadRecord, GenmillError, Unreachable

AT_ONCE = 1000  # rows that a statement names; PostgreSQL takes 65,535 parameters
SHOWN = 20  # names of rows that cannot be read for one reason

T = TypeVar("T")
Make = Callable[[Sequence[Any]], list[T]]


class Unreadable(NamedTuple):
    """A row that cannot be read: what it is called, and why."""

    name: str
    error: GenmillError


def read_each(
    session: Session,
    statement: Select[*tuple[Any, ...]],
    make: Make[T],
    *,
    called: InstrumentedAttribute[str] | None = None,
) -> tuple[list[T], list[Unreadable]]:
    """What `make` makes of the rows of a statement, and the rows of which it cannot be made.

    The statement selects an entity with an `id`, alone or before others. `make` gets rows in the
    order of the statement, and may read what belongs to them. Where a row or what belongs to it is
    damaged, it is found by halving. `called` is the column with its name, by default its id. Raises
    `Unreachable`.
    """
    try:
        return make(session.execute(statement).all()), []
    except Unreachable:
        raise
    except GenmillError:
        key = statement.column_descriptions[0]["entity"].id
    ids = session.scalars(statement.with_only_columns(key)).all()
    found, bad = list[T](), list[tuple[str, GenmillError]]()
    for first in range(0, len(ids), AT_ONCE):
        some = ids[first : first + AT_ONCE]
        read, unread = _read_some(session, statement, make, key, some)
        found += read
        bad += unread
    named = ((_name(session, called or key, key == row_id) or row_id, why) for row_id, why in bad)
    return found, [Unreadable(*each) for each in named]


def _read_some(
    session: Session,
    statement: Select[*tuple[Any, ...]],
    make: Make[T],
    key: InstrumentedAttribute[str],
    ids: Sequence[str],
) -> tuple[list[T], list[tuple[str, GenmillError]]]:
    if not ids:
        return [], []
    try:
        rows = session.execute(statement.where(key.in_(ids))).all()
        if not rows:
            raise BadRecord("its id is none", remedy="restore a backup")
        return make(rows), []
    except Unreachable:
        raise
    except GenmillError as error:
        if len(ids) == 1:
            return [], [(ids[0], error)]
    middle = len(ids) // 2
    halves = (ids[:middle], ids[middle:])
    first, second = (_read_some(session, statement, make, key, some) for some in halves)
    return first[0] + second[0], first[1] + second[1]


def _name(session: Session, called: InstrumentedAttribute[str], condition: Any) -> str | None:
    with suppress(BadRecord):
        return session.scalar(select(called).where(condition))
    return None


def one_of(value: str, known: Collection[str], noun: str) -> str:
    """The value. Raises `BadRecord` if it is none of those that Genmill writes there."""
    if value not in known:
        raise BadRecord(
            f"the record holds {value[:40]!r} where {noun} belongs",
            remedy="it was damaged or edited: restore a backup",
        )
    return value


def refuse_unreadable(noun: str, rows: Sequence[Unreadable]) -> None:
    """Raise `BadRecord` that names the rows that could not be read, if there are any.

    Each reason is told once, with the first rows that it holds for.
    """
    if not rows:
        return
    names = defaultdict[str, list[str]](list)
    for each in rows:
        names[each.error.message].append(each.name)
    told = [f"{noun} {_first(found)}: {why}" for why, found in names.items()]
    if len(rows) > 1:
        told = [f"{len(rows):,} rows cannot be read:", *told]
    raise BadRecord("\n  ".join(told), remedy=rows[0].error.remedy)


def _first(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")

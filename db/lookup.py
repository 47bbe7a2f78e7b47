"""Find a row by a shortened id."""

import re
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, select, true
from sqlalchemy.orm import Session
from sqlalchemy.sql.base import ExecutableOption

from db.columns import ID_DIGITS, hyphenated
from db.errors import NotFound, Refused
from db.tombstones import refuse_range

T = TypeVar("T")
SHOWN = 5


def by_prefix(
    session: Session,
    table: type[T],
    prefix: str,
    *options: ExecutableOption,
    noun: str,
    visible: ColumnElement[bool] | None = None,
) -> T:
    """The one row whose id starts with `prefix`, of those `visible`, loaded with these `options`.

    Raises `NotFound` if there is none, `Gone` if there was one, and `Refused` with the candidates
    if there are several.
    """
    key: Any = table
    if not re.fullmatch(r"[0-9a-f-]{1,36}", prefix.lower()):
        raise NotFound(f"no {noun} {prefix!r}: ids consist of hexadecimal digits and hyphens")
    digits = prefix.lower().replace("-", "")
    first, last = (hyphenated(digits.ljust(ID_DIGITS, digit)) for digit in "0f")
    if len(digits) > ID_DIGITS or not first.startswith(prefix.lower()):
        raise NotFound(f"no {noun} {prefix!r}")
    in_range = (key.id >= first, key.id <= last)
    shown = true() if visible is None else visible
    statement = select(table).where(*in_range, shown).order_by(key.id).options(*options)
    found: list[Any] = list(session.scalars(statement.limit(SHOWN + 1)))
    if not found:
        refuse_range(session, noun, first, last)
        raise NotFound(f"no {noun} {prefix!r}")
    if len(found) > 1:
        ids = ", ".join(row.id for row in found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
        raise Refused(
            f"several {noun} ids begin with {prefix!r}: {ids}", remedy="give more of the id"
        )
    only: T = found[0]
    return only

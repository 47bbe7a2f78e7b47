"""Column types that check what they read from SQLite, which stores a value of any type anywhere.

Documents are checked on PostgreSQL too: it looks at their content no more. What is wrong raises
`BadRecord`: somebody else than Genmill has written it.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import sqlalchemy as sql
from sqlalchemy.engine import Dialect

from db.errors import BadRecord

# what reading a value of another type, form or size raises
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


class Checked:
    """A type whose values are checked as they are read from SQLite."""

    noun: ClassVar[str]  # what belongs in such a column
    types: ClassVar[tuple[type, ...]] = ()  # of the values; none: reading one shows it
    is_document: ClassVar[bool] = False  # whose content no database checks

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        """What turns a value of the database into one of the code. It raises `BadRecord`."""
        process = super().result_processor(dialect, coltype)  # type: ignore[misc]  # a mixin
        if dialect.name != "sqlite" and not self.is_document:
            return process  # type: ignore[no-any-return]  # as above
        noun, types = self.noun, self.types

        def checked(value: Any) -> Any:
            if value is None:
                return None
            if types and type(value) not in types:
                raise _bad(value, noun)
            try:
                found = process(value) if process else value
            except _UNREADABLE:
                found = None
            if found is None:
                raise _bad(value, noun)
            return found

        return checked


def _bad(value: object, noun: str) -> BadRecord:
    return BadRecord(
        f"the record holds {_start(value)} where {noun} belongs",
        remedy="it was damaged or edited: see `genmill doctor`, or restore a backup",
    )


def _start(value: object) -> str:
    """The start of a value, in one line."""
    return repr(value[:40] if isinstance(value, str | bytes) else value)[:80]


class String(Checked, sql.String):
    """Short text."""

    noun, types = "text", (str,)


class Integer(Checked, sql.Integer):
    """A whole number."""

    noun, types = "a whole number", (int,)


class BigInteger(Checked, sql.BigInteger):
    """A whole number of 64 bits."""

    noun, types = "a whole number", (int,)


class Float(Checked, sql.Float[float]):
    """A number."""

    noun, types = "a number", (float, int)


class Boolean(Checked, sql.Boolean):
    """True or false."""

    noun, types = "true or false", (int, bool)


class Bytes(Checked, sql.LargeBinary):
    """Bytes."""

    noun, types = "bytes", (bytes,)

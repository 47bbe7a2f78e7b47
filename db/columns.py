"""Column types, row ids and constraint names. Times are aware and in UTC."""

import itertools
import secrets
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Float, String, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

Digest = String(64)  # a SHA-256 in hexadecimal
Id = String(36)

# fixed, so that migrations can address a constraint by its name
CONSTRAINT_NAMES = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def new_id() -> str:
    """A fresh UUIDv7 (RFC 9562) as text: ids sort by creation time."""
    return next(_new_ids(1))


def first_id(at: datetime) -> str:
    """The first of the ids of a time: no id of an earlier millisecond sorts after it."""
    digits = f"{max(0, int(at.timestamp() * 1000)):012x}"
    return f"{digits[:8]}-{digits[8:]}"


_IDS_AT_ONCE = 100
_last = 0  # milliseconds and counter of the latest id that `new_ids` made
_lock = threading.Lock()


def fresh_ids() -> Iterator[str]:
    """Endless fresh ids in ascending order, made many times faster than by `new_id`."""
    return itertools.chain.from_iterable(_new_ids(_IDS_AT_ONCE) for _ in itertools.repeat(None))


def _new_ids(count: int) -> Iterator[str]:
    # the 12 bits after the version are a counter, which spills over into the milliseconds
    # (RFC 9562, section 6.2, method 1); it starts anywhere in its lower half
    global _last  # noqa: PLW0603 - ids ascend over all calls in a process
    now = (time.time_ns() // 10**6 << 12) + secrets.randbelow(1 << 11)
    with _lock:
        first = max(now, _last + 1)
        _last = first + count - 1
    random = secrets.token_hex(8 * count)
    for number in range(count):
        head, tail = f"{first + number:015x}", random[16 * number : 16 * number + 15]
        # "a" holds the variant
        yield f"{head[:8]}-{head[8:12]}-7{head[12:]}-a{tail[:3]}-{tail[3:]}"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, stored in UTC. SQLite keeps no zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC; raise `ValueError` for a naive time."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a naive time reached the database: {value!r}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The time, aware and in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class PlainText(TypeDecorator[str]):
    """Text from anywhere; characters that a database cannot store are replaced."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace NUL, which PostgreSQL refuses, and lone surrogates, which UTF-8 cannot encode."""
        if value is None:
            return None
        return (
            value.encode("utf-8", "replace")
            .decode("utf-8")
            .replace("\0", "\N{REPLACEMENT CHARACTER}")
        )


class Json(TypeDecorator[Any]):
    """JSON; on PostgreSQL, JSONB. No value is NULL, not JSON's null."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The database's type."""
        if dialect.name != "postgresql":
            return dialect.type_descriptor(JSON(none_as_null=True))
        # `with_variant` would import this dialect, which is slow, on SQLite too
        from sqlalchemy.dialects.postgresql import JSONB  # noqa: PLC0415

        return dialect.type_descriptor(JSONB(none_as_null=True))

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """Compare paths into the document as the database's type does."""
        return self.impl_instance.coerce_compared_value(op, value)


# types of the columns that are declared by their annotation alone, beyond SQLAlchemy's defaults
COLUMN_TYPES = {datetime: UtcDateTime(), float: Float(), dict[str, Any]: Json(), list[Any]: Json()}

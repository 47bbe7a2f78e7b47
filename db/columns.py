"""Column types, row ids and constraint names. Times are aware and in UTC.

Ids and digests are text in the code and bytes in the database, where each is in several indexes.
"""

import itertools
import re
import secrets
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import JSON, DateTime, LargeBinary, Text
from sqlalchemy import String as PlainString
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from db.checked import Boolean, Bytes, Checked, Float, Integer

# fixed, so that migrations can address a constraint by its name
CONSTRAINT_NAMES = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

_IDS_KEPT = 4096  # as bytes: a batch's id is in each of its rows, a job's in several


def new_id() -> str:
    """A fresh UUIDv7 (RFC 9562) as text: ids sort by creation time."""
    return next(_new_ids(1))


def id_after(last: str) -> str:
    """A fresh id that sorts after `last`, even if the clock that made that one is ahead."""
    fresh = new_id()
    return fresh if fresh > last else hyphenated(f"{int(last.replace('-', ''), 16) + 1:032x}")


def first_id(at: datetime) -> str:
    """The first of the ids of a time: no id of an earlier millisecond sorts after it."""
    return hyphenated(f"{max(0, int(at.timestamp() * 1000)):012x}".ljust(ID_DIGITS, "0"))


def hyphenated(digits: str) -> str:
    """The id with these 32 hexadecimal digits."""
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@lru_cache(_IDS_KEPT)
def id_bytes(text: str) -> bytes:
    """An id as it is stored: the UUID's 16 bytes. Other text is the id of no row."""
    return bytes.fromhex(text.replace("-", "")) if _UUID.fullmatch(text) else _encoded(text)


def digest_bytes(text: str) -> bytes:
    """A digest as it is stored: the 32 bytes of a SHA-256."""
    return bytes.fromhex(text) if _SHA256.fullmatch(text) else _encoded(text)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


ID_DIGITS, DIGEST_DIGITS = 32, 64
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
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


class _Hexadecimal(Checked, TypeDecorator[str]):
    """Hexadecimal text in the code, bytes in the database.

    SQLite stores any value in any column, so there the columns are still declared as text.
    """

    impl = LargeBinary
    cache_ok = True
    characters = 0

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The database's type."""
        on_sqlite = dialect.name == "sqlite"
        return dialect.type_descriptor(PlainString(self.characters) if on_sqlite else LargeBinary())


class Id(_Hexadecimal):
    """An id: 16 bytes in place of 36 characters."""

    noun = "an id"
    cache_ok = True
    characters = 36

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        """The bytes of an id."""
        return None if value is None else id_bytes(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str | None:
        """The text of an id."""
        if isinstance(value, bytes) and 2 * len(value) == ID_DIGITS:
            return hyphenated(value.hex())
        return _decoded(value)


class Digest(_Hexadecimal):
    """A SHA-256 in hexadecimal: 32 bytes in place of 64 characters."""

    noun = "a digest"
    cache_ok = True
    characters = DIGEST_DIGITS

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        """The bytes of a digest."""
        return None if value is None else digest_bytes(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str | None:
        """The text of a digest."""
        if isinstance(value, bytes) and 2 * len(value) == DIGEST_DIGITS:
            return value.hex()
        return _decoded(value)


def _decoded(value: Any | None) -> str | None:
    """Text that somebody else wrote into the column: the id or digest of nothing."""
    if value is None or isinstance(value, str):
        return value
    return bytes(value).decode("utf-8", "replace")


class UtcDateTime(Checked, TypeDecorator[datetime]):
    """An aware datetime, stored in UTC. SQLite keeps no zone, so it is put back on reading."""

    noun = "a time"
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


def storable(text: str) -> str:
    """The text without what a database cannot store."""
    return (
        text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")
    )


class PlainText(Checked, TypeDecorator[str]):
    """Text from anywhere; characters that a database cannot store are replaced."""

    noun, types = "text", (str,)
    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace NUL, which PostgreSQL refuses, and lone surrogates, which UTF-8 cannot encode."""
        return None if value is None else storable(value)


class Json(Checked, TypeDecorator[Any]):
    """JSON; on PostgreSQL, JSONB. No value is NULL, not JSON's null."""

    noun, is_document = "JSON", True
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


class JsonObject(Json):
    """A JSON object."""

    noun = "a JSON object"
    cache_ok = True

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any | None:
        """The object; `ValueError` for any other JSON."""
        return _instance(value, dict)


class JsonList(Json):
    """A JSON list."""

    noun = "a JSON list"
    cache_ok = True

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any | None:
        """The list; `ValueError` for any other JSON."""
        return _instance(value, list)


class Words(JsonList):
    """The words of a command."""

    noun = "a command"
    cache_ok = True

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any | None:
        """The words; `ValueError` for any other JSON."""
        words = super().process_result_value(value, dialect) or []
        if not all(isinstance(each, str) for each in words):
            raise ValueError
        return value


class Summary(JsonObject):
    """What a dataset version holds: `counts` by split, `labels`, `size_bytes` and more."""

    noun = "the summary of a dataset"
    cache_ok = True

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any | None:
        """The summary; `ValueError` for any other JSON."""
        summary = super().process_result_value(value, dialect) or {}
        numbers = [*summary.get("counts", {}).values(), summary.get("size_bytes", 0)]
        if not all(type(each) is int for each in numbers):
            raise ValueError
        _instance(summary.get("labels"), list)
        return value


class StoredFiles(JsonObject):
    """Stored files by name: the key, SHA-256 and size of each."""

    noun = "the files of a version"
    cache_ok = True

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any | None:
        """The files; `ValueError` for any other JSON."""
        for file in (super().process_result_value(value, dialect) or {}).values():
            if [type(file[key]) for key in ("key", "sha256", "size")] != [str, str, int]:
                raise ValueError
        return value


def _instance(value: Any | None, kind: type) -> Any | None:
    if value is not None and not isinstance(value, kind):
        raise ValueError
    return value


# types of the columns that are declared by their annotation alone
COLUMN_TYPES = {
    int: Integer(),
    bool: Boolean(),
    bytes: Bytes(),
    datetime: UtcDateTime(),
    float: Float(),
    dict[str, Any]: JsonObject(),
    list[Any]: JsonList(),
}

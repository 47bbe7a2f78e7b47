"""Errors of every sort that an item of a loop may raise."""

import errno

from sqlalchemy.exc import InternalError

from db.errors import GenmillError, Unreachable


class Panic(BaseException):
    """What a native library raises that has lost its way, as pyo3's PanicException."""


ERRORS = [
    GenmillError("it cannot be done"),
    Unreachable("it is away"),
    OSError(errno.EIO, "Input/output error"),
    IsADirectoryError(errno.EISDIR, "Is a directory"),
    InternalError("SELECT 1", {}, Exception("cache lookup failed")),
    KeyError("labels"),
    MemoryError(),
    Panic("index out of bounds"),
]


def name_of(error: BaseException) -> str:
    return type(error).__name__


def failing_for(item, error, act, *, of=lambda *arguments, **options: arguments[-1]):
    """`act`, but it raises for one item; `of` picks the item from the arguments."""

    def fail(*arguments, **options):
        if of(*arguments, **options) == item:
            raise error
        return act(*arguments, **options)

    return fail

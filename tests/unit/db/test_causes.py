"""Whose fault an error is: stated by each class of Genmill's, and by the number of the system's."""

import ast
import errno
import socket
import ssl
import urllib.error
from pathlib import Path

import pytest

from db.causes import Cause, cause_of
from db.errors import (
    BadInput,
    GenmillError,
    Panic,
    ShortOfMemory,
    Unreachable,
    contained,
    raise_outage,
)
from tests.panics import PanicException

SERVICE = [
    "ENOSPC",
    "EDQUOT",
    "EFBIG",
    "EIO",
    "EROFS",
    "EMFILE",
    "ENFILE",
    "ESTALE",
    "EUCLEAN",
    "EBUSY",
    "ENOLCK",
    "EAGAIN",
    "EINTR",
    "EPIPE",
    "ESHUTDOWN",
    "ETIMEDOUT",
    "ECONNABORTED",
    "ECONNREFUSED",
    "ECONNRESET",
    "ENOTCONN",
    "EHOSTDOWN",
    "EHOSTUNREACH",
    "ENETDOWN",
    "ENETRESET",
    "ENETUNREACH",
    "EADDRINUSE",
    "EADDRNOTAVAIL",
    "EREMOTEIO",
    "EBADMSG",
    "ETXTBSY",
]
MACHINE = ["ENOMEM", "ENOBUFS", "ENODEV", "ENXIO", "ENOSYS", "EACCES", "EPERM"]


def error_classes() -> dict[str, bool]:
    """The classes of Genmill's errors, read from the source: does each state its cause?"""
    root = Path(__file__).parents[3]
    files = [path for room in ("db", "worker", "scheduler") for path in (root / room).rglob("*.py")]
    trees = [ast.parse(path.read_text("utf-8")) for path in files]
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    bases = {
        node.name: {ast.unparse(base).split(".")[-1] for base in node.bases} for node in classes
    }
    known = {"GenmillError"}
    while more := {name for name, above in bases.items() if above & known} - known:
        known |= more
    return {node.name: _states_cause(node) for node in classes if node.name in known}


def _states_cause(node: ast.ClassDef) -> bool:
    lines = [ast.unparse(line) for line in node.body]
    return any(line.startswith(("cause =", "cause:")) for line in lines)


def test_every_class_states_its_cause_itself() -> None:
    found = error_classes()
    assert len(found) > 25
    assert [name for name, states in found.items() if not states] == []
    assert cause_of(GenmillError()) is Cause.UNKNOWN


@pytest.mark.parametrize("name", sorted(set(errno.errorcode.values())))
def test_every_number_of_the_system_has_one_cause(name: str) -> None:
    number = getattr(errno, name)
    same = {other for other in dir(errno) if getattr(errno, other) == number}
    found = cause_of(OSError(number, "it broke"))
    if same & set(SERVICE):
        assert found is Cause.SERVICE
    elif same & set(MACHINE):
        assert found is Cause.MACHINE
    elif same & {"ENOENT", "EEXIST", "EISDIR", "ENOTDIR", "EINVAL", "ENAMETOOLONG", "EBADF"}:
        assert found is Cause.UNKNOWN


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ConnectionError("gone"), Cause.SERVICE),
        (ConnectionResetError(), Cause.SERVICE),
        (TimeoutError("timed out"), Cause.SERVICE),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), Cause.SERVICE),
        (ssl.SSLError(1, "bad record"), Cause.SERVICE),
        (urllib.error.URLError("no route"), Cause.SERVICE),
        (MemoryError(), Cause.MACHINE),
        (OSError("no picture"), Cause.UNKNOWN),
        (KeyError("x"), Cause.UNKNOWN),
        (RecursionError(), Cause.UNKNOWN),
        (PanicException("bad pattern"), Cause.UNKNOWN),
    ],
)
def test_the_cause_of_an_error_from_elsewhere(error: BaseException, cause: Cause) -> None:
    assert cause_of(error) is cause


def test_what_says_nothing_of_the_content_is_raised_again() -> None:
    for error in (OSError(errno.EIO, "broken"), Unreachable("away"), ConnectionError()):
        with pytest.raises(type(error)):
            raise_outage(error)
    with pytest.raises(ShortOfMemory, match="memory ran out"):
        raise_outage(MemoryError())
    for error in (BadInput("bad"), ValueError(), OSError("no picture"), FileNotFoundError(2, "x")):
        raise_outage(error)


def test_a_panic_becomes_an_error_and_orders_to_end_stay_orders() -> None:
    found = contained(PanicException("called `Option::unwrap()`\n on a None"))
    assert isinstance(found, Panic)
    assert "PanicException): called `Option::unwrap()` on a None" in str(found)
    assert isinstance(found.__cause__, PanicException)
    error = ValueError()
    assert contained(error) is error
    for order in (KeyboardInterrupt, SystemExit, GeneratorExit):
        with pytest.raises(order):
            contained(order())

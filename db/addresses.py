"""Addresses of services: the URLs of the database, the broker and the object store, taken apart.

What cannot be read for certain is refused, and no message repeats any part of an address but the
names of its options: a password that was not escaped may be anywhere in it.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, unquote_plus

from db.errors import Refused

ESCAPES = "write @ as %40, / as %2F, # as %23, ? as %3F, : as %3A, % as %25 and a space as %20"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST = re.compile(r"\[([0-9A-Fa-f:.]+(?:%25[\w.-]+)?)\](?::(\d+))?|([\w.%-]*)(?::(\d+))?")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")
# services that people take for the right kind; other words may be part of a password
_OTHER_SCHEMES = frozenset(
    {"amqp", "amqps", "file", "gs", "http", "https", "mariadb", "mongodb", "mssql", "mysql"}
    | {"oracle", "postgres", "postgresql", "redis", "rediss", "redis-cluster", "redis-sentinel"}
    | {"s3", "sentinel", "sqlite", "sqs", "valkey", "valkeys"}
)


@dataclass(frozen=True)
class Host:
    """A server's name or IP address; `port` is None for the usual one."""

    name: str
    port: int | None = None

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port is None else f"{name}:{self.port}"


@dataclass(frozen=True, repr=False)
class Address:
    """A URL taken apart and unescaped. `setting` is the variable that holds it."""

    setting: str
    scheme: str
    username: str | None
    password: str | None
    hosts: tuple[Host, ...]
    path: str  # with its leading slash
    options: Mapping[str, str]

    def __repr__(self) -> str:
        return f"<{self.setting}>"

    def convert(self, converters: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
        """The options' values. Raises `Refused` for an unknown option, or a value that is wrong.

        A converter raises `ValueError` with what is allowed.
        """
        self.refuse_unknown(converters)
        values = {}
        for name, text in self.options.items():
            try:
                values[name] = converters[name](text)
            except ValueError as error:
                self.refuse(f"has a wrong value for {name}", f"use {error}")
        return values

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Raise `Refused` for an option that is not among the `known`, suggesting the nearest."""
        names = list(self.options)
        for at, name in enumerate(names):
            if name in known:
                continue
            # `?password=a&b=c` may be one password with an '&' in it, and `?passworda` lacks an '='
            if not _NAME.fullmatch(name) or any("pass" in each for each in names[: at + 1]):
                self.refuse("has an option that is not known", ESCAPES)
            raise Refused.unknown("option", name, known, of=self.setting)

    def refuse(self, what: str, remedy: str) -> NoReturn:
        """Raise `Refused`: `what` is wrong with the address."""
        raise Refused(f"{self.setting} {what}", remedy=remedy) from None


def parse_address(text: str, *, setting: str, schemes: Collection[str], remedy: str) -> Address:
    """Take apart a URL with one of `schemes`. Raises `Refused`, repeating no part of it.

    Spaces, line ends and quotes around it are dropped. `remedy` names the forms that are accepted.
    """
    text = unquoted(text)
    address = Address(setting, "", None, None, (), "", {})
    found = _SCHEME.match(text)
    if found is None:
        address.refuse("is not a URL", remedy)
    scheme, rest = found[1].lower(), text[found.end() :]
    if scheme not in schemes:
        shown = f"the scheme {scheme!r}" if scheme in _OTHER_SCHEMES else "another scheme"
        address.refuse(f"has {shown}, which is not supported", remedy)
    _refuse_unescaped(address, rest)
    place, _, query = rest.partition("?")
    authority, slash, path = place.partition("/")
    userinfo, _, hosts = authority.rpartition("@")
    username, colon, password = userinfo.partition(":")
    return Address(
        setting,
        scheme,
        _unescape(address, username) or None,
        _unescape(address, password) if colon else None,
        tuple(_host(address, host) for host in hosts.split(",")) if authority else (),
        slash + _unescape(address, path),
        _options(address, query),
    )


def unquoted(text: str) -> str:
    """Without the spaces, line ends and quotes that files of settings leave around a value."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1].strip()
    return text


def one_of(*allowed: str) -> Callable[[str], str]:
    """A converter that accepts the words `allowed`."""

    def convert(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"{', '.join(allowed[:-1])} or {allowed[-1]}")
        return text

    return convert


def whole_number(text: str) -> int:
    """A converter of whole numbers from 0."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError("a whole number")
    return int(text)


def seconds(text: str) -> float:
    """A converter of numbers of seconds."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or not float(text):
        raise ValueError("a number of seconds above 0")
    return float(text)


def yes_or_no(text: str) -> bool:
    """A converter of yes and no, as true and false, 1 and 0, on and off."""
    if text.lower() not in _YES | _NO:
        raise ValueError("true or false")
    return text.lower() in _YES


def readable_file(text: str) -> str:
    """A converter of paths of files that this process may read now."""
    with _must_be("file"):
        path = Path(text)
        if stat.S_ISDIR(path.stat().st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), text)
        if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), text)
    return text


def readable_folder(text: str) -> str:
    """A converter of paths of folders that this process may read now."""
    with _must_be("folder"), os.scandir(text):
        return text


@contextmanager
def _must_be(kind: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # not what `path_errors` says: it repeats parts of the path
        raise ValueError(f"the path of a {kind} that can be read ({error.strerror})") from None


_YES, _NO = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}


def _refuse_unescaped(address: Address, rest: str) -> None:
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    at = rest.count("@")
    if at > 1 or at > authority.count("@") or "#" in rest or re.search(r"\s", authority):
        where = " in its user or password" if at else ""
        address.refuse(f"has signs{where} that must be escaped", ESCAPES)
    if _BAD_ESCAPE.search(rest):
        address.refuse("has a '%' that begins no escape", ESCAPES)
    if _CONTROL.search(rest):
        address.refuse("has a control character inside", "remove it")


def _unescape(address: Address, text: str, *, plus: bool = False) -> str:
    plain = None
    with suppress(UnicodeDecodeError):  # not the context of what is raised: it holds the text
        plain = (unquote_plus if plus else unquote)(text, errors="strict")
    if plain is None:
        address.refuse("has an escape that is not UTF-8", ESCAPES)
    if _CONTROL.search(plain):
        address.refuse("has a control character inside", "remove it")
    return plain


def _host(address: Address, text: str) -> Host:
    """The host of `name`, `name:port` or `[IPv6]:port`. What follows a colon may be a password."""
    found = _HOST.fullmatch(text)
    port = found and (found[2] or found[4])
    if not found or (port and not 0 < int(port[:6]) < 65_536):
        address.refuse(
            "has a host or port that cannot be read",
            "the port is a number up to 65535, and an IPv6 address goes in [ ]; in a password "
            + ESCAPES,
        )
    name = _unescape(address, found[1] or found[3] or "")
    if not re.fullmatch(r"/.+|[\w.:%-]*", name) or (not name and ":" in text):
        address.refuse("has no host, or none that can be read", f"in a password {ESCAPES}")
    return Host(name, int(port) if port else None)


def _options(address: Address, query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        name = _unescape(address, name)
        if not equals or name in options:
            address.refuse(
                "has an option without a value, or twice",
                "write ?name=value&name=value, & in a value as %26",
            )
        options[name] = _unescape(address, value, plus=True)
    return options

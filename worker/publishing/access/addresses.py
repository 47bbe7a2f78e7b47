"""Addresses of targets. No error repeats any part of one: it may hold a password by mistake."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, unquote

from db.addresses import Address, parse_address
from db.errors import Refused

ADDRESS = "the target's address"
NO_CREDENTIALS = "leave them out, and say with --secret where the secret is"


@dataclass(frozen=True)
class Server:
    """A server of a URL without a user, and the path there."""

    scheme: str
    host: str
    port: int | None
    path: str  # with its leading slash, unescaped
    called: str = ADDRESS

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine."""
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def url(self) -> str:
        """The URL, its path escaped."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{name}{port}{quote(self.path)}"

    def require_privacy(self) -> None:
        """Raise `Refused` where secrets or items would cross a network in the clear."""
        if self.scheme == "http" and not self.is_loopback:
            raise Refused(
                f"{self.called} is http:// on another machine: anybody on the way could read along",
                remedy="use https://",
            )


def server(text: str, *schemes: str, called: str = ADDRESS) -> Server:
    """The server of a URL; errors call it what it is `called`. Raises `Refused`."""
    forms = f"use a URL such as {schemes[-1]}://host/path"
    address = parse_address(text, setting=called, schemes=schemes, remedy=forms)
    refuse_user(address)
    if len(address.hosts) != 1 or not address.hosts[0].name:
        address.refuse("names no server", forms)
    if address.options:
        address.refuse("has a query, behind its ?", forms)
    host = address.hosts[0]
    return Server(address.scheme, host.name, host.port, address.path or "/", called)


def endpoint(text: str, called: str = ADDRESS) -> Server:
    """The service of a URL that secrets and items are sent to. Raises `Refused` for unsafe ones."""
    found = server(text, "http", "https", called=called)
    found.require_privacy()
    return found


def refuse_user(address: Address) -> None:
    """Raise `Refused` for a URL with a user or password."""
    if address.username is not None or address.password is not None:
        address.refuse("has a user or password", NO_CREDENTIALS)


def folder(text: str) -> Path:
    """The folder of `file:///path`, or of a path that is absolute. Raises `Refused`."""
    path = Path(unquote(text.removeprefix("file://"))) if text.startswith("file://") else Path(text)
    if not path.is_absolute() or "\0" in str(path) or "://" in text.removeprefix("file://"):
        _refuse("is no folder", "use /path or file:///path")
    return path


def _refuse(what: str, remedy: str) -> NoReturn:
    raise Refused(f"{ADDRESS} {what}", remedy=remedy)

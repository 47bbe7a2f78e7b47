"""Where the broker is: one reading of a Redis URL, for redis-py and for Celery alike.

Each of the two reads URLs in its own way: other names of options, another default for
certificates. So each is handed a URL and settings that it cannot misread.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from db.addresses import (
    Address,
    parse_address,
    readable_file,
    readable_folder,
    seconds,
    whole_number,
    yes_or_no,
)

Options = tuple[tuple[str, Any], ...]
Converters = Mapping[str, Callable[[str], Any]]

SETTING = "GENMILL_REDIS_URL"
FORMS = (
    "use redis://[:password@]host:port/0, rediss://... (TLS) or unix://[:password@]/path/to.sock"
)
DEFAULT_PORT = 6379

_TCP = {"redis": False, "rediss": True, "valkey": False, "valkeys": True}  # whether it is TLS
_SOCKET = ("unix", "redis+socket", "valkey+socket")
_CERT_REQS = ("none", "optional", "required")


def _cert_reqs(text: str) -> str:
    """As redis-py spells it; Celery's documentation writes CERT_REQUIRED."""
    word = text.lower().removeprefix("cert_")
    if word not in _CERT_REQS:
        raise ValueError(f"{', '.join(_CERT_REQS[:-1])} or {_CERT_REQS[-1]}")
    return word


_NAMES: Converters = {
    "virtual_host": whole_number,
    "db": whole_number,
    "username": str,
    "password": str,
}
_TLS: Converters = {
    "ssl_cert_reqs": _cert_reqs,
    "ssl_ca_certs": readable_file,
    "ssl_ca_path": readable_folder,
    "ssl_certfile": readable_file,
    "ssl_keyfile": readable_file,
    "ssl_check_hostname": yes_or_no,
}
_CONNECTION: Converters = {
    "socket_timeout": seconds,
    "socket_connect_timeout": seconds,
    "socket_keepalive": yes_or_no,
    "health_check_interval": whole_number,
}


@dataclass(frozen=True)
class RedisAddress:
    """A Redis server. `str` shows where it is, and no user or password."""

    host: str = "localhost"
    port: int = DEFAULT_PORT
    socket: str = ""  # its path, in place of host and port
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    # options of `redis.Connection`: for TLS, None without it; and for the socket
    tls: Options | None = field(default=None, repr=False)
    connection: Options = field(default=(), repr=False)

    def __str__(self) -> str:
        return self.socket or f"{self._host}:{self.port}"

    @property
    def client_url(self) -> str:
        """The URL for redis-py's `Redis.from_url`. It holds the password: never print it."""
        options = urlencode((*(self.tls or ()), *self.connection))
        if self.socket:
            query = f"db={self.database}" + (f"&{options}" if options else "")
            return f"unix://{self._userinfo}{quote(self.socket)}?{query}"
        return self._tcp_url + (f"?{options}" if options else "")

    @property
    def celery_url(self) -> str:
        """The broker URL for Celery, without options. It holds the password: never print it."""
        if self.socket:
            path = f"{self._userinfo}{quote(self.socket)}"
            return f"redis+socket://{path}?virtual_host={self.database}"
        return self._tcp_url

    @property
    def _tcp_url(self) -> str:
        scheme = "redis" if self.tls is None else "rediss"
        return f"{scheme}://{self._userinfo}{self._host}:{self.port}/{self.database}"

    @property
    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def _userinfo(self) -> str:
        if self.username is None and self.password is None:
            return ""
        username, password = (quote(word or "", safe="") for word in (self.username, self.password))
        return f"{username}:{password}@" if password else f"{username}@"


def parse_redis_url(text: str, *, setting: str = SETTING) -> RedisAddress:
    """Read a Redis URL. Raises `Refused`, repeating no part that may be secret."""
    address = parse_address(text, setting=setting, schemes=(*_TCP, *_SOCKET), remedy=FORMS)
    values = address.convert({**_NAMES, **_TLS, **_CONNECTION})
    tls = _tls_options(address, values)
    return RedisAddress(
        **_place(address),
        database=_database(address, values),
        username=values.get("username", address.username),
        password=values.get("password", address.password),
        tls=tls,
        connection=_given(_CONNECTION, values),
    )


def _given(names: Converters, values: Mapping[str, Any]) -> Options:
    return tuple((name, values[name]) for name in names if name in values)


def _tls_options(address: Address, values: Mapping[str, Any]) -> Options | None:
    given = _given(_TLS, values)
    if _TCP.get(address.scheme):
        # kombu would accept any certificate
        return given if "ssl_cert_reqs" in values else (("ssl_cert_reqs", "required"), *given)
    if given:
        address.refuse(f"has the option {given[0][0]} without TLS", "write rediss:// for TLS")
    return None


def _place(address: Address) -> dict[str, Any]:
    if address.scheme in _SOCKET:
        if any(host.name for host in address.hosts) or len(address.path) < 2:
            address.refuse("names no socket", FORMS)
        return {"socket": address.path}
    if len(address.hosts) > 1:
        address.refuse("names several servers", "name the one that takes writes, or a proxy")
    host = address.hosts[0] if address.hosts else None
    if host and host.name.startswith("/"):
        address.refuse("names a socket as its host", FORMS)
    return {
        "host": host.name or "localhost" if host else "localhost",
        "port": host.port or DEFAULT_PORT if host else DEFAULT_PORT,
    }


def _database(address: Address, values: Mapping[str, Any]) -> int:
    """The number of the database, from the path or from an option."""
    path = "" if address.scheme in _SOCKET else address.path.strip("/")
    named = {values[name] for name in ("db", "virtual_host") if name in values}
    try:
        named |= {whole_number(path)} if path else set()
    except ValueError:
        address.refuse("has a database that is no number", FORMS)
    if len(named) > 1:
        address.refuse("names two databases", "give one of /0, ?db=0 and ?virtual_host=0")
    return named.pop() if named else 0

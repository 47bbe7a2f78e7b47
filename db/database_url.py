"""Which database a URL means, read as its providers print it; libpq knows the options."""

import re
from typing import Any

from sqlalchemy import URL

from db.addresses import (
    Address,
    Host,
    one_of,
    parse_address,
    readable_file,
    readable_folder,
    unquoted,
    whole_number,
    yes_or_no,
)
from db.errors import Refused

SETTING = "GENMILL_DATABASE_URL"
FORMS = "use sqlite:///path/to/file.db or postgresql://user:password@host:5432/database"
PREPARE = "prepare_threshold"  # `off`, or after how many executions a statement is prepared
# Prisma and Supabase say so that a pooler stands before the server; JDBC and Node ask so for TLS
_SPELLINGS = {"pgbouncer": (PREPARE, {True: "off"}), "ssl": ("sslmode", {True: "require"})}

_SQLITE = re.compile(r"sqlite(?:\+\w+)?://(.*)", re.DOTALL)
_DRIVERS = ("", "+psycopg", "+psycopg2", "+psycopg3", "+asyncpg", "+pg8000")
_SCHEMES = {name + driver for name in ("postgres", "postgresql") for driver in _DRIVERS}
_PARTS = {"user": "username", "password": "password", "dbname": "database"}


def _threshold(text: str) -> str:
    if text != "off" and not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError("a whole number, or off")
    return text


def _root_certificates(text: str) -> str:
    return text if text == "system" else readable_file(text)


_VALUES = {
    **dict.fromkeys(("sslcert", "sslkey", "sslcrl", "passfile"), readable_file),
    "sslrootcert": _root_certificates,
    "sslcrldir": readable_folder,
    PREPARE: _threshold,
    "sslmode": one_of("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "channel_binding": one_of("disable", "prefer", "require"),
    "gssencmode": one_of("disable", "prefer", "require"),
    "target_session_attrs": one_of(
        "any", "read-write", "read-only", "primary", "standby", "prefer-standby"
    ),
    "load_balance_hosts": one_of("disable", "random"),
    "sslnegotiation": one_of("postgres", "direct"),
    "client_encoding": one_of("utf8", "UTF8", "utf-8", "UTF-8"),
    "connect_timeout": whole_number,
    "pgbouncer": yes_or_no,
    "ssl": yes_or_no,
}
# they would connect to something else than the URL shows, or not as a client
_NOT_OURS = {"replication", "service"}


def parse_url(text: str) -> URL:
    """The URL with the driver to use. Raises `Refused`, repeating no part that may be secret."""
    text = unquoted(text)
    if file := _SQLITE.fullmatch(text):
        return _sqlite_url(file[1])
    address = parse_address(text, setting=SETTING, schemes=_SCHEMES, remedy=FORMS)
    return _postgresql_url(address)


def hosts_of(url: URL) -> str:
    """The servers or the folder of the socket that a PostgreSQL URL names, for people to read."""
    names = str(url.query.get("host") or url.host or "local socket").split(",")
    ports = str(url.query.get("port") or url.port or 5432).split(",")
    ports = ports * len(names) if len(ports) == 1 else ports
    return ", ".join(str(Host(name, int(port))) for name, port in zip(names, ports, strict=False))


def prepare_threshold(url: URL) -> int | None:
    """After how many executions the driver prepares a statement; None: never."""
    given = str(url.query.get(PREPARE, "5"))
    return None if given == "off" else int(given)


def _sqlite_url(rest: str) -> URL:
    path = rest.removeprefix("/")
    if not path or ":memory:" in path or "\0" in path or path == rest:
        raise Refused(f"{SETTING}, an SQLite URL, names no file", remedy=FORMS)
    if re.search(r"\?\w+=", path):
        raise Refused(f"{SETTING} has options, which SQLite takes none of", remedy="leave them out")
    return URL.create("sqlite", database=path)


def _postgresql_url(address: Address) -> URL:
    if "=" in address.path:
        address.refuse("has an '=' in the database's name", "begin the options with '?'")
    options = dict(_options(address))
    parts = {part: options.pop(name) for name, part in _PARTS.items() if name in options}
    found: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "database": address.path.strip("/") or None,
        **parts,
    }
    hosts = [host for host in address.hosts if host.name]
    if len(hosts) == 1 and not {"host", "port"} & options.keys():
        found |= {"host": hosts[0].name, "port": hosts[0].port}
    elif hosts:
        options.setdefault("host", ",".join(host.name for host in hosts))
        options.setdefault("port", ",".join(str(host.port or 5432) for host in hosts))
    return URL.create("postgresql+psycopg", **found, query=options)


def _options(address: Address) -> dict[str, str]:
    """The options as libpq and Genmill spell them. Raises `Refused` for wrong ones."""
    from psycopg.pq import Conninfo  # noqa: PLC0415 - loads slowly; SQLite does not need it

    libpq = {option.keyword.decode() for option in Conninfo.get_defaults()}
    known = (libpq - _NOT_OURS) | {PREPARE, *_SPELLINGS}
    values = address.convert(dict.fromkeys(known, str) | _VALUES)
    options = {name: text for name, text in address.options.items() if name not in _SPELLINGS}
    for name, (meant, spelling) in _SPELLINGS.items():
        if values.get(name) in spelling:
            options.setdefault(meant, spelling[values[name]])
    _refuse_wrong_ports(address, options)
    return options


def _refuse_wrong_ports(address: Address, options: dict[str, str]) -> None:
    ports = options.get("port", "").split(",")
    hosts = options.get("host", "").split(",")
    if not all(re.fullmatch(r"[0-9]{0,5}", port) for port in ports) or len(ports) not in {
        1,
        len(hosts),
    }:
        address.refuse("has a port that cannot be read", "give one port, or one for each host")

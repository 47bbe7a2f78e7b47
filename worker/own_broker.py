"""A home's own broker: where it listens, and its address, which is written into the home.

A home that is copied or moved takes the address along. It still leads to the broker of the place
that it came from, so it counts only in the home for which it was written.
"""

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from db.errors import Unreachable
from worker.redis_address import RedisAddress, parse_redis_url

MAX_SOCKET_BYTES = 100  # a socket's path may have 104 bytes on macOS, 108 on Linux
SOCKET = "broker.sock"


def socket_path(run: Path) -> Path:
    """Where the broker of the home whose folder `run` this is listens.

    In that folder or, if its path is too long for a socket, in one of the system's for temporaries.
    """
    path = run.absolute() / SOCKET
    if len(os.fsencode(path)) <= MAX_SOCKET_BYTES:
        return path
    return Path(tempfile.gettempdir()) / f"genmill-{os.getuid()}-{_digest(path.resolve())}" / SOCKET


def read_address(file: Path) -> RedisAddress:
    """The address in a home's `run/broker.url`. Raises `Unreachable` if that cannot be read."""
    try:
        written = file.read_text("utf-8")
    except OSError as error:
        raise Unreachable(
            f"no broker: {file} cannot be read ({error.strerror})",
            remedy="start this machine's own with `genmill up`, or set GENMILL_REDIS_URL",
        ) from None
    return parse_redis_url(written, setting=str(file))


def origin(address: RedisAddress, run: Path) -> str | None:
    """Where a home came from, if the address in its folder `run` is another home's; None if not."""
    if address.socket is None or _listens_for(Path(address.socket), run):
        return None
    folder = Path(address.socket).parent
    return str(folder.parent) if folder.name == run.name else "another place"


def _listens_for(socket: Path, run: Path) -> bool:
    own = run.absolute() / SOCKET
    if socket.parent.name.rpartition("-")[2] in {_digest(own), _digest(own.resolve())}:
        return True
    with suppress(OSError):
        return socket.parent.samefile(run)
    return False


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]

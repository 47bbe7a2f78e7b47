"""A connection to an SFTP server whose host key is known; nothing is sent to any other."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field

from db.errors import GenmillError, NotFound, Refused
from worker.complaints import matching
from worker.extras import needed_for
from worker.publishing.access import addresses
from worker.publishing.base import TargetAway, TargetSettings

if TYPE_CHECKING:
    from asyncssh import SFTPClient, SSHClient, SSHClientConnection

PORT = 22
# A server shows one of its keys, of the first kind here that it has: all, until the pinned one is.
HOST_KEYS = (
    ("ssh-ed25519", "ssh-ed448"),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"),
)

T = TypeVar("T")


class SftpSettings(TargetSettings):
    """What can be set of an SFTP target."""

    user: str = Field(max_length=200, description="the user to log in as")
    fingerprint: Annotated[
        str, matching(r"SHA256:[A-Za-z0-9+/]{43}", "as in SHA256:uNiVztks...")
    ] | (None) = Field(None, description="the SHA-256 fingerprint of the server's host key")
    known_hosts: str | None = Field(
        None, max_length=1000, description="file of known host keys, in place of a fingerprint"
    )


class Session:
    """A connection in an event loop of its own thread; opened again once it is lost."""

    def __init__(
        self, server: addresses.Server, settings: SftpSettings, secrets: Mapping[str, str]
    ) -> None:
        with needed_for("publishing to SFTP"):
            import asyncssh  # noqa: F401, PLC0415 - of an extra
        self._server, self._settings, self._secrets = server, settings, secrets
        key = secrets.get("key")
        self._keys = [_private_key(key)] if key else None
        self._loop = asyncio.new_event_loop()
        self._connection: SSHClientConnection | None = None
        self._opened: SFTPClient | None = None
        self._opening = asyncio.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sftp", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop. Raises `TargetAway` after the target's time."""
        try:
            return asyncio.run_coroutine_threadsafe(self._in_time(work), self._loop).result()
        except TimeoutError as error:
            took = f"within {self._settings.timeout_s:g} s"
            raise TargetAway(f"{self._server.url} does not answer {took}") from error

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine; raises `TimeoutError`, and gives the connection up, if it takes long."""
        task = asyncio.ensure_future(work)
        if not (await asyncio.wait([task], timeout=self._settings.timeout_s))[0]:
            await self._disconnect()  # first: to end, the work may wait for the server once more
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise TimeoutError
        return task.result()

    def close(self) -> None:
        """Close the connection and end the thread."""
        asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @asynccontextmanager
    async def client(self) -> "AsyncIterator[SFTPClient]":
        """The client, connected; the library's errors become ours."""
        opened: SFTPClient | None = None
        try:
            async with self._opening:
                if self._opened is None:
                    self._opened = await self._connect()
                opened = self._opened
            yield opened
        except GenmillError:
            raise
        except Exception as error:
            ours = self._ours(error)
            if ours is None:
                raise
            if isinstance(ours, TargetAway) and self._opened is opened:  # not one since then
                await self._disconnect()
            raise ours from error

    async def _connect(self) -> "SFTPClient":
        self._connection = await self._log_in()
        try:
            return await self._connection.start_sftp_client()
        except BaseException:  # a cancellation, too
            await self._disconnect()
            raise

    async def _log_in(self) -> "SSHClientConnection":
        import asyncssh  # noqa: PLC0415 - of an extra

        if self._settings.fingerprint is None:
            return await self._connection_by("default")
        refused: asyncssh.Error | None = None
        for algorithms in HOST_KEYS:
            try:
                return await self._connection_by(algorithms)
            except asyncssh.HostKeyNotVerifiable as error:
                refused = error
            except asyncssh.KeyExchangeFailed as error:  # it has no key of this kind
                refused = refused or error
        assert refused is not None  # noqa: S101 - for mypy: there are kinds
        raise refused

    async def _connection_by(self, host_keys: str | tuple[str, ...]) -> "SSHClientConnection":
        import asyncssh  # noqa: PLC0415 - of an extra

        fingerprint = self._settings.fingerprint
        return await asyncssh.connect(
            self._server.host,
            self._server.port or PORT,
            username=self._settings.user,
            password=self._secrets.get("password"),
            client_keys=self._keys,
            known_hosts=([], [], []) if fingerprint else self._known_hosts(),
            server_host_key_algs=host_keys,
            client_factory=lambda: _pinning(fingerprint),
            agent_path=None,
            config=None,
            connect_timeout=self._settings.timeout_s,
            login_timeout=self._settings.timeout_s,
            keepalive_interval=15,
        )

    def _known_hosts(self) -> str:
        path = Path(str(self._settings.known_hosts))
        if not path.is_file():
            raise TargetAway(f"the file of known hosts {path} is not there")
        return str(path)

    async def _disconnect(self) -> None:
        connection, self._connection, self._opened = self._connection, None, None
        if connection is not None:
            connection.abort()
            with suppress(Exception):  # it may be lost already
                await connection.wait_closed()

    def _ours(self, error: Exception) -> GenmillError | None:
        """The error to raise in place of one of the library or the network; None for others."""
        import asyncssh  # noqa: PLC0415 - of an extra

        where = self._server.url
        if isinstance(error, asyncssh.SFTPNoSuchFile | asyncssh.SFTPNoSuchPath):
            return NotFound(f"no such file at {where}")
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return TargetAway(
                f"{where} shows another host key than the one that is known: nothing was sent",
                remedy="find out why before you change the fingerprint or the known hosts",
            )
        if isinstance(error, asyncssh.PermissionDenied):
            return TargetAway(f"{where} refuses the login", remedy="check its user and secrets")
        if isinstance(error, asyncssh.Error | OSError | TimeoutError):
            told = str(error) or type(error).__name__
            return TargetAway(f"{where}: {told}")
        return None


def _pinning(fingerprint: str | None) -> "SSHClient":
    """What decides about a host key that is in no file of known hosts."""
    import asyncssh  # noqa: PLC0415 - of an extra

    class Pinning(asyncssh.SSHClient):
        def validate_host_public_key(
            self, host: str, addr: str, port: int, key: asyncssh.SSHKey
        ) -> bool:
            return fingerprint is not None and key.get_fingerprint() == fingerprint

    return Pinning()


def _private_key(text: str) -> Any:
    import asyncssh  # noqa: PLC0415 - of an extra

    with suppress(asyncssh.KeyImportError):
        return asyncssh.import_private_key(text if text.endswith("\n") else f"{text}\n")
    raise Refused(
        "the target's key is no private key that can be read",
        remedy="give one without a passphrase",
    )

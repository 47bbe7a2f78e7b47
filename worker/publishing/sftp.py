"""An SFTP server: each item is a file, with its record beside it as `FILE.json`.

The server's host key must be pinned by its fingerprint, or be in a file of known hosts; nothing is
sent to any other server.
"""

from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from db.errors import NotFound, Refused
from worker.publishing.access import addresses
from worker.publishing.access.item_files import ItemFiles
from worker.publishing.access.sftp_session import Session, SftpSettings
from worker.publishing.base import NoFile, Obstructed, TargetSettings

if TYPE_CHECKING:
    from asyncssh import SFTPAttrs, SFTPClient

PART_SUFFIX = ".part"  # of a file that is not whole yet

T = TypeVar("T")


class Sftp(ItemFiles[SftpSettings]):
    """Files on an SFTP server, in the folder of the address and below it."""

    title: ClassVar[str] = "an SFTP server"
    schema: ClassVar[type[TargetSettings]] = SftpSettings
    secrets: ClassVar[Mapping[str, str]] = {
        "password": "the user's password",
        "key": "the user's private key, as in ~/.ssh/id_ed25519",
    }

    def __init__(self, settings: SftpSettings, secrets: Mapping[str, str]) -> None:
        super().__init__(settings, secrets)
        self._server = self.place(settings.address)
        self._session: Session | None = None
        self._folders: set[str] = set()  # that were seen, and are no links
        if (settings.fingerprint is None) == (settings.known_hosts is None):
            raise Refused(
                "an SFTP target needs its server's host key",
                remedy="give --set fingerprint=SHA256:..., as `ssh-keygen -lf` shows it, or "
                "--set known_hosts=/path",
            )
        if not secrets:
            raise Refused(
                "an SFTP target needs a password or a key",
                remedy="give --secret password=env:VARIABLE or --secret key=file:/path",
            )

    @classmethod
    def place(cls, address: str) -> addresses.Server:
        """See `Target.place`."""
        return addresses.server(address, "sftp")

    def __str__(self) -> str:
        return self._server.url

    def open(self) -> None:
        """See `Target.open`."""
        if self._session is None:
            self._session = Session(self._server, self.settings, self._secrets)

    def close(self) -> None:
        """See `Target.close`."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _write(self, name: str, data: bytes, media_type: str) -> None:
        self._run(self._upload(name, data))

    def _read(self, name: str) -> bytes:
        return self._run(self._download(name))

    def _remove(self, name: str) -> None:
        self._run(self._delete(name))

    def _names(self) -> Iterable[str]:
        return self._run(self._files())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        self.open()
        assert self._session is not None  # noqa: S101 - for mypy: just opened
        return self._session.run(work)

    @asynccontextmanager
    async def _client(self) -> "AsyncIterator[SFTPClient]":
        assert self._session is not None  # noqa: S101 - for mypy: of `_run`
        async with self._session.client() as client:
            yield client

    def _path(self, name: str) -> str:
        return f"{self._server.path.rstrip('/')}/{name}"

    async def _upload(self, name: str, data: bytes) -> None:
        """Write a file whole: under another name first, which is changed then."""
        import asyncssh  # noqa: PLC0415 - of an extra

        path = self._path(name)
        part = f"{path}{PART_SUFFIX}"
        async with self._client() as client:
            if wrong := await self._make_folders(client, name):
                raise Obstructed(wrong, remedy=REMEDY)
            try:
                await _write_new(client, part, data)
            except asyncssh.SFTPNoSuchFile:  # a folder was removed meanwhile
                self._folders.clear()
                raise
            await _replace(client, part, path)

    async def _download(self, name: str) -> bytes:
        """Read a file; nothing else is opened, for a pipe would stop the server."""
        path = self._path(name)
        async with self._client() as client:
            if wrong := await self._find_folders(client, name):
                raise NoFile(wrong)
            found = await client.lstat(path)
            if found.type not in FILE_TYPES:
                raise NoFile(_told(path, found, "a file"))
            async with client.open(path, "rb") as file:
                content: bytes = await file.read(-1 if found.size is None else found.size)
                return content

    async def _delete(self, name: str) -> None:
        for path in (self._path(name), f"{self._path(name)}{PART_SUFFIX}"):
            with suppress(NotFound):
                async with self._client() as client:
                    if not await self._find_folders(client, name):
                        await _remove(client, path)

    async def _make_folders(self, client: "SFTPClient", name: str) -> str:
        """Make the folders of a file; what is wrong with one that is there, if anything is."""
        import asyncssh  # noqa: PLC0415 - of an extra

        with suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            return await self._find_folders(client, name)
        await client.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
        return await self._find_folders(client, name)

    async def _find_folders(self, client: "SFTPClient", name: str) -> str:
        """Look at the folders of a file; what is wrong with one of them, if anything is."""
        parts = name.split("/")
        for depth in range(len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in self._folders:
                path = self._path(folder)
                found = await (client.lstat if folder else client.stat)(path)
                if found.type not in FOLDER_TYPES:
                    return _told(path, found, "a folder")
                self._folders.add(folder)
        return ""

    async def _files(self) -> set[str]:
        root, found = self._path(""), set[str]()
        async with self._client() as client:
            waiting = [""]
            while waiting:
                folder = waiting.pop()
                async for entry in client.scandir(f"{root}{folder}".rstrip("/") or "/"):
                    name = str(entry.filename)
                    if name in {".", ".."}:
                        continue
                    is_folder = entry.attrs.type == FOLDER_TYPE
                    (waiting.append if is_folder else found.add)(f"{folder}{name}{'/' * is_folder}")
        return found


async def _write_new(client: "SFTPClient", path: str, data: bytes) -> None:
    """Write a file that is not there; removes what is, rather than follow a link."""
    import asyncssh  # noqa: PLC0415 - of an extra

    try:
        file = await client.open(path, "xb")
    except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):
        await _clear(client, path)
        file = await client.open(path, "xb")
    async with file:
        await file.write(data)


async def _remove(client: "SFTPClient", path: str) -> bool:
    """Remove a file, or what lies in its place; False for a folder that cannot be removed."""
    import asyncssh  # noqa: PLC0415 - of an extra

    try:
        await client.remove(path)
    except asyncssh.SFTPNoSuchFile:
        raise
    except asyncssh.SFTPError:
        if (await client.lstat(path)).type != FOLDER_TYPE:
            raise
        try:
            await client.rmdir(path)
        except asyncssh.SFTPError:
            return False
    return True


async def _clear(client: "SFTPClient", path: str) -> None:
    """Remove what lies in a file's place. Raises `Obstructed` for a folder that stays."""
    import asyncssh  # noqa: PLC0415 - of an extra

    with suppress(asyncssh.SFTPNoSuchFile):
        if not await _remove(client, path):
            raise Obstructed(
                f"{path} is a folder, not a file, and cannot be removed",
                remedy="move it away, and publish again",
            )


def _told(path: str, found: "SFTPAttrs", wanted: str) -> str:
    return f"{path} is {KINDS.get(found.type, 'something else')}, not {wanted}"


FOLDER_TYPE = 2  # SSH_FILEXFER_TYPE_DIRECTORY
UNKNOWN = 5  # of a server that does not say
FILE_TYPES, FOLDER_TYPES = {1, UNKNOWN}, {FOLDER_TYPE, UNKNOWN}
KINDS = {1: "a file", FOLDER_TYPE: "a folder", 3: "a link"}
REMEDY = "remove it, and publish again"


async def _replace(client: "SFTPClient", part: str, path: str) -> None:
    """Rename a file in place of another; servers without that take the other away first."""
    import asyncssh  # noqa: PLC0415 - of an extra

    try:
        await client.posix_rename(part, path)
    except asyncssh.SFTPOpUnsupported:
        await _clear(client, path)
        await client.rename(part, path)
    except asyncssh.SFTPFailure:
        if (await client.lstat(path)).type != FOLDER_TYPE:
            raise
        await _clear(client, path)
        await client.posix_rename(part, path)


TARGET = Sftp

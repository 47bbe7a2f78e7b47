"""A WebDAV server: each item is a file, with its record beside it as `FILE.json`."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from db.errors import GenmillError, NotFound, Refused
from worker.extras import needed_for
from worker.publishing.access import addresses
from worker.publishing.access.http import UNREADABLE, failure, network_errors, unreadable
from worker.publishing.access.item_files import ItemFiles
from worker.publishing.base import ItemRefused, NoFile, Obstructed, TargetAway, TargetSettings

if TYPE_CHECKING:
    from webdav4.client import Client

PART_SUFFIX = ".part"  # of a file that is not whole yet


class WebdavSettings(TargetSettings):
    """What can be set of a WebDAV target."""

    user: str | None = Field(None, max_length=200, description="the user of the password")


class Webdav(ItemFiles[WebdavSettings]):
    """Files on a WebDAV server, in the folder of the address and below it."""

    title: ClassVar[str] = "a WebDAV server"
    schema: ClassVar[type[TargetSettings]] = WebdavSettings
    secrets: ClassVar[Mapping[str, str]] = {"password": "the user's password"}

    def __init__(self, settings: WebdavSettings, secrets: Mapping[str, str]) -> None:
        super().__init__(settings, secrets)
        self._server = self.place(settings.address)
        self._folders: set[str] = set()  # that are there
        if (settings.user is None) != ("password" not in secrets):
            raise Refused(
                "a user and a password belong together",
                remedy="give --set user=NAME and --secret password=env:VARIABLE, or neither",
            )

    @classmethod
    def place(cls, address: str) -> addresses.Server:
        """See `Target.place`."""
        found = addresses.endpoint(address)
        if set(found.path) & set("%?#"):  # the client escapes a path twice, or not at all
            raise Refused(
                f"{addresses.ADDRESS} has an escaped %, ? or # in its path",
                remedy="use a folder whose name has none of them",
            )
        return found

    def __str__(self) -> str:
        return self._server.url

    def open(self) -> None:
        """See `Target.open`."""
        _ = self._client

    def close(self) -> None:
        """See `Target.close`."""
        if "_client" in self.__dict__:
            self._client.http.close()

    @cached_property
    def _client(self) -> "Client":
        with needed_for("publishing to WebDAV"):
            from webdav4.client import Client  # noqa: PLC0415 - of an extra

        password = self._secrets.get("password")
        auth = (self.settings.user, password) if password is not None else None
        return Client(self._server.url, auth=auth, retry=False, timeout=self.settings.timeout_s)

    def _write(self, name: str, data: bytes, media_type: str) -> None:
        """See `ItemFiles._write`: under another name first, which the server then changes."""
        part = f"{name}{PART_SUFFIX}"
        try:
            self._make_folders(name.rpartition("/")[0])
            with self._errors():
                self._client.upload_fileobj(BytesIO(data), part, overwrite=True, size=len(data))
            self._rename(part, name)
        except (TargetAway, ItemRefused, NotFound) as error:
            if _is_answer(error):
                self._explain(name)
            raise

    def _rename(self, part: str, name: str) -> None:
        """Rename a file in place of another. Raises `Obstructed`; a folder would go with all."""
        from webdav4.client import ResourceAlreadyExists  # noqa: PLC0415 - of an extra

        with self._errors():
            try:
                self._client.move(part, name, overwrite=False)
            except ResourceAlreadyExists:
                if self._is_folder(name):
                    self._remove_empty(name)
                self._client.move(part, name, overwrite=True)

    def _read(self, name: str) -> bytes:
        try:
            with self._errors():
                content: bytes = self._client.request("GET", name).content
        except (TargetAway, ItemRefused) as error:
            if _is_answer(error) and self._is_folder(name):
                raise NoFile(f"{name!r} at {self} is a folder, not a file") from None
            raise
        return content

    def _make_folders(self, folder: str) -> None:
        from webdav4.client import ResourceAlreadyExists  # noqa: PLC0415 - of an extra

        for path in _prefixes(folder):
            if path in self._folders:
                continue
            with self._errors(), suppress(ResourceAlreadyExists):
                self._client.mkdir(path)
            self._folders.add(path)

    def _remove(self, name: str) -> None:
        """See `ItemFiles._remove`; a folder is left alone: a server deletes it with all in it."""
        for each in (name, f"{name}{PART_SUFFIX}"):
            if self._is_folder(each) is False:
                with suppress(NotFound), self._errors():
                    self._client.remove(each)

    def _is_folder(self, name: str) -> bool | None:
        """Whether a folder lies there; None: nothing does."""
        with suppress(NotFound), self._errors():
            found = self._client.propfind(name, headers={"Depth": "0"}, follow_redirects=True)
            return any(each.properties.collection for each in found.responses.values())
        return None

    def _remove_empty(self, folder: str) -> None:
        with self._errors():
            if self._client.ls(folder):
                raise Obstructed(
                    f"{folder!r} at {self} is a folder that is not empty, not a file",
                    remedy="move it away, and publish again",
                )
            self._client.remove(folder)

    def _explain(self, name: str) -> None:
        """Say why a file cannot be written: what is missing, or lies in the place of another."""
        if self._is_folder("") is None:
            self._folders.clear()
            raise TargetAway(f"the folder {self} is not there", remedy="create it on the server")
        part = f"{name}{PART_SUFFIX}"
        if self._is_folder(part):
            self._remove_empty(part)
        for folder in _prefixes(name.rpartition("/")[0]):
            if self._is_folder(folder) is False:
                raise Obstructed(
                    f"{folder!r} at {self} is a file, not a folder",
                    remedy="remove it, and publish again",
                )

    def _names(self) -> Iterable[str]:
        return self._files("")

    def _files(self, folder: str) -> Iterator[str]:
        with self._errors():
            found = self._client.ls(folder, detail=True)
        for each in found:
            if each["type"] != "directory":
                yield each["name"]
            elif each["name"].strip("/") != folder:
                yield from self._files(each["name"].strip("/"))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Our errors in place of the client's."""
        with needed_for("publishing to WebDAV"):
            from webdav4 import client  # noqa: PLC0415 - of an extra

        with network_errors(self):
            try:
                yield
            except client.ResourceAlreadyExists:
                raise
            except client.ResourceNotFound as error:
                raise NotFound(f"no file {error.path!r} at {self}") from error
            except client.HTTPError as error:
                answer = error.response
                raise self._failure(answer.status_code, answer.headers) from error
            except client.MultiStatusError as error:  # with words of the server's
                raise TargetAway(f"{self} answers that some of it failed") from error
            except client.ClientError as error:
                raise TargetAway(f"{self}: {error}") from error
            except UNREADABLE as error:
                raise unreadable(self, error) from error

    def _failure(self, status: int, headers: Mapping[str, str]) -> GenmillError:
        if status == HTTPStatus.CONFLICT:  # a folder above it is not there any more
            self._folders.clear()
            return TargetAway(f"{self} answers 409: a folder is missing")
        return failure(self, status, headers.get("retry-after"))


def _is_answer(error: GenmillError) -> bool:
    """Whether a server has answered with what became an error."""
    from webdav4.client import ClientError  # noqa: PLC0415 - of an extra

    return isinstance(error.__cause__, ClientError)


def _prefixes(folder: str) -> Iterator[str]:
    """A folder and those above it, from the top."""
    parts = [part for part in folder.split("/") if part]
    return ("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))


TARGET = Webdav

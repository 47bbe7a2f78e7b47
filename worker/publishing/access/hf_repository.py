"""A repository of the Hugging Face hub, written in commits, or a folder of its layout, as files.

What follows from a list of all files is written only `after` that list: if something was changed
meanwhile, it is refused (`Outdated`), and the caller reads the files again.
"""

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from db.causes import Cause
from db.errors import NotFound, Refused
from worker.extras import needed_for
from worker.publishing.access import addresses, public_files
from worker.publishing.access.hf_errors import is_of_arguments, outage
from worker.publishing.access.http import UNREADABLE, failure, network_errors, unreadable
from worker.publishing.base import TargetAway

if TYPE_CHECKING:
    import httpx
    from huggingface_hub import HfApi


class Outdated(TargetAway):
    """Another worker, or somebody else, has changed the files meanwhile."""

    cause = Cause.SERVICE


@dataclass(frozen=True)
class Listing:
    """All files at one time: what tells the content of each from others, by its name."""

    versions: Mapping[str, str]
    commit: str | None = None  # of a repository


class Files(ABC):
    """Files by their names, with slashes."""

    # whether what is written after a listing is refused, and not undone by the next who writes
    is_atomic: ClassVar[bool] = False

    def open(self) -> None:  # noqa: B027 - a folder has nothing to open
        """Make what threads share."""

    def close(self) -> None:  # noqa: B027 - as above
        """Close connections."""

    def sweep(self) -> None:  # noqa: B027 - a commit leaves nothing unfinished
        """Remove what killed workers left of files."""

    @abstractmethod
    def write(self, files: Mapping[str, bytes], *, why: str, after: Listing | None = None) -> None:
        """Write files, together where that is possible. Raises `Outdated`."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises `NotFound`."""

    @abstractmethod
    def remove(self, names: Sequence[str], *, why: str, after: Listing | None = None) -> None:
        """Remove files that are there. Raises `Outdated`."""

    @abstractmethod
    def listing(self, known: Listing | None = None) -> Listing:
        """All files; `known` if it is told cheaply that none has changed since."""

    @abstractmethod
    def holds(self, listing: Listing, name: str, data: bytes) -> bool:
        """Whether a file of the listing has these bytes."""


class InFolder(Files):
    """A folder of the layout of a repository."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    def write(self, files: Mapping[str, bytes], *, why: str, after: Listing | None = None) -> None:
        """See `Files.write`; what was changed until the last file was written is noticed."""
        for name, data in files.items():
            public_files.write(self._root, name, data)
        self._require(after, but=files)

    def read(self, name: str) -> bytes:
        """See `Files.read`."""
        return public_files.read(self._root, name)

    def remove(self, names: Sequence[str], *, why: str, after: Listing | None = None) -> None:
        """See `Files.remove`."""
        for name in names:
            public_files.remove(self._root, name)
        self._require(after, but=names)

    def sweep(self) -> None:
        """See `Files.sweep`."""
        public_files.sweep(self._root)

    def listing(self, known: Listing | None = None) -> Listing:
        """See `Files.listing`."""
        return Listing(dict(public_files.versions(self._root)))

    def holds(self, listing: Listing, name: str, data: bytes) -> bool:
        """See `Files.holds`."""
        with suppress(NotFound):  # removed since
            return name in listing.versions and self.read(name) == data
        return False

    def _require(self, listing: Listing | None, *, but: Iterable[str]) -> None:
        """Raise `Outdated` if any files but some have changed since a listing, if there is one."""
        if listing is not None:
            now = self.listing().versions
            changed = {name for name, _ in now.items() ^ listing.versions.items()} - set(but)
            if changed:
                raise Outdated(f"{self}: {min(changed)} was changed meanwhile")


class Repository(Files):
    """`datasets/OWNER/NAME` or, of a model, `OWNER/NAME`; made if it is not there."""

    is_atomic: ClassVar[bool] = True

    def __init__(
        self, place: str, *, token: str | None, endpoint: str | None, timeout_s: float
    ) -> None:
        self._place, self._token, self._timeout_s = place, token, timeout_s
        self._endpoint = endpoint
        self._type = "dataset" if place.startswith("datasets/") else "model"
        self._repo = place.removeprefix("datasets/")
        self._made = False

    def __str__(self) -> str:
        return f"hf://{self._place}"

    def open(self) -> None:
        """See `Files.open`."""
        _ = self._api, self._client

    def close(self) -> None:
        """See `Files.close`."""
        if "_client" in self.__dict__:
            self._client.close()

    def write(self, files: Mapping[str, bytes], *, why: str, after: Listing | None = None) -> None:
        """See `Files.write`: one commit."""
        from huggingface_hub import CommitOperationAdd  # noqa: PLC0415 - of an extra

        self._commit([CommitOperationAdd(name, data) for name, data in files.items()], why, after)

    def read(self, name: str) -> bytes:
        """See `Files.read`."""
        url = f"{self._api.endpoint}/{self._place}/resolve/main/{quote(name)}"
        with network_errors(self):
            answer = self._client.get(url)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            raise NotFound(f"no file {name!r} in {self}")
        if not answer.is_success:
            raise failure(self, answer.status_code, answer.headers.get("retry-after"))
        return answer.content

    def remove(self, names: Sequence[str], *, why: str, after: Listing | None = None) -> None:
        """See `Files.remove`: one commit."""
        from huggingface_hub import CommitOperationDelete  # noqa: PLC0415 - of an extra

        self._commit([CommitOperationDelete(name) for name in names], why, after)

    def listing(self, known: Listing | None = None) -> Listing:
        """See `Files.listing`: those of the latest commit, by what git and LFS know them by."""
        from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415 - of an extra

        self._make()
        with self._errors():
            commit = self._api.repo_info(
                self._repo, repo_type=self._type, expand="sha", timeout=self._timeout_s
            ).sha
            if known is not None and known.commit == commit:
                return known
            found = self._api.list_repo_tree(
                self._repo, recursive=True, revision=commit, repo_type=self._type
            )
            files = [each for each in found if isinstance(each, RepoFile)]
        versions = {each.path: each.lfs.sha256 if each.lfs else each.blob_id for each in files}
        return Listing(versions, commit)

    def holds(self, listing: Listing, name: str, data: bytes) -> bool:
        """See `Files.holds`; nothing is read."""
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        return listing.versions.get(name) in {blob, hashlib.sha256(data).hexdigest()}

    def _commit(self, operations: list[Any], why: str, after: Listing | None) -> None:
        self._make()
        parent = after.commit if after else None
        with self._errors():
            self._api.create_commit(
                self._repo,
                operations,
                commit_message=why,
                repo_type=self._type,
                parent_commit=parent,
            )

    def _make(self) -> None:
        if not self._made:
            with self._errors():
                self._api.create_repo(self._repo, repo_type=self._type, exist_ok=True)
            self._made = True

    @cached_property
    def _api(self) -> "HfApi":
        with needed_for("publishing to the hub"):
            from huggingface_hub import HfApi  # noqa: PLC0415 - of an extra

        api = HfApi(endpoint=self._endpoint, token=self._token or False)
        addresses.endpoint(api.endpoint, "the endpoint of the hub")  # may be that of HF_ENDPOINT
        return api

    @cached_property
    def _client(self) -> "httpx.Client":
        with needed_for("publishing to the hub"):
            import httpx  # noqa: PLC0415 - of an extra

        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        return httpx.Client(headers=headers, timeout=self._timeout_s, follow_redirects=True)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Our errors in place of the library's, which by itself would wait without an end."""
        from huggingface_hub import get_session  # noqa: PLC0415 - of an extra
        from huggingface_hub.errors import (  # noqa: PLC0415 - as above
            HfHubHTTPError,
            HFValidationError,
        )

        try:
            with _bounded(get_session(), self._timeout_s):
                yield
        except HFValidationError as error:
            raise Refused(f"{self} names no repository: {error}") from error
        except HfHubHTTPError as error:
            status, headers = error.response.status_code, error.response.headers
            if status in {HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED}:
                raise Outdated(f"{self}: another commit came before") from error
            raise failure(self, status, headers.get("retry-after")) from error
        except Exception as error:
            if (away := outage(error, self)) is not None:
                raise away from error
            if isinstance(error, UNREADABLE) and not is_of_arguments(error):
                raise unreadable(self, error) from error
            raise


_bounding = threading.Lock()
_bounded_sessions: dict[Any, tuple[Any, int]] = {}  # what each waited before; users now


@contextmanager
def _bounded(session: Any, timeout_s: float) -> Iterator[None]:
    """Let the library's session, which all of the process share, wait so long until the end."""
    with _bounding:
        before, users = _bounded_sessions.get(session, (session.timeout, 0))
        _bounded_sessions[session] = before, users + 1
        session.timeout = timeout_s
    try:
        yield
    finally:
        with _bounding:
            before, users = _bounded_sessions.pop(session)
            if users > 1:
                _bounded_sessions[session] = before, users - 1
            else:
                session.timeout = before

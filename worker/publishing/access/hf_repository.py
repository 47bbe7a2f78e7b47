"""A repository of the Hugging Face hub, written in commits, or a folder of its layout, as files."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from db.errors import NotFound
from worker.extras import needed_for
from worker.publishing.access import addresses, public_files
from worker.publishing.access.http import failure, network_errors
from worker.publishing.base import TargetAway

if TYPE_CHECKING:
    import httpx
    from huggingface_hub import HfApi


class Files(ABC):
    """Files by their names, with slashes."""

    def open(self) -> None:  # noqa: B027 - a folder has nothing to open
        """Make what threads share."""

    def close(self) -> None:  # noqa: B027 - as above
        """Close connections."""

    def sweep(self) -> None:  # noqa: B027 - a commit leaves nothing unfinished
        """Remove what killed workers left of files."""

    @abstractmethod
    def write(self, files: Mapping[str, bytes], *, why: str) -> None:
        """Write files, together where that is possible."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises `NotFound`."""

    @abstractmethod
    def remove(self, names: Sequence[str], *, why: str) -> None:
        """Remove files that are there."""

    @abstractmethod
    def names(self) -> list[str]:
        """All files, in order."""


class InFolder(Files):
    """A folder of the layout of a repository."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    def write(self, files: Mapping[str, bytes], *, why: str) -> None:
        """See `Files.write`."""
        for name, data in files.items():
            public_files.write(self._root, name, data)

    def read(self, name: str) -> bytes:
        """See `Files.read`."""
        return public_files.read(self._root, name)

    def remove(self, names: Sequence[str], *, why: str) -> None:
        """See `Files.remove`."""
        for name in names:
            public_files.remove(self._root, name)

    def sweep(self) -> None:
        """See `Files.sweep`."""
        public_files.sweep(self._root)

    def names(self) -> list[str]:
        """See `Files.names`."""
        public_files.require_folder(self._root)
        found = (each for each in self._root.rglob("*") if each.is_file())
        return sorted(each.relative_to(self._root).as_posix() for each in found)


class Repository(Files):
    """`datasets/OWNER/NAME` or, of a model, `OWNER/NAME`; made if it is not there."""

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

    def write(self, files: Mapping[str, bytes], *, why: str) -> None:
        """See `Files.write`: one commit."""
        from huggingface_hub import CommitOperationAdd  # noqa: PLC0415 - of an extra

        self._commit([CommitOperationAdd(name, data) for name, data in files.items()], why)

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

    def remove(self, names: Sequence[str], *, why: str) -> None:
        """See `Files.remove`: one commit."""
        from huggingface_hub import CommitOperationDelete  # noqa: PLC0415 - of an extra

        self._commit([CommitOperationDelete(name) for name in names], why)

    def names(self) -> list[str]:
        """See `Files.names`."""
        self._make()
        with self._errors():
            return sorted(self._api.list_repo_files(self._repo, repo_type=self._type))

    def _commit(self, operations: list[Any], why: str) -> None:
        self._make()
        with self._errors():
            self._api.create_commit(
                self._repo, operations, commit_message=why, repo_type=self._type
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
        """Our errors in place of the library's."""
        from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415 - of an extra

        try:
            yield
        except HfHubHTTPError as error:
            status, headers = error.response.status_code, error.response.headers
            if status in {HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED}:
                raise TargetAway(f"{self}: another commit came before") from error
            raise failure(self, status, headers.get("retry-after")) from error
        except Exception as error:
            # the library has an httpx of its own
            if not type(error).__module__.startswith("httpx"):
                raise
            raise TargetAway(f"{self} does not answer: {error}") from error

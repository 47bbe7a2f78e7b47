"""What an object store is: objects under keys, and the code that every kind of store shares."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

from db.errors import DigestMismatch, Refused
from worker.files import CHUNK, digest_of, disk_errors, part_of, settle

MAX_KEY = 400
MAX_URL_S = 7 * 86_400  # S3's own limit on presigned URLs

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Blob:
    """A stored object. `sha256` is empty where it is not known: `stat` of a key without one."""

    key: str
    sha256: str
    size: int


class ObjectStore(ABC):
    """Objects under keys such as `jobs/{id}/blobs/{sha256}`. Reads and writes stream.

    A missing object is `NotFound`. A store that cannot be used now (a missing or forbidden bucket,
    a network or disk error) is `Unreachable`, with the remedy. Safe to share between threads and to
    use after a fork.
    """

    @abstractmethod
    def put(self, prefix: str, path: Path) -> Blob:
        """Store a file as `{prefix}/{its SHA-256}`.

        An object that is there already is not stored again unless it is old; either way it counts
        as new for the `older_than_s` of `keys`.
        """

    @abstractmethod
    def put_bytes(self, prefix: str, data: bytes) -> Blob:
        """`put` of bytes in memory."""

    @abstractmethod
    def put_as(self, key: str, data: bytes) -> Blob:
        """Store under a chosen key; `DigestMismatch` where it holds other bytes already."""

    @abstractmethod
    def open(
        self, key: str, *, start: int = 0, stop: int | None = None
    ) -> AbstractContextManager[BinaryIO]:
        """Read bytes `start` to `stop` (to the end where None) as a stream."""

    @abstractmethod
    def stat(self, key: str) -> Blob:
        """The key, size and digest of an object, without reading it."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""

    @abstractmethod
    def keys(self, prefix: str, *, older_than_s: float | None = None) -> Iterator[str]:
        """Every key below the folder `prefix`, in order, as the listing goes on.

        With `older_than_s`, only objects last stored longer ago than that, by the store's clock.
        """

    @abstractmethod
    def url(self, key: str, expires_s: int) -> str:
        """A URL that gives read access to this one object until it expires."""

    @abstractmethod
    def check(self) -> None:
        """Write and remove a small object; `Unreachable` says what prevents it."""

    @abstractmethod
    def abort_uploads(self, prefix: str, older_than_s: float) -> int:
        """Remove what interrupted uploads left behind; return how many there were."""

    def fetch(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        """Download to `path`, whole or not at all, resuming an interrupted download.

        With `sha256`, a file that has it already is left alone, and other bytes raise
        `DigestMismatch` and are not kept.
        """
        with disk_errors(path.parent):
            if sha256 and path.is_file() and digest_of(path) == sha256:
                return
            with part_of(path) as part:
                resumed, temporary = part.tell() > 0, Path(part.name)
                self._append(key, part)
                found = sha256 and digest_of(temporary)
                if resumed and found != sha256:
                    # what was left may be damaged or of another object: once more from the start
                    part.truncate(0)
                    self._append(key, part)
                    found = sha256 and digest_of(temporary)
                if found != sha256:
                    temporary.unlink(missing_ok=True)
                    raise DigestMismatch(
                        f"object {key}: its bytes have SHA-256 {found}, on record is {sha256}"
                    )
                settle(temporary, path)

    def _append(self, key: str, part: BinaryIO) -> None:
        """Download what `part` lacks of the object."""
        size, start = self.stat(key).size, part.seek(0, 2)
        if start > size:
            start = part.truncate(0)
        if start < size:
            with self.open(key, start=start) as source:
                # read1 returns what came before a stream broke, so that it is not fetched twice
                while chunk := cast(BufferedReader, source).read1(CHUNK):
                    part.write(chunk)
        part.flush()


def checked(key: str) -> str:
    """`key`, or `Refused` unless it is certain to name something inside the store."""
    parts = key.split("/")
    if len(key) > MAX_KEY or not all(_PART.fullmatch(part) for part in parts):
        raise Refused(
            f"{key!r} is no object key",
            remedy=f"use at most {MAX_KEY} characters: parts of letters, digits, '.', '_', '=' and "
            "'-' that begin with a letter or digit, joined by '/'",
        )
    return key


def checked_expiry(expires_s: int) -> int:
    """`expires_s`, or `Refused` where it is out of bounds."""
    if not 1 <= expires_s <= MAX_URL_S:
        raise Refused(f"a URL cannot expire in {expires_s} s: from 1 to {MAX_URL_S}")
    return expires_s


def named_digest(key: str) -> str:
    """The SHA-256 that a key ends in, or an empty string."""
    last = key.rpartition("/")[2]
    return last if _DIGEST.fullmatch(last) else ""


def require_same(key: str, there: bytes, data: bytes) -> None:
    """Raise `DigestMismatch` unless the bytes already under `key` are `data`."""
    if there != data:
        raise DigestMismatch(f"object {key} already holds {len(there)} other bytes; they are kept")

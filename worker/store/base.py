"""What an object store is: blobs under keys, and the part of the work that every store shares.

Knows neither folders nor S3 (see `worker.store`), and no jobs.
"""

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
MAX_URL_S = 7 * 86_400  # S3's own limit on presigned addresses

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Blob:
    """A stored object. `sha256` is empty where nothing says it: `stat` of a key without one."""

    key: str
    sha256: str
    size: int


class ObjectStore(ABC):
    """Objects under keys such as `jobs/{id}/blobs/{sha256}`. Reads and writes stream.

    A missing object is `NotFound`. A store that cannot be used now (a bucket that is absent or
    forbidden, trouble of network or disk) is `Unreachable`, with the remedy. Safe to share between
    threads and to carry over a fork.
    """

    @abstractmethod
    def put(self, prefix: str, path: Path) -> Blob:
        """Store a file as `{prefix}/{its SHA-256}`; nothing is sent where it is there already."""

    @abstractmethod
    def put_bytes(self, prefix: str, data: bytes) -> Blob:
        """`put` of bytes in memory."""

    @abstractmethod
    def put_as(self, key: str, data: bytes) -> Blob:
        """Store under a chosen key. The same bytes again are fine, others a `DigestMismatch`."""

    @abstractmethod
    def open(
        self, key: str, *, start: int = 0, stop: int | None = None
    ) -> AbstractContextManager[BinaryIO]:
        """Read bytes `start` to `stop` (to the end where None) as a stream."""

    @abstractmethod
    def stat(self, key: str) -> Blob:
        """What is known of an object without reading it."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""

    @abstractmethod
    def keys(self, prefix: str) -> Iterator[str]:
        """Every key below the folder `prefix`."""

    @abstractmethod
    def url(self, key: str, expires_s: int) -> str:
        """An address that this one object can be read from until it expires."""

    @abstractmethod
    def check(self) -> None:
        """Write and remove a small object; `Unreachable` says what stands in the way."""

    @abstractmethod
    def abort_uploads(self, prefix: str, older_than_s: float) -> int:
        """Drop what uploads that were cut short left behind; returns how many there were."""

    def fetch(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        """Download to `path`, whole or not at all; one that was cut short goes on where it stopped.

        Where `sha256` is given, a file that has it already is left alone, and bytes that differ
        raise `DigestMismatch` and are not kept.
        """
        with disk_errors(path.parent):
            if sha256 and path.is_file() and digest_of(path) == sha256:
                return
            with part_of(path) as part:
                resumed = part.tell() > 0
                self._append(key, part)
                if resumed and sha256 and digest_of(Path(part.name)) != sha256:
                    # what was left there may be torn or of another object: once more from its start
                    part.truncate(0)
                    self._append(key, part)
                _verify(Path(part.name), key, sha256)
                settle(Path(part.name), path)

    def _append(self, key: str, part: BinaryIO) -> None:
        """Add to `part` what it still lacks of the object."""
        size, start = self.stat(key).size, part.seek(0, 2)
        if start > size:
            start = part.truncate(0)
        if start < size:
            with self.open(key, start=start) as source:
                # read1 hands over what came before a stream broke, so that it need not come twice
                while chunk := cast(BufferedReader, source).read1(CHUNK):
                    part.write(chunk)
        part.flush()


def _verify(part: Path, key: str, sha256: str | None) -> None:
    if sha256 is None:
        return
    found = digest_of(part)
    if found != sha256:
        part.unlink(missing_ok=True)
        raise DigestMismatch(f"object {key}: its bytes have SHA-256 {found}, on record is {sha256}")


def checked(key: str) -> str:
    """`key`, once it is sure to name something inside the store and nothing else."""
    parts = key.split("/")
    if len(key) > MAX_KEY or not all(_PART.fullmatch(part) for part in parts):
        raise Refused(
            f"{key!r} is no object key: at most {MAX_KEY} characters, parts of letters, digits, "
            "'.', '_', '=' and '-' that begin with a letter or digit, joined by '/'"
        )
    return key


def checked_expiry(expires_s: int) -> int:
    """`expires_s`, refused where it is out of bounds."""
    if not 1 <= expires_s <= MAX_URL_S:
        raise Refused(f"an address cannot expire in {expires_s} s: from 1 to {MAX_URL_S}")
    return expires_s


def named_digest(key: str) -> str:
    """The SHA-256 that a key ends in, or an empty text."""
    last = key.rpartition("/")[2]
    return last if _DIGEST.fullmatch(last) else ""


def same(key: str, there: bytes, data: bytes) -> None:
    """Raise `DigestMismatch` unless what lies under `key` is `data`."""
    if there != data:
        raise DigestMismatch(
            f"object {key} holds {len(there)} other bytes already: it stays as it is"
        )

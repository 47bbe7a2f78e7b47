"""The interface of object stores, and the code that they share."""

import hashlib
import math
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from db.errors import DigestMismatch, NotFound, Refused
from worker.files import CHUNK, digest_of, disk_errors, durable_rename, partial_download

MAX_KEY = 400  # characters
SENTINEL = "store-id"  # key of the object that tells a store from every other
STORE_KEY = "store-key"  # key of the object that holds the wrapped data key of an encrypted one
ENCRYPTION = "GENMILL_STORE_ENCRYPTION"  # the setting
OWN = frozenset({SENTINEL, STORE_KEY})  # what a store says of itself; never encrypted
_MAX_SENTINEL = 100  # bytes
MAX_URL_S = 7 * 86_400  # S3's own limit on presigned URLs

KEYS = (
    f"at most {MAX_KEY} characters: parts joined by '/', each of letters, digits, '.', '_', '=' "
    "and '-', beginning with a letter or digit"
)

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


OnBytes = Callable[[int], object]  # called from several threads


def ignore_bytes(size: int) -> None:
    """An `OnBytes` for who shows no progress."""


@dataclass(frozen=True)
class Blob:
    """A stored object. `sha256` is empty if unknown: `stat` takes it from the key."""

    key: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Limit:
    """What a store cannot do, and what follows; `covered` if that does no harm."""

    missing: str
    follows: str
    covered: bool = False

    def __str__(self) -> str:
        return f"{self.missing}: {self.follows}"


class Owner(Protocol):
    """Who knows which store this should be."""

    def verify(self, store: "ObjectStore") -> None:
        """Raise `Unreachable` unless `store` holds the sentinel that it should."""


class ObjectStore(ABC):
    """Objects under keys such as `jobs/{id}/blobs/{sha256}`. Reads and writes stream.

    Raises `NotFound` for a missing object, and `Unreachable` if the store cannot be used now: a
    missing or forbidden bucket, a network or disk error, or another store than the `owner` knows,
    as an empty mount point is. May be shared between threads and used after a fork.
    """

    owner: Owner | None = None  # without one, any store will do
    _verified_at = -math.inf

    @abstractmethod
    def put(self, prefix: str, path: Path) -> Blob:
        """Store a file as `{prefix}/{its SHA-256}`.

        An object that exists is not stored again unless it is old. Either way, its age in `keys`
        starts at zero again.
        """

    @abstractmethod
    def put_bytes(self, prefix: str, data: bytes, *, durable: bool = True) -> Blob:
        """Like `put`, of bytes in memory.

        What is not `durable` may be lost in a power failure until `flush` has been called: for many
        small objects, which are flushed together before the record names them.
        """

    @abstractmethod
    def put_as(self, key: str, data: bytes, *, durable: bool = True) -> Blob:
        """Store under a chosen key; `DigestMismatch` if it already holds other bytes."""

    @abstractmethod
    def flush(self) -> None:
        """Make durable what was stored otherwise."""

    @abstractmethod
    def open(
        self, key: str, *, start: int = 0, stop: int | None = None
    ) -> AbstractContextManager[BinaryIO]:
        """A stream of bytes `start` to `stop` (None: to the end)."""

    @abstractmethod
    def stat(self, key: str) -> Blob:
        """The key, size and digest of an object, without reading it."""

    @abstractmethod
    def has(self, key: str) -> bool:
        """Whether an object is there, whichever store this is."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object if it exists."""

    @abstractmethod
    def keys(self, prefix: str, *, older_than_s: float | None = None) -> Iterator[str]:
        """Every key below the folder `prefix`, in order, read as the caller iterates.

        With `older_than_s`, only objects last stored longer ago than that, by the store's clock.
        """

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Every key below the folder `prefix`, with its object's size."""
        for key in self.keys(prefix):
            with suppress(NotFound):  # deleted meanwhile
                yield key, self.stat(key).size

    @abstractmethod
    def url(self, key: str, expires_s: int) -> str:
        """A URL for reading this one object, which expires after `expires_s`."""

    def refuse_without_urls(self) -> None:  # noqa: B027 - most stores have them
        """Raise `Refused` if no object of this store has a URL."""

    @property
    def raw(self) -> "ObjectStore":
        """The store of the bytes as they lie there: this one, unless it encrypts them."""
        return self

    @abstractmethod
    def check(self) -> None:
        """Write and remove a small object; `Unreachable` says what prevents it."""

    def limits(self) -> list[Limit]:
        """What `check` found that the store cannot do."""
        return []

    @abstractmethod
    def abort_uploads(self, prefix: str, older_than_s: float) -> int:
        """Remove what interrupted uploads left behind; return their number."""

    def verify(self, *, within_s: float = -1) -> None:
        """Raise `Unreachable` if this is another store than its owner knows.

        Does nothing if that was verified at most `within_s` ago.
        """
        if self.owner is not None and time.monotonic() - self._verified_at > within_s:
            self.owner.verify(self)
            self._verified_at = time.monotonic()

    def read_sentinel(self) -> str | None:
        """The id of this store; None if it has none yet. Raises `Unreachable`."""
        lines = self._sentinel_lines()
        return lines[0] if lines else None

    def read_cipher(self) -> str | None:
        """What the objects of this store are encrypted with, by its sentinel; None: they are not.

        Raises `Unreachable`.
        """
        lines = self._sentinel_lines()
        return lines[1] if len(lines) > 1 else None

    def _sentinel_lines(self) -> list[str]:
        try:
            with self.open(SENTINEL) as file:
                text = file.read(_MAX_SENTINEL).decode("utf-8", "replace")
        except NotFound:
            return []
        return text.strip().splitlines()

    def missing(self, key: str) -> NotFound:
        """The error for an object that is not there; raises `Unreachable` if the store is away."""
        if key not in OWN:
            self.verify()
        return NotFound(f"no object {key!r} in {self}")

    def fetch(
        self,
        key: str,
        path: Path,
        *,
        sha256: str | None = None,
        durable: bool = True,
        on_bytes: OnBytes = ignore_bytes,
    ) -> None:
        """Download to `path`, whole or not at all, resuming an interrupted download.

        A file that is not `durable` may be lost or torn by a power failure: for temporary ones.
        `on_bytes` gets the number of bytes whenever some have come.

        With `sha256`, an existing file that has it is not downloaded again; a download that does
        not have it is removed and raises `DigestMismatch`.
        """
        with disk_errors(path.parent):
            if sha256 and path.is_file() and digest_of(path) == sha256:
                return
            with partial_download(path) as part:
                resumed, temporary = part.tell() > 0, Path(part.name)
                found = self._append(key, part, on_bytes)
                if resumed and sha256 and found != sha256:
                    # what was there may be damaged or of another object: start over
                    part.truncate(0)
                    found = self._append(key, part, on_bytes)
                if sha256 and found != sha256:
                    temporary.unlink(missing_ok=True)
                    raise DigestMismatch(f"object {key} has SHA-256 {found}, not {sha256}")
                if durable:
                    durable_rename(temporary, path)
                else:
                    temporary.replace(path)

    def _append(self, key: str, part: BinaryIO, on_bytes: OnBytes) -> str:
        """Download the rest of the object after what `part` holds; return the SHA-256 of all."""
        part.seek(0)
        digest = hashlib.file_digest(cast(BufferedReader, part), "sha256")
        start = part.tell()
        if start and start >= (size := self.stat(key).size):
            if start == size:
                return digest.hexdigest()
            start, digest = part.truncate(0), hashlib.sha256()
        with self.open(key, start=start) as source:
            # read1 returns what arrived before a stream broke; it is not fetched twice
            while chunk := cast(BufferedReader, source).read1(CHUNK):
                part.write(chunk)
                digest.update(chunk)
                on_bytes(len(chunk))
        part.flush()
        return digest.hexdigest()


def checked_key(key: str) -> str:
    """`key`; `Refused` unless it certainly lies inside the store."""
    if not is_key(key):
        raise Refused(f"{key!r} is not an object key", remedy=f"use {KEYS}")
    return key


def is_key(key: str) -> bool:
    """Whether `key` can be an object's, or a folder of objects'."""
    return (
        isinstance(key, str)
        and len(key) <= MAX_KEY
        and all(_PART.fullmatch(part) for part in key.split("/"))
    )


def checked_expiry(expires_s: int) -> int:
    """`expires_s`; `Refused` if it is out of bounds."""
    if not 1 <= expires_s <= MAX_URL_S:
        raise Refused(
            f"a URL cannot expire in {expires_s} s", remedy=f"use 1 to {MAX_URL_S:,} seconds"
        )
    return expires_s


def digest_in_key(key: str) -> str:
    """The SHA-256 that a key ends in, or an empty string."""
    last = key.rpartition("/")[2]
    return last if _DIGEST.fullmatch(last) else ""


def require_equal(key: str, existing: bytes, data: bytes) -> None:
    """Raise `DigestMismatch` unless the bytes already under `key` are `data`."""
    if existing != data:
        raise DigestMismatch(f"object {key} already holds {len(existing):,} other bytes")

"""An object store whose objects lie encrypted in a folder or a bucket; see `sealing` for how.

Keys, digests and sizes are those of the content, as in any store: what is on record does not tell
whether a store is encrypted.
"""

import hashlib
import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from db.errors import DigestMismatch, NotFound, Refused
from worker.store.base import (
    OWN,
    SENTINEL,
    Blob,
    Limit,
    ObjectStore,
    Owner,
    checked_key,
    digest_in_key,
    require_equal,
)
from worker.store.byte_store import ByteStore
from worker.store.data_key import DataKey
from worker.store.sealing import (
    CHUNK,
    HEADER,
    SEALED,
    Chunks,
    Pieces,
    SealedFile,
    Secrets,
    cut,
    measure,
    offset_of,
    opened_size,
    seal,
    sealed_size,
)


class EncryptedStore(ObjectStore):
    """Objects of `store`, encrypted there. Raises `DigestMismatch` for what was changed in it.

    A ranged read fetches the chunks concerned; before them the header, where the key has no digest.
    The objects that tell of the store itself are not encrypted.
    """

    def __init__(self, store: ByteStore, data_key: DataKey) -> None:
        self._store, self._data_key = store, data_key
        self._secrets: Secrets | None = None

    def __str__(self) -> str:
        return str(self._store)

    @property
    def raw(self) -> ObjectStore:
        """See `ObjectStore.raw`."""
        return self._store

    @property
    def owner(self) -> Owner | None:
        """The owner of the store beneath."""
        return self._store.owner

    @owner.setter
    def owner(self, owner: Owner | None) -> None:
        self._store.owner = owner

    def verify(self, *, within_s: float = -1) -> None:
        """See `ObjectStore.verify`."""
        self._store.verify(within_s=within_s)

    def put(self, prefix: str, path: Path) -> Blob:
        """See `ObjectStore.put`; the file is encrypted as it goes up."""
        with path.open("rb") as file:
            found = measure(file)
            blob = Blob(f"{prefix}/{found.sha256}", found.sha256, found.size)
            secrets = self._for_writing(blob.key)
            header = secrets.header(blob.key, found.sha256)
            sealed = SealedFile(file, found, header, secrets.chunks(blob.key, header))
            # a raw stream may return less than it is asked for
            stream = cast(BinaryIO, io.BufferedReader(sealed, SEALED))
            self._store.keep(_as_stored(secrets, blob), stream)
        return blob

    def put_bytes(self, prefix: str, data: bytes, *, durable: bool = True) -> Blob:
        """See `ObjectStore.put_bytes`."""
        sha256 = hashlib.sha256(data).hexdigest()
        blob = Blob(f"{prefix}/{sha256}", sha256, len(data))
        secrets = self._for_writing(blob.key)
        sealed = seal(secrets, blob, data)
        self._store.keep(_as_stored(secrets, blob), sealed, durable=durable)
        return blob

    def put_as(self, key: str, data: bytes, *, durable: bool = True) -> Blob:
        """See `ObjectStore.put_as`; equal bytes are equal when they are encrypted, too."""
        if key == SENTINEL:
            self._data_key.put_sentinel(data.decode())
            return self._store.stat(key)
        blob = Blob(key, hashlib.sha256(data).hexdigest(), len(data))
        secrets = self._for_writing(key)
        try:
            self._store.put_as(secrets.name(key), seal(secrets, blob, data), durable=durable)
        except DigestMismatch:
            with self.open(key) as existing:  # its key and size as people know them
                require_equal(key, existing.read(), data)
            raise
        return blob

    def is_name(self, name: str) -> bool:
        """Whether the store beneath has an encrypted object under this name."""
        secrets = self._known(name)
        return secrets is not None and secrets.key_of(name) is not None

    def flush(self) -> None:
        """See `ObjectStore.flush`."""
        self._store.flush()

    @contextmanager
    def open(self, key: str, *, start: int = 0, stop: int | None = None) -> Iterator[BinaryIO]:
        """See `ObjectStore.open`; each chunk is checked before any of its bytes are handed out."""
        with ExitStack() as stack:
            if key in OWN:
                yield stack.enter_context(self._store.open(key, start=start, stop=stop))
            elif stop is not None and stop <= start:
                self.stat(key)
                yield io.BytesIO()
            else:
                pieces = self._window(key, start, stop, stack)
                yield cast(BinaryIO, io.BufferedReader(Pieces(pieces), CHUNK))

    def stat(self, key: str) -> Blob:
        """See `ObjectStore.stat`; the size is that of the content."""
        if key in OWN:
            return self._store.stat(key)
        secrets = self._for_reading(key)
        with self._by_key(key):
            found = self._store.stat(secrets.name(key))
        return Blob(key, digest_in_key(key), opened_size(found.size))

    def has(self, key: str) -> bool:
        """See `ObjectStore.has`."""
        if key in OWN:
            return self._store.has(key)
        secrets = self._known(key)
        return secrets is not None and self._store.has(secrets.name(key))

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        if key in OWN:
            self._store.delete(key)
        elif (secrets := self._known(key)) is not None:
            self._store.delete(secrets.name(key))

    def keys(self, prefix: str, *, older_than_s: float | None = None) -> Iterator[str]:
        """See `ObjectStore.keys`, but in the order of their names; others' files are left out."""
        secrets = self._known(prefix)
        for name in self._store.keys(prefix, older_than_s=older_than_s):
            if secrets is not None and (key := secrets.key_of(name)):
                yield key

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """See `ObjectStore.sizes`."""
        secrets = self._known(prefix)
        for name, size in self._store.sizes(prefix):
            if secrets is not None and (key := secrets.key_of(name)):
                yield key, opened_size(size)

    def url(self, key: str, expires_s: int) -> str:
        """Raise `Refused`: whoever followed it would get what is encrypted."""
        raise _no_urls()

    def refuse_without_urls(self) -> None:
        """See `ObjectStore.refuse_without_urls`."""
        raise _no_urls()

    def check(self) -> None:
        """See `ObjectStore.check`."""
        self._store.check()

    def limits(self) -> list[Limit]:
        """See `ObjectStore.limits`."""
        return self._store.limits()

    def abort_uploads(self, prefix: str, older_than_s: float) -> int:
        """See `ObjectStore.abort_uploads`."""
        return self._store.abort_uploads(prefix, older_than_s)

    def _window(
        self, key: str, start: int, stop: int | None, stack: ExitStack
    ) -> Iterator[memoryview]:
        """The bytes `start` to `stop` of an object, which stays open for as long as `stack`."""
        secrets, first = self._for_reading(key), start // CHUNK
        name, header = secrets.name(key), b""
        last = None if stop is None else (stop - 1) // CHUNK
        with self._by_key(key):
            if first:
                header = self._header(secrets, key)
            begin = offset_of(first) if first else 0
            end = None if last is None else offset_of(last + 1)
            stored = stack.enter_context(self._store.open(name, start=begin, stop=end))
        chunks = secrets.chunks(key, header or stored.read(HEADER))
        pieces = self._pieces(stored, chunks, name, first, last)
        return cut(pieces, start - first * CHUNK, None if stop is None else stop - start)

    def _header(self, secrets: Secrets, key: str) -> bytes:
        """What an object begins with; it follows from the digest that most keys end in."""
        if sha256 := digest_in_key(key):
            return secrets.header(key, sha256)
        with self._store.open(secrets.name(key), stop=HEADER) as stored:
            return stored.read()

    def _pieces(
        self, stored: BinaryIO, chunks: Chunks, name: str, first: int, last: int | None
    ) -> Iterator[bytes]:
        number = first
        while last is None or number <= last:
            sealed = stored.read(SEALED)
            if not sealed and number == first > 0:  # beyond the end, if that is the end
                self._require_end(chunks, name)
                return
            yield chunks.open(number, sealed)
            if len(sealed) < SEALED:
                return
            number += 1

    def _require_end(self, chunks: Chunks, name: str) -> None:
        """Raise `DigestMismatch` unless the object ends with its last chunk."""
        last = max(0, (self._store.stat(name).size - HEADER) // SEALED)
        with self._store.open(name, start=offset_of(last)) as stored:
            chunks.open(last, stored.read(SEALED))

    def _known(self, key: str) -> Secrets | None:
        """What the objects are encrypted with; None if nothing has been stored yet."""
        checked_key(key)
        if self._secrets is None and (data_key := self._data_key.find()) is not None:
            self._secrets = Secrets(data_key)
        return self._secrets

    def _for_reading(self, key: str) -> Secrets:
        if (secrets := self._known(key)) is None:
            raise self.missing(key)
        return secrets

    def _for_writing(self, key: str) -> Secrets:
        if (secrets := self._known(key)) is None:
            self.verify()  # the owner makes the key of a new store
            secrets = self._secrets = Secrets(self._data_key.make())
        return secrets

    @contextmanager
    def _by_key(self, key: str) -> Iterator[None]:
        """Name the object by its key where it is missing."""
        try:
            yield
        except NotFound:
            raise NotFound(f"no object {key!r} in {self}") from None


def _as_stored(secrets: Secrets, blob: Blob) -> Blob:
    """The object as the store beneath knows it."""
    return Blob(secrets.name(blob.key), "", sealed_size(blob.size))


def _no_urls() -> Refused:
    return Refused(
        "the objects of an encrypted store have no URL: whoever followed it could not read them",
        remedy="`genmill artifact download` decrypts; its --sample fetches some samples alone",
    )

"""Stores of bytes as they are: what an encrypted store lies in, too."""

import hashlib
from abc import abstractmethod
from pathlib import Path
from typing import BinaryIO

from worker.files import digest_of
from worker.store.base import Blob, ObjectStore


class ByteStore(ObjectStore):
    """An object store that also takes bytes under a key that somebody else has made for them."""

    @abstractmethod
    def keep(self, blob: Blob, source: BinaryIO | bytes, *, durable: bool = True) -> None:
        """Store `source` under `blob.key`, which no other bytes can have.

        An object that is there with `blob.size` bytes is not stored again unless it is old; its age
        starts at zero again. A stream is read from its start; it must be seekable.
        """

    @abstractmethod
    def replace(self, key: str, data: bytes) -> None:
        """Store under a chosen key, in place of what is there; readers see either."""

    def put(self, prefix: str, path: Path) -> Blob:
        """See `ObjectStore.put`."""
        sha256 = digest_of(path)
        blob = Blob(f"{prefix}/{sha256}", sha256, path.stat().st_size)
        with path.open("rb") as file:
            self.keep(blob, file)
        return blob

    def put_bytes(self, prefix: str, data: bytes, *, durable: bool = True) -> Blob:
        """See `ObjectStore.put_bytes`."""
        sha256 = hashlib.sha256(data).hexdigest()
        blob = Blob(f"{prefix}/{sha256}", sha256, len(data))
        self.keep(blob, data, durable=durable)
        return blob

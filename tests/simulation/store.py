"""The simulated object store: a dictionary behind a network that fails as it is told.

What was stored without `durable` is lost in a power failure until `flush`, as in a folder.
"""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from db.errors import DigestMismatch, NotFound, Unreachable
from worker.store.base import Blob, ObjectStore, digest_in_key, require_equal

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass
class Object:
    """A stored object."""

    data: bytes
    stored_at: float
    durable: bool


class SimulatedStore(ObjectStore):
    """A store for one simulation."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.objects: dict[str, Object] = {}

    def holds(self, key: str, sha256: str) -> bool:
        """Whether an object is there and whole, however the network is."""
        found = self.objects.get(key)
        return found is not None and hashlib.sha256(found.data).hexdigest() == sha256

    def lose_power(self) -> None:
        """Lose what was not flushed."""
        self.objects = {key: each for key, each in self.objects.items() if each.durable}

    def put(self, prefix: str, path: Path) -> Blob:
        return self.put_bytes(prefix, path.read_bytes())

    def put_bytes(self, prefix: str, data: bytes, *, durable: bool = True) -> Blob:
        sha256 = hashlib.sha256(data).hexdigest()
        return self._store(f"{prefix}/{sha256}", data, sha256, durable=durable)

    def put_as(self, key: str, data: bytes, *, durable: bool = True) -> Blob:
        self._reach()
        if key in self.objects:
            require_equal(key, self.objects[key].data, data)
        return self._store(key, data, hashlib.sha256(data).hexdigest(), durable=durable)

    def flush(self) -> None:
        self._reach()
        for each in self.objects.values():
            each.durable = True

    @contextmanager
    def open(self, key: str, *, start: int = 0, stop: int | None = None) -> Iterator[BinaryIO]:
        yield io.BytesIO(self._find(key).data[start:stop])

    def fetch(self, key: str, path: Path, *, sha256: str | None = None, **_: object) -> None:
        data = self._find(key).data
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise DigestMismatch(f"object {key} is damaged")
        path.write_bytes(data)

    def stat(self, key: str) -> Blob:
        return Blob(key, digest_in_key(key), len(self._find(key).data))

    def has(self, key: str) -> bool:
        self._reach()
        return key in self.objects

    def delete(self, key: str) -> None:
        self._reach()
        self.objects.pop(key, None)

    def keys(self, prefix: str, *, older_than_s: float | None = None) -> Iterator[str]:
        self._reach()
        before = self._world.machine.now - (older_than_s or -1)
        for key in sorted(self.objects):
            if key.startswith(f"{prefix}/") and self.objects[key].stored_at < before:
                yield key

    def url(self, key: str, expires_s: int) -> str:
        return f"simulated:{key}"

    def check(self) -> None:
        self._reach()

    def abort_uploads(self, prefix: str, older_than_s: float) -> int:
        return 0

    def _store(self, key: str, data: bytes, sha256: str, *, durable: bool) -> Blob:
        self._reach()
        kept = key in self.objects and self.objects[key].durable
        self.objects[key] = Object(data, self._world.machine.now, durable or kept)
        if self._world.happens("store_unheard"):
            raise Unreachable("the store's answer was lost")
        return Blob(key, sha256, len(data))

    def _find(self, key: str) -> Object:
        self._reach()
        if key not in self.objects:
            raise NotFound(f"no object {key}")
        return self.objects[key]

    def _reach(self) -> None:
        self._world.latency()
        if self._world.store_is_away or self._world.happens("store_refuses"):
            raise Unreachable("the store does not answer")

"""Packs: objects that hold the bytes of many others, which would each cost a write of its own.

A pack is written once, under a number that no other has, and each part's digest is on record.
"""

import re
import secrets
import threading
from dataclasses import dataclass, field

from db.commits import Range, pack_key
from worker.store.base import ObjectStore

PREFIX = "packs"
_KEY = re.compile(r"packs/([0-7][0-9a-f]{15})")
PACK_BYTES = 8 << 20  # a pack is full beyond this
PACKS_KEPT = 8  # by a reader
RANGES_READ = 2  # of a pack, before it is read whole: an artifact and its index


def number_in(key: str) -> int | None:
    """The number of the pack with this key; None if it is no pack's."""
    found = _KEY.fullmatch(key)
    return int(found[1], 16) if found else None


class PackWriter:
    """Collects the bytes of a pack and stores it."""

    def __init__(self) -> None:
        self.number = secrets.randbits(63)
        self._data = bytearray()

    def add(self, data: bytes) -> Range:
        """Append bytes; return where they are going to lie."""
        offset = len(self._data)
        self._data += data
        return Range(self.number, offset, len(data))

    def __len__(self) -> int:
        return len(self._data)

    def store(self, store: ObjectStore) -> None:
        """Store the pack. Flush the store, then record what lies in it."""
        store.put_as(pack_key(self.number), bytes(self._data), durable=False)


@dataclass
class _Pack:
    reads: int = 0
    data: bytes | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class PackReader:
    """Reads from packs: the first ranges alone, then the whole pack, which is kept.

    So one sample costs its own bytes, and all samples of a batch cost each pack once. May be shared
    between threads.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._packs: dict[int, _Pack] = {}  # the latest at the end
        self._lock = threading.Lock()

    def read(self, part: Range) -> bytes:
        """The bytes of a range, fewer if the pack is shorter. Raises as the store does."""
        pack = self._find(part.pack)
        with pack.lock:  # the others wait for the one that reads it whole
            pack.reads += 1
            if pack.reads <= RANGES_READ:
                return self._fetch(part.key, part.offset, part.offset + part.size)
            if pack.data is None:
                pack.data = self._fetch(part.key)
        return pack.data[part.offset : part.offset + part.size]

    def _find(self, number: int) -> _Pack:
        with self._lock:
            pack = self._packs.pop(number, None) or _Pack()
            self._packs[number] = pack
            while len(self._packs) > PACKS_KEPT:
                del self._packs[next(iter(self._packs))]
            return pack

    def _fetch(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        with self._store.open(key, start=start, stop=stop) as file:
            return file.read()

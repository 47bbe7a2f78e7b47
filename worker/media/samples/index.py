"""The index of the samples inside an object: where each lies, and its digest.

One entry of fixed width a sample, in the order of their numbers: the offset in 8 bytes, the size in
4, both little-endian, and the 32 bytes of the SHA-256. So the place of an entry follows from the
number of its sample.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from db.errors import BadInput, GenmillError

_ENTRY = struct.Struct("<QI32s")
ENTRY_BYTES = _ENTRY.size


class IndexEntry(NamedTuple):
    """One sample inside an object: bytes `offset` to `offset + size`, and their SHA-256."""

    sample: int
    offset: int
    size: int
    sha256: str


class IndexWriter:
    """Builds the index of samples that are written in the order of their numbers."""

    def __init__(self) -> None:
        self._start: int | None = None
        self._data = bytearray()

    def add(self, sample: int, offset: int, size: int, digest: bytes) -> None:
        """Add the next sample. Raises `GenmillError` if its number does not follow the last."""
        if self._start is None:
            self._start = sample
        if sample != self._start + len(self._data) // _ENTRY.size:
            raise GenmillError("the samples of an object need numbers that follow one another")
        self._data += _ENTRY.pack(offset, size, digest)

    def close(self) -> "SampleIndex":
        """The index of all samples added."""
        return SampleIndex(self._start or 0, bytes(self._data))


@dataclass(frozen=True)
class SampleIndex:
    """The entries of the samples from number `start` on, encoded."""

    start: int
    data: bytes

    @classmethod
    def of(cls, entries: Iterable[IndexEntry]) -> "SampleIndex":
        """Encode entries in any order. Raises `GenmillError` if a number is missing or repeated."""
        ordered = sorted(entries)
        numbers = [entry.sample for entry in ordered]
        start = numbers[0] if numbers else 0
        if numbers != list(range(start, start + len(numbers))):
            raise GenmillError("the samples of an object need numbers that follow one another")
        packed = (_ENTRY.pack(e.offset, e.size, bytes.fromhex(e.sha256)) for e in ordered)
        return cls(start, b"".join(packed))

    @classmethod
    def decode(cls, data: bytes, samples: range) -> "SampleIndex":
        """The index of these samples. Raises `BadInput` if `data` is not as long as it must be."""
        if len(data) != len(samples) * _ENTRY.size:
            raise BadInput(f"an index of {len(data)} bytes is not one of {len(samples)} samples")
        return cls(samples.start, data)

    @property
    def samples(self) -> range:
        """The numbers of the samples."""
        return range(self.start, self.start + len(self.data) // _ENTRY.size)

    @property
    def members_sha256(self) -> str:
        r"""The SHA-256 over a line `number digest\n` for each sample."""
        digest = hashlib.sha256()
        for entry in self:
            digest.update(f"{entry.sample} {entry.sha256}\n".encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[IndexEntry]:
        for sample, entry in enumerate(_ENTRY.iter_unpack(self.data), self.start):
            offset, size, digest = entry
            yield IndexEntry(sample, offset, size, digest.hex())

    def entry(self, sample: int) -> IndexEntry:
        """The entry of one of the `samples`."""
        at = self.samples.index(sample) * _ENTRY.size
        offset, size, digest = _ENTRY.unpack_from(self.data, at)
        return IndexEntry(sample, offset, size, digest.hex())

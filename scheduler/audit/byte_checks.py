"""2. Whatever was committed is in the store, byte for byte."""

import hashlib
from collections.abc import Iterator
from functools import partial

from db.errors import DigestMismatch, NotFound, Refused, Unreachable
from scheduler.audit.history import Row
from scheduler.audit.objects import (
    ENTRY,
    Named,
    Part,
    Snapshot,
    blob_key,
    is_named,
    named_objects,
    pack_key,
)
from scheduler.audit.violations import Violation, Violations
from scheduler.results.threads import in_order
from worker.files import CHUNK
from worker.store.base import ObjectStore

STRETCH = 64 << 10  # bytes: what an encrypted store can read without its neighbours


class Objects:
    """Reads whole objects and their parts from a store."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def read(self, key: str | None, *, start: int = 0, stop: int | None = None) -> bytes | None:
        """An object's bytes; None where there is none. Raises `Unreachable`.

        Zeros stand for the stretches that an encrypted store finds changed.
        """
        try:
            return self._around_damage(key or "", start, stop)
        except (NotFound, Refused):  # Refused: what is on record is no key
            return None

    def _around_damage(self, key: str, start: int, stop: int | None) -> bytes:
        try:
            with self.store.open(key, start=start, stop=stop) as file:
                return file.read()
        except DigestMismatch:
            if stop is not None and stop - start <= STRETCH:
                return bytes(stop - start)
        size = self.store.stat(key).size
        end = size if stop is None else min(stop, size)
        cuts = range(start, end, STRETCH)
        return b"".join(self._around_damage(key, at, min(at + STRETCH, end)) for at in cuts)

    def read_manifest(self, job: Row) -> bytes | None:
        """A job's manifest, which may lie in a pack; None where there is none."""
        if job["manifest_pack"] is None:
            return self.read(job["manifest_key"])
        at, size = job["manifest_offset"], job["manifest_size"]
        if at is None or size is None or min(at, size) < 0:  # edited
            return None
        return self.read(pack_key(job["manifest_pack"]), start=at, stop=at + size)

    def digest(self, key: str) -> tuple[int, str] | None:
        """The size and SHA-256 of an object, read in pieces; None where there is none."""
        size, digest = 0, hashlib.sha256()
        try:
            with self.store.open(key) as file:
                while data := file.read(CHUNK):
                    size += len(data)
                    digest.update(data)
        except DigestMismatch:  # of an encrypted store: it was changed there
            return size, ""
        except (NotFound, Refused):
            return None
        return size, digest.hexdigest()


def bytes_match(snapshot: Snapshot, objects: Objects) -> Violations:
    """Every object that is missing or differs from the record."""
    every = named_objects(snapshot, objects.read, manifests=False)
    for named, found in in_order(partial(_check, objects), distinct(every)):
        if found and is_named(snapshot, named):
            yield from found


def distinct(every: Iterator[Named]) -> Iterator[Named]:
    """Each object once where rows that name the same follow one another closely."""
    seen: dict[str, None] = {}
    for named in every:
        if named.key not in seen:
            seen[named.key] = None
            yield named
        if len(seen) > 10_000:
            del seen[next(iter(seen))]


def _check(objects: Objects, named: Named) -> tuple[Named, list[Violation]]:
    in_parts = named.sha256 is None or any(part.samples is not None for part in named.parts)
    try:
        return named, list((_check_parts if in_parts else _check_whole)(objects, named))
    except Unreachable as error:
        if objects.store.read_sentinel() is None:  # which raises it again if the store is away
            raise
        return named, [Violation(f"{named.key} cannot be read: {error.message}")]


def _check_whole(objects: Objects, named: Named) -> Violations:
    found = objects.digest(named.key)
    if found is None:
        yield _missing(named)
    elif found[1] != named.sha256 or (named.size is not None and found[0] != named.size):
        yield _violation(named, f"{named.key} differs from its digest on record")


def _check_parts(objects: Objects, named: Named) -> Violations:
    data = objects.read(named.key)
    if data is None:
        yield _missing(named)
        return
    for part in named.parts:
        piece = data[part.offset : part.offset + part.size]
        if hashlib.sha256(piece).hexdigest() != part.sha256:
            yield Violation(
                f"{named.key} differs from its digest on record", part.table, part.id, named.key
            )
        yield from _check_samples(objects, named, part, data)


def _check_samples(objects: Objects, named: Named, part: Part, data: bytes) -> Violations:
    if part.samples is None:
        return
    place = (part.table, part.id, named.key)
    index = _index_of(objects, named, part, data)
    if index is None:
        if named.sha256 is None:  # else it is an object of its own, which is checked as such
            yield Violation(f"an index in {named.key} differs from its digest", *place)
    elif len(index) != len(part.samples) * ENTRY.size:
        yield Violation(f"the index of {named.key} has other than {len(part.samples)} samples")
    else:
        for sample, entry in zip(part.samples, ENTRY.iter_unpack(index), strict=True):
            offset, size, digest = entry
            at = part.offset + offset
            if offset + size > part.size or _sha256(data[at : at + size]) != digest:
                text = f"sample {sample} in {named.key} differs from its digest"
                yield Violation(text, *place)


def _index_of(objects: Objects, named: Named, part: Part, data: bytes) -> bytes | None:
    """The index of a part's samples; None if it is missing or differs from its digest."""
    if part.samples is None or not part.index_sha256:
        return part.index
    if named.sha256 is None:  # in a pack, it lies behind the part
        end = part.offset + part.size
        found: bytes | None = data[end : end + len(part.samples) * ENTRY.size]
    else:
        found = objects.read(blob_key(named.key.split("/")[1], part.index_sha256))
    return found if found and _sha256(found).hex() == part.index_sha256 else None


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _missing(named: Named) -> Violation:
    return _violation(named, f"{named.key} is on record but not in the store")


def _violation(named: Named, text: str) -> Violation:
    return Violation(text, named.table, named.id, named.key)

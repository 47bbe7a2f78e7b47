"""Fetching the objects of a download.

They are fetched whole, or the bytes around the chosen samples alone if those are few.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from db.errors import BadInput, DigestMismatch, GenmillError, NotFound
from scheduler.results.objects import Entries, StoredObject, file_of
from scheduler.results.replacing import refuse_lost_members
from scheduler.results.unpack import already_written
from worker.failpoints import reach
from worker.files import CHUNK, digest_of
from worker.media.base import CombinedFiles, SampleFiles
from worker.media.samples.index import SampleIndex
from worker.services import Services
from worker.services.samples import fetch_artifact, read_index, read_packed, read_range
from worker.store.base import OnBytes

FEW_BYTES = 8 << 20  # around chosen samples, which are kept in memory


@dataclass(frozen=True)
class Fetched:
    """A fetched object and the entries of its samples.

    If these are to be unpacked, their bytes are in its part, or are `content`. With `damage`, it
    could not be fetched.
    """

    object: StoredObject
    entries: Entries = ()
    samples: int = 0
    unpacked: bool = True  # already, or nothing to unpack
    content: bytes | None = None
    damage: GenmillError | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing in it was wanted."""
        return not (self.samples or self.damage or self.object.is_copied)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Its bytes; the part is removed at the end."""
        if self.content is not None:
            yield BytesIO(self.content)
            return
        with self.object.part.open("rb", buffering=CHUNK) as file:
            yield file
        self.object.part.unlink()


def try_to_fetch(services: Services, on_bytes: OnBytes, each: StoredObject) -> Fetched:
    """Fetch an object; what is damaged or lost is in the result. Raises `Unreachable`.

    `on_bytes` gets the object's size in all, however much of it was to be fetched.
    """
    told = 0

    def tell(size: int) -> None:
        nonlocal told
        told += size
        on_bytes(size)

    try:
        return _fetch(services, tell, each)
    except (BadInput, DigestMismatch, NotFound) as error:
        return Fetched(each, damage=error)
    finally:
        on_bytes(max(0, each.artifact.size - told))


def _fetch(services: Services, tell: OnBytes, each: StoredObject) -> Fetched:
    artifact, folder, form = each.artifact, each.folder, each.form
    _refuse_loss(services, each)
    if each.shard is None or each.medium is None or each.is_copied:
        fetch_artifact(services, artifact, file_of(artifact, folder), on_bytes=tell)
        return Fetched(each, samples=each.shard.stop - each.shard.start if each.shard else 0)
    index = read_index(services, artifact, each.shard)
    entries = each.entries(index)
    if not len(entries):
        return Fetched(each)
    done = Fetched(each, entries, len(entries))
    if isinstance(form, SampleFiles) and already_written(
        entries, folder, each.medium, form, each.choice
    ):
        return done
    if len(part := _around(entries, index, artifact.size)):
        content = read_range(services, artifact, part)
        moved = [entry._replace(offset=entry.offset - part.start) for entry in entries]
        return Fetched(each, moved, len(moved), unpacked=False, content=content)
    if artifact.packed is not None:
        content = read_packed(services, artifact, artifact.packed)
        return Fetched(each, entries, len(entries), unpacked=False, content=content)
    each.part.parent.mkdir(parents=True, exist_ok=True)
    services.store.fetch(
        artifact.key, each.part, sha256=artifact.sha256, durable=False, on_bytes=tell
    )
    reach(services.settings, "part_fetched")
    return Fetched(each, entries, len(entries), unpacked=False)


def _refuse_loss(services: Services, each: StoredObject) -> None:
    """Raise `Refused` if a tar that is there has samples that are not to be fetched."""
    if each.shard is None or each.form is not CombinedFiles.OBJECTS:
        return
    there = file_of(each.artifact, each.folder)
    if not there.is_file() or (each.is_copied and digest_of(there) == each.artifact.sha256):
        return
    index = read_index(services, each.artifact, each.shard)
    refuse_lost_members(there, each.entries(index))


def _around(entries: Entries, index: SampleIndex, size: int) -> range:
    """The bytes of chosen samples and their records; empty if the whole object is to be read."""
    if entries is index:
        return range(0)
    offsets = [entry.offset for entry in entries]
    after = [entry.offset for entry in index if entry.offset > max(offsets)]
    part = range(min(offsets), min(after, default=size))
    return part if len(part) <= min(FEW_BYTES, size // 2) else range(0)

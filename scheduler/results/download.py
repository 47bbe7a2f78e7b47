"""Downloading what jobs made into a folder: complete, checked against the record, resumable.

Objects are fetched whole, several at once. File names are generated, or checked to be plain names;
nothing is ever written outside the folder. Files that are there already with the right digest are
not fetched again. A second download into the same folder waits for the first.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from db import models
from db.errors import BadInput, DigestMismatch, GenmillError, NotFound, Refused
from db.orders import VERDICTS
from db.tables import Artifact, Job, Shard
from scheduler.results.threads import in_order
from scheduler.results.unpack import already_written, read_samples, write_files, write_object
from worker.failpoints import reach
from worker.families import find_family
from worker.files import CHUNK, disk_errors, durable_rename, inside, is_plain
from worker.media import all_media, find_medium
from worker.media.base import CombinedFiles, Medium, SampleFiles
from worker.media.samples.index import IndexEntry, SampleIndex
from worker.services import Services
from worker.services.orders import read_selection
from worker.services.samples import fetch_artifact, read_index, read_packed, stored_objects

log = logging.getLogger(__name__)

FORMS = tuple(dict.fromkeys(form for medium in all_media() for form in medium.downloads))
PARTS = ".genmill-parts"  # folder of objects being fetched; removed at the end
RECORDS = "samples.jsonl"
SHOWN = 10  # damaged objects

Entries = SampleIndex | list[IndexEntry]


@dataclass
class Downloaded:
    """What a download has fetched so far."""

    folder: Path
    objects: int = 0
    samples: int = 0
    size_bytes: int = 0
    silent: int = 0  # texts without notes, skipped in a download as MIDI or WAV

    def add(self, fetched: "_Fetched") -> None:
        """Unpack and count an object. Raises `DigestMismatch`."""
        self.silent += fetched.samples - _unpack(fetched)
        self.samples += fetched.samples
        self.size_bytes += fetched.object.artifact.size


@dataclass(frozen=True)
class _Object:
    """An object to fetch into `folder`; samples have their shard, medium and format."""

    folder: Path
    artifact: Artifact
    shard: Shard | None = None
    medium: Medium | None = None
    chosen: frozenset[int] | None = None  # of an order: the accepted samples; None: all
    form: SampleFiles | CombinedFiles = CombinedFiles.OBJECTS

    @property
    def part(self) -> Path:
        """Where the object is kept until its samples are unpacked."""
        return inside(self.folder / PARTS, self.artifact.id)


@dataclass(frozen=True)
class _Fetched:
    """A fetched object; without an `index`, there is nothing to unpack.

    Its bytes are in its part, or are `content` if they came out of a pack. With `damage`, it could
    not be fetched.
    """

    object: _Object
    samples: int = 0
    index: Entries | None = None
    content: bytes | None = None
    damage: GenmillError | None = None

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Its bytes; the part is removed at the end."""
        if self.content is not None:
            yield BytesIO(self.content)
            return
        with self.object.part.open("rb", buffering=CHUNK) as file:
            yield file
        self.object.part.unlink()


def download(
    services: Services,
    jobs: Sequence[Job],
    folder: Path,
    *,
    form: str | None = None,
    on_progress: Callable[[Downloaded], None] = lambda _: None,
) -> Downloaded:
    """Fetch everything that the jobs committed; of several jobs, each into a folder of its id.

    `form` is one of the medium's `downloads`, by default the first. What is damaged or lost is left
    out, and named once all else is there. Raises `NotFound` if nothing is committed yet, `Refused`
    for a form that the medium or the samples do not have, `DigestMismatch`, `Removed`, and
    `Unreachable`, also for a full disk.
    """
    done, damaged = Downloaded(folder), []
    with disk_errors(folder), _alone_in(folder):
        results = in_order(partial(_try_to_fetch, services), _objects(services, jobs, folder, form))
        for target, fetched in groupby(results, key=lambda each: each.object.folder):
            for each in fetched:
                done.objects += 1
                if (damage := each.damage or _damage_found(done, each)) is not None:
                    damaged.append((each.object.artifact, damage))
                on_progress(done)
            _finish(target)
    if damaged:
        raise _incomplete(done, damaged)
    if not done.objects:
        raise NotFound(f"nothing is committed yet by {', '.join(job.id for job in jobs[:3])}")
    if done.samples and done.silent == done.samples:
        chosen = _medium(services, str(jobs[0].model)).download(form)
        needs = chosen.needs if isinstance(chosen, SampleFiles) else "anything"
        raise Refused(
            f"none of the {done.samples} samples holds {needs}, so there is nothing to write",
            remedy="use --as jsonl to read them",
        )
    return done


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Make the folder, and wait until no other process downloads into it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("another download into %s is under way: waiting for it", folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            log.debug("%s cannot be locked", folder)
        yield
    finally:
        os.close(handle)


def file_of(artifact: Artifact, folder: Path) -> Path:
    """The artifact's file, named after its id if its own name is no plain one."""
    name = artifact.name if is_plain(artifact.name) else f"artifact-{artifact.id}"
    return inside(folder, name)


def default_folder(jobs: Sequence[Job]) -> Path:
    """Where the jobs are downloaded to unless something else is asked for."""
    first = jobs[0]
    return inside(Path(), f"genmill-{first.batch_id if len(jobs) > 1 else first.id}")


def _objects(
    services: Services, jobs: Sequence[Job], folder: Path, form: str | None
) -> Iterator[_Object]:
    """Yield the objects of each job, and prepare its folder."""
    media: dict[str | None, Medium] = {}
    for job in jobs:
        target = folder if len(jobs) == 1 else inside(folder, job.id)
        target.mkdir(parents=True, exist_ok=True)
        if (target / PARTS).is_symlink():
            raise Refused(f"{target / PARTS} is a link", remedy="remove it")
        (target / PARTS / RECORDS).unlink(missing_ok=True)
        chosen = read_selection(services, job)
        for artifact, shard in stored_objects(services, job):
            if shard is None:
                if artifact.kind != VERDICTS:
                    yield _Object(target, artifact)
                continue
            if chosen is not None and chosen.isdisjoint(range(shard.start, shard.stop)):
                continue
            if job.model not in media:
                media[job.model] = _medium(services, str(job.model))
            medium = media[job.model]
            yield _Object(target, artifact, shard, medium, chosen, medium.download(form))


def _try_to_fetch(services: Services, each: _Object) -> _Fetched:
    try:
        return _fetch(services, each)
    except (BadInput, DigestMismatch, NotFound) as error:
        return _Fetched(each, damage=error)


def _damage_found(done: Downloaded, fetched: _Fetched) -> GenmillError | None:
    try:
        done.add(fetched)
    except (BadInput, DigestMismatch) as error:
        return error
    return None


def _incomplete(done: Downloaded, damaged: Sequence[tuple[Artifact, GenmillError]]) -> GenmillError:
    lines = [f"{each.name} of job {each.job_id}: {error}" for each, error in damaged]
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return DigestMismatch(
        f"{len(damaged)} of {done.objects} objects are damaged or lost; the rest is in "
        f"{done.folder}:\n  " + "\n  ".join(lines[:SHOWN] + more)
    )


def _fetch(services: Services, each: _Object) -> _Fetched:
    artifact, folder, form = each.artifact, each.folder, each.form
    whole = form is CombinedFiles.OBJECTS and each.chosen is None
    if each.shard is None or each.medium is None or whole:
        fetch_artifact(services, artifact, file_of(artifact, folder))
        return _Fetched(each, each.shard.stop - each.shard.start if each.shard else 0)
    index = _chosen(read_index(services, artifact, each.shard), each.chosen)
    if isinstance(form, SampleFiles) and already_written(index, folder, each.medium, form):
        return _Fetched(each, len(index))
    if artifact.packed is not None:
        return _Fetched(each, len(index), index, read_packed(services, artifact, artifact.packed))
    each.part.parent.mkdir(exist_ok=True)
    services.store.fetch(artifact.key, each.part, sha256=artifact.sha256, durable=False)
    reach(services.settings, "part_fetched")
    return _Fetched(each, len(index), index)


def _chosen(index: SampleIndex, chosen: frozenset[int] | None) -> Entries:
    return index if chosen is None else [each for each in index if each.sample in chosen]


def _unpack(fetched: _Fetched) -> int:
    """Write what a part holds; return how many samples had anything to write in this form.

    One thread does it for all: a folder takes one new file at a time, so more would only wait.
    """
    each, index = fetched.object, fetched.index
    if index is None or each.medium is None:
        return fetched.samples
    with fetched.open() as file:
        if isinstance(each.form, SampleFiles):
            return write_files(file, index, each.folder, each.medium, each.form)
        if each.form is CombinedFiles.OBJECTS:
            return write_object(file, index, file_of(each.artifact, each.folder), each.medium)
        (each.folder / PARTS).mkdir(exist_ok=True)
        with (each.folder / PARTS / RECORDS).open("ab") as lines:
            for _, _, record in read_samples(file, index, each.medium):
                lines.write(record + b"\n")
        return len(index)


def _finish(folder: Path) -> None:
    """Give the records their name, and remove the parts."""
    parts = folder / PARTS
    if (parts / RECORDS).exists():
        durable_rename(parts / RECORDS, folder / RECORDS)
    if parts.is_dir():
        for part in parts.iterdir():
            part.unlink()
        parts.rmdir()


def _medium(services: Services, model: str) -> Medium:
    with services.database.read() as session:
        return find_medium(find_family(models.get(session, model).family).media)

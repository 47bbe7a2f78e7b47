"""Taking a backup while everything runs.

The record first, then the objects that it names: an object is stored before the row that names it,
so all of them are there. What retention deletes between the two is found missing, and the record is
taken once more. The folder gets its name when it is complete; an interrupted run is resumed.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from db import copies, schema
from db.errors import DigestMismatch, NotFound, Refused
from db.path_errors import shown
from scheduler.audit.byte_checks import Objects, distinct
from scheduler.audit.objects import Named, named_objects
from scheduler.recovery.folder import (
    FORMAT,
    LIST,
    OBJECTS,
    RECORD,
    Description,
    Mode,
    StoredObject,
)
from scheduler.results.threads import in_order
from worker.code_version import code_version
from worker.files import digest_of, disk_errors, durable_rename
from worker.services import Services
from worker.store.base import SENTINEL, ObjectStore
from worker.store.folder import FolderStore

TRIES = 3  # for a record whose objects are all there

Show = Callable[[str, int], None]  # what is copied, and how much of it so far


@dataclass
class Backup:
    """What a backup holds, and what is missing or damaged in the store that it was made of."""

    folder: Path
    mode: Mode
    count: int = 0
    size_bytes: int = 0
    problems: list[str] = field(default_factory=list)


def back_up(
    services: Services,
    folder: Path,
    *,
    mode: Mode | None = None,
    show: Show = lambda *_: None,
) -> Backup:
    """Copy record and objects into the new folder; verify what was copied.

    By default, the objects of a folder are copied, and those of a bucket listed. Raises `Refused`
    if the folder exists, and `Unreachable`, also for a full disk.
    """
    folder = folder.absolute()
    if os.path.lexists(folder):
        raise Refused(
            f"{shown(folder)} exists already", remedy="give another folder, or remove that one"
        )
    services.store.verify()
    mode = mode or ("copy" if isinstance(services.store.raw, FolderStore) else "list")
    part = folder.with_name(f"{folder.name}.partial")
    with disk_errors(folder), _alone_in(part):
        for _ in range(TRIES):
            made = _take(services, part, Backup(folder, mode), show)
            if not made.problems:
                break
        _describe(part, made)
        part.rename(folder)
        _sync(folder.parent)
    return made


@contextmanager
def _alone_in(part: Path) -> Iterator[None]:
    """Make the folder of an unfinished backup. Raises `Refused` if another process is in it."""
    part.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(part, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Refused(
            f"another backup into {shown(part)} is under way", remedy="wait for its end"
        ) from None
    finally:
        os.close(handle)


def _take(services: Services, part: Path, made: Backup, show: Show) -> Backup:
    """Take the record, then its objects."""
    temporary = part / f"{RECORD}.new"
    for leftover in part.glob(f"{RECORD}.new*"):
        leftover.unlink()
    copies.save(services.database, temporary, show=partial(show, "record"))
    durable_rename(temporary, part / RECORD)
    record = part / RECORD
    keep = partial(_keep, services.store, part) if made.mode == "copy" else _look(services.store)
    every = named_objects(partial(copies.opened, record), Objects(services.store).read)
    with (part / LIST).open("w", encoding="utf-8") as lines:
        for kept in in_order(keep, _with_sentinel(distinct(every))):
            if isinstance(kept, str):
                made.problems.append(kept)
                continue
            lines.write(json.dumps(kept._asdict()) + "\n")
            made.count += 1
            made.size_bytes += kept.size
            show("objects", made.count)
        lines.flush()
        os.fsync(lines.fileno())
    return made


def _with_sentinel(every: Iterator[Named]) -> Iterator[Named]:
    yield Named(SENTINEL, "own_store", "")
    yield from every


def _keep(store: ObjectStore, part: Path, named: Named) -> StoredObject | str:
    """Copy an object, unless there is a copy, and verify that; return it, or what is wrong."""
    path = part / OBJECTS / named.key
    try:
        if not (path.is_file() and _is_whole(path, named)):
            path.unlink(missing_ok=True)
            store.fetch(named.key, path, sha256=named.sha256)
        if not _is_whole(path, named):
            path.unlink()
            raise DigestMismatch(f"object {named.key} differs from its digests on record")
    except (NotFound, DigestMismatch, Refused) as error:
        return str(error)
    return StoredObject(named.key, named.sha256 or digest_of(path), path.stat().st_size)


def _is_whole(path: Path, named: Named) -> bool:
    if named.sha256 is not None:
        return digest_of(path) == named.sha256
    with path.open("rb") as file:
        for part in sorted(named.parts, key=lambda each: each.offset):
            file.seek(part.offset)
            if hashlib.sha256(file.read(part.size)).hexdigest() != part.sha256:
                return False
    return True


def _look(store: ObjectStore) -> Callable[[Named], StoredObject | str]:
    """Look whether objects are there with their size, without reading them."""

    def look(named: Named) -> StoredObject | str:
        try:
            size = store.stat(named.key).size
        except (NotFound, Refused) as error:
            return str(error)
        if named.size is not None and size != named.size:
            return f"object {named.key} has {size} bytes, on record {named.size}"
        return StoredObject(named.key, named.sha256, size)

    return look


def _describe(part: Path, made: Backup) -> None:
    Description(
        FORMAT,
        code_version(),
        schema.HEAD,
        datetime.now(UTC).isoformat(timespec="seconds"),
        made.mode,
        made.count,
        made.size_bytes,
        digest_of(part / RECORD),
        digest_of(part / LIST),
    ).write(part)
    _sync(part)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

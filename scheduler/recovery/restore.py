"""Restoring a backup into an empty record: the objects first, then the record in one transaction.

Interrupted, it leaves an empty record and some objects that nobody names; run it again. Afterwards
everything goes on where the backup left it: what ran then is given back, and jobs that ended since
are run again, into the same objects where those are still there.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from db import copies, keys, schema
from db.columns import new_id
from db.errors import DigestMismatch, Refused
from db.path_errors import reading
from scheduler.audit.byte_checks import Objects
from scheduler.recovery.folder import (
    OBJECTS,
    RECORD,
    Description,
    StoredObject,
    read_description,
    read_list,
)
from scheduler.results.threads import in_order
from worker.files import digest_of, disk_errors
from worker.keys.keyring import refuse_other
from worker.keys.master import open_master
from worker.services import Services
from worker.services.store_owner import refuse_encrypted
from worker.store import open_store
from worker.store.base import SENTINEL, ObjectStore, digest_in_key, is_key

SHOWN = 5  # missing objects

Show = Callable[[str, int], None]


@dataclass
class Restored:
    """What a backup brought back."""

    folder: Path
    made_at: str
    rows: int = 0
    objects: int = 0
    stored: int = 0  # objects that were not in the store
    released: int = 0  # shards that ran when the backup was made


def restore(
    services: Services, folder: Path, *, who: str, show: Show = lambda *_: None
) -> Restored:
    """Restore a backup, whose digests are checked; the audit trail says that `who` did it.

    Raises `Refused` if the record is not empty, `NotFound`, `BadInput` or `DigestMismatch` for the
    folder, `WrongKey` if another installation key wrapped its keys, and `Unreachable`.
    """
    described = read_description(folder)
    schema.upgrade(services.settings.database)
    copies.refuse_used(services.database)
    restored = Restored(folder, described.made_at)
    services.store.owner = None  # the record is about to be another
    if services.store.raw is services.store:
        refuse_encrypted(services.store)
    with _current(folder / RECORD) as record, copies.opened(record) as copy:
        _refuse_other_key(services, copy)
        services.store.check()
        _restore_objects(services.store, described, restored, show)
        store_id = _store_id(services.store, copies.store_id_in(copy))
        restored.rows, restored.released = copies.load(
            copy,
            services.database,
            store_id=store_id,
            made_at=described.made_at,
            who=who,
            show=partial(show, "rows"),
        )
    return restored


def _refuse_other_key(services: Services, copy: Connection) -> None:
    """Raise `WrongKey` if a new store's key would be wrapped by another than the backup's keys."""
    settings = services.settings
    plain = open_store(settings.store, s3_endpoint_url=settings.s3_endpoint_url)
    data_key = services.data_key(plain)
    if data_key is not None and data_key.find() is None:
        refuse_other(open_master(services.settings), keys.newest(copy))


def _restore_objects(
    store: ObjectStore, described: Description, restored: Restored, show: Show
) -> None:
    """Store the objects that are not there, or see that those are there that were listed."""
    copied = described.objects == "copy"
    bring = partial(_bring, store, restored.folder / OBJECTS) if copied else partial(_find, store)
    missing: list[str] = []
    for found in in_order(bring, _objects(restored.folder)):
        if isinstance(found, str):
            missing.append(found)
            continue
        restored.objects += 1
        restored.stored += found
        show("objects", restored.objects)
    store.flush()
    if missing:
        more = f", and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise DigestMismatch(
            f"{len(missing)} objects of the backup are not as they were: "
            f"{'; '.join(missing[:SHOWN])}{more}",
            remedy="nothing was restored; bring the objects back first",
        )


def _objects(folder: Path) -> Iterator[StoredObject]:
    for each in read_list(folder):
        if not is_key(each.key):
            raise Refused(f"the backup names an object {each.key!r}, which is no key")
        if each.key != SENTINEL:
            yield each


def _find(store: ObjectStore, wanted: StoredObject) -> bool | str:
    if not store.has(wanted.key):
        return f"{wanted.key} is missing"
    size = store.stat(wanted.key).size
    return False if size == wanted.size else f"{wanted.key} has {size} bytes, not {wanted.size}"


def _bring(store: ObjectStore, folder: Path, wanted: StoredObject) -> bool | str:
    """Store an object unless it is there, whole; return whether it was, or what is wrong."""
    if Objects(store).digest(wanted.key) == (wanted.size, wanted.sha256):
        return False
    path = folder / wanted.key
    with reading(path):
        if digest_of(path) != wanted.sha256:
            return f"{path} has changed since the backup was made"
    store.delete(wanted.key)
    if digest_in_key(wanted.key) == wanted.sha256:
        store.put(wanted.key.rpartition("/")[0], path)
    else:
        store.put_as(wanted.key, path.read_bytes(), durable=False)
    return True


def _store_id(store: ObjectStore, in_backup: str | None) -> str:
    """The id of the store, which keeps its own if it has one."""
    found = store.read_sentinel()
    if found is None:
        found = in_backup or new_id()
        store.put_as(SENTINEL, found.encode())
    return found


@contextmanager
def _current(record: Path) -> Iterator[Path]:
    """The record, or a copy of it that is upgraded to this version's schema."""
    with copies.opened(record) as copy:
        is_current = copies.revision_of(copy) == schema.HEAD
    if is_current:
        yield record
        return
    with tempfile.TemporaryDirectory(prefix="genmill-restore-") as folder:
        upgraded = Path(folder) / RECORD
        with disk_errors(upgraded.parent):
            shutil.copyfile(record, upgraded)
        copies.upgrade(upgraded)
        yield upgraded

"""Deleting the objects of what was removed, which nothing on record names any more.

Any number of processes may do it at once, and be killed at any point: a tombstone says what is
still to be looked for. Objects that versions share are deleted under a lock that whoever records a
version shares: one object in a transaction, so that it is held for one request to the store.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, partial
from itertools import chain

from sqlalchemy.orm import Session

from db import artifacts, datasets, models, own_store, tombstones
from db.causes import Cause
from db.commits import pack_key
from db.errors import BadInput, DigestMismatch, GenmillError, NotFound
from db.tables import Tombstone
from worker.data.versions import object_keys
from worker.isolation import described, each
from worker.services import Services
from worker.services.loops import Loop

log = logging.getLogger(__name__)

AT_ONCE = 50
STALE_UPLOAD_S = 86_400.0

ObjectsOf = Callable[[str], set[str]]  # the objects of a dataset version in use, by its manifest


class UnreadableManifest(GenmillError):
    """The manifest of a dataset version in use cannot be read."""

    cause = Cause.WORK


def delete_unnamed(
    services: Services, keys: Iterable[str], *, is_named: Callable[[str], bool]
) -> int:
    """Delete the objects that are not named; return how many.

    If some cannot be deleted, raises only after all the others.
    """
    deleted = 0

    def delete(key: str) -> None:
        nonlocal deleted
        if not is_named(key):
            services.store.delete(key)
            deleted += 1

    _raise_first(each(keys, delete))
    return deleted


def _raise_first(failed: Mapping[str, BaseException]) -> None:
    for key, error in failed.items():
        raise GenmillError(f"object {key} cannot be deleted: {described(error)}") from error


def _delete_shared(
    services: Services, keys: Iterable[str], *, is_named: Callable[[Session, str], bool]
) -> int:
    """Delete those objects that no version names now, one in a transaction; return how many.

    Raises as `delete_unnamed`.
    """
    deleted = 0

    def delete(key: str) -> None:
        nonlocal deleted

        def work(session: Session) -> bool:
            own_store.lock_objects(session, shared=False)
            if goes := not is_named(session, key):
                services.store.delete(key)
            return goes

        deleted += services.database.transact(work)

    _raise_first(each(keys, delete))
    return deleted


def delete_garbage_of(services: Services, job_id: str) -> int:
    """Delete the objects of an ended or removed job that nothing names; return how many."""
    keys, deleted = services.store.keys(f"jobs/{job_id}"), 0
    if (first := next(keys, None)) is not None:  # small jobs lie in packs
        with services.database.read() as session:
            used = artifacts.referenced_keys(session, job_id)
        deleted = delete_unnamed(services, chain([first], keys), is_named=used.__contains__)
    services.store.abort_uploads(f"jobs/{job_id}", STALE_UPLOAD_S)
    return deleted


def delete_packs(services: Services, numbers: Collection[int]) -> int:
    """Delete those packs in which nothing lies that is kept; return how many.

    While any work is under way, something else in one may be about to be recorded: then they are
    left to the scheduler.
    """
    if not numbers:
        return 0
    with services.database.read() as session:
        if artifacts.work_is_under_way(session):
            return 0
        unnamed = [each for each in numbers if not artifacts.names_pack(session, each)]
    return delete_unnamed(services, map(pack_key, unnamed), is_named=lambda _: False)


def sweep(services: Services, removed: Tombstone, objects_of: ObjectsOf | None = None) -> int:
    """Delete what is left of something that was removed; return how many objects.

    Many that are swept share `objects_of`, from `remembering`.
    """
    objects_of = objects_of or remembering(services)
    act = _SWEEPS.get(removed.kind)
    deleted = act(services, removed, objects_of) if act else 0
    services.database.transact(partial(tombstones.swept, ids=[removed.id]))
    return deleted


def remembering(services: Services) -> ObjectsOf:
    """`used_by`, which reads each manifest once: they never change."""
    return cache(partial(used_by, services))


def sweep_all(services: Services, ids: Sequence[str]) -> int:
    """Delete what is left of some things that were removed; of what is kept, nothing."""
    with services.database.read() as session:
        found = [tombstones.find(session, each) for each in ids]
    left, objects_of = [one for one in found if one and not one.kept], remembering(services)
    return sum(sweep(services, one, objects_of) for one in left)


def finish_versions(services: Services, kind: str, reference: str) -> list[str]:
    """Delete what interrupted removals of versions have left; return their names.

    Those that have left nothing are not among them.
    """
    with services.database.read() as session:
        found = tombstones.unswept(session, kind, reference)
    objects_of = remembering(services)
    return [str(each.name) for each in found if sweep(services, each, objects_of)]


def sweep_due(services: Services) -> int:
    """Delete what removals have left, for any reason; return how many objects."""
    objects_of = remembering(services)

    def sweep_one(thing_id: str) -> int:
        with services.database.read() as session:
            found = tombstones.find(session, thing_id)
        return sweep(services, found, objects_of) if found else 0

    with Loop(services, "finishing removals") as loop:
        with services.database.read() as session:
            due = tombstones.due(session, AT_ONCE, without=loop.paused)
        deleted = sum(loop.each([one.id for one in due], sweep_one))
    if deleted:
        log.info("objects of what was removed are deleted", extra={"objects": deleted})
    return deleted


def _sweep_job(services: Services, removed: Tombstone, _: ObjectsOf) -> int:
    return delete_garbage_of(services, removed.id)


def _sweep_model(services: Services, removed: Tombstone, _: ObjectsOf) -> int:
    return _delete_shared(services, (removed.about or {}).get("keys", []), is_named=_is_named)


def _is_named(session: Session, key: str) -> bool:
    """Whether anything names a file of a model version."""
    folder, _, rest = key.partition("/")
    if folder == "jobs":
        return key in artifacts.referenced_keys(session, rest.partition("/")[0])
    return models.names_file(session, key)


def _sweep_dataset(services: Services, removed: Tombstone, objects_of: ObjectsOf) -> int:
    manifest = (removed.about or {})["manifest_key"]
    keys = _left_of(services, manifest)
    if not keys:
        return 0
    with services.database.read() as session:
        in_use = datasets.manifests_in_use(session)
    for used in in_use:  # read now, before a lock is held
        objects_of(used)

    def is_named(session: Session, key: str) -> bool:
        return any(key in objects_of(used) for used in datasets.manifests_in_use(session))

    # the manifest last, once all the others are gone: it says what else there is
    deleted = _delete_shared(services, sorted(keys - {manifest}), is_named=is_named)
    return deleted + _delete_shared(services, sorted(keys & {manifest}), is_named=is_named)


def _left_of(services: Services, manifest: str) -> set[str]:
    """The objects of a removed dataset version; of a damaged one, only the manifest is known."""
    try:
        return object_keys(services.store, manifest)
    except NotFound:  # nothing was left but its row
        return set()
    except (DigestMismatch, BadInput) as error:
        log.warning("only the manifest of a removed dataset version is deleted: %s", error)
        return {manifest}


def used_by(services: Services, manifest: str) -> set[str]:
    """The objects of a dataset version in use.

    Raises `UnreadableManifest`: it may share objects with others.
    """
    try:
        return object_keys(services.store, manifest)
    except (NotFound, DigestMismatch, BadInput) as error:
        raise UnreadableManifest(
            f"no objects of datasets can be deleted, because one in use cannot be read: {error}",
            remedy="see `genmill doctor --audit`",
        ) from error


_SWEEPS: dict[str, Callable[[Services, Tombstone, ObjectsOf], int]] = {
    "job": _sweep_job,
    "model": _sweep_model,
    "dataset": _sweep_dataset,
}

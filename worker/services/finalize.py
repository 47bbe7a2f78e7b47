"""Finishing jobs whose shards are all done: store the manifests, then mark the jobs succeeded.

Workers and dispatchers may do it at the same time: a manifest's bytes follow from the database
alone, and the last step updates guarded rows.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from db import jobs
from db.commits import NewManifest
from db.errors import DigestMismatch
from db.states import JobState
from db.tables import Job
from worker.failpoints import reach
from worker.files import canonical_json
from worker.services import Services
from worker.services.loops import Loop
from worker.services.orders import settle_orders
from worker.services.publication_ends import settle_publications
from worker.store.packs import PackWriter

log = logging.getLogger(__name__)

LOGGED_ALONE = 4  # jobs; more have a line together


def finalize_due(services: Services, *, limit: int = 50) -> int:
    """Finish at most `limit` jobs; return how many succeeded."""
    with _finishing(services, first_time=False) as loop:
        with services.database.read() as session:
            due = jobs.next_to_finalize(session, limit, without=loop.paused)
        return len(_finalize(services, loop, due, settled=()))


def finalize(services: Services, settled: Sequence[str], others: Sequence[str] = ()) -> list[str]:
    """Finish jobs that are `settled`, and those others whose shards have all succeeded.

    Returns those that succeeded now. One that can never be finished fails with the reason, another
    is left for the next time; neither holds up the rest.
    """
    with _finishing(services, first_time=True) as loop:
        complete = _complete(services, others) if others else []
        return _finalize(services, loop, [*settled, *complete], settled=settled)


def settle(services: Services, job_ids: Sequence[str]) -> list[str]:
    """Move those jobs on whose shards have all succeeded; return those that can be finished.

    Each is a transaction of its own, because it locks the job for itself alone.
    """
    return [
        job_id
        for job_id in job_ids
        if services.database.transact(partial(jobs.settle, job_id=job_id)) is JobState.FINALIZING
    ]


def _finishing(services: Services, *, first_time: bool) -> Loop:
    def fail(job_id: str, reason: str) -> None:
        told = f"cannot be finished: {reason}"
        services.database.transact(partial(jobs.fail, job_id=job_id, reason=told))

    return Loop(services, "finishing jobs", give_up=fail, first_time=first_time)


def _complete(services: Services, job_ids: Sequence[str]) -> list[str]:
    """Those jobs that seem complete to a look without locks, which is cheap."""
    with services.database.read() as session:
        return jobs.complete(session, job_ids)


def _finalize(
    services: Services, loop: Loop, job_ids: Sequence[str], *, settled: Sequence[str]
) -> list[str]:
    done = frozenset(settled)

    def finish(some: list[str]) -> list[str]:
        return _finish(
            services, [each for each in some if each in done or settle(services, [each])]
        )

    return loop.together(job_ids, finish)


def _finish(services: Services, job_ids: list[str]) -> list[str]:
    job_ids = settle_publications(services, settle_orders(services, job_ids))
    if not job_ids:
        return []
    reach(services.settings, "settled")
    with services.database.read() as session:
        manifests = jobs.manifests(session, job_ids)

    stored = store_manifests(services, {job_id: manifests[job_id] for job_id in job_ids})
    services.store.flush()
    reach(services.settings, "manifest_stored")
    done = services.database.transact(lambda session: jobs.succeed_many(session, stored))
    reach(services.settings, "finalized")
    log_succeeded(done)
    return done


def log_succeeded(job_ids: Sequence[str]) -> None:
    """Log the success of jobs: each alone, or many together."""
    if len(job_ids) > LOGGED_ALONE and not log.isEnabledFor(logging.DEBUG):
        log.info("jobs succeeded", extra={"jobs": len(job_ids), "first": min(job_ids)})
        return
    for job_id in job_ids:
        log.info("job succeeded", extra={"job": job_id})


def store_manifests(
    services: Services, manifests: Mapping[str, dict[str, Any]]
) -> dict[str, NewManifest]:
    """Store a manifest under its job's key, or several as lines of one pack; flush, then record.

    A key that holds other bytes, as after a backup was restored, is left alone: the record then
    names a pack.
    """
    written = {job_id: canonical_json(manifest) for job_id, manifest in manifests.items()}
    digests = {job_id: hashlib.sha256(data).hexdigest() for job_id, data in written.items()}
    if len(written) == 1:
        [(job_id, data)] = written.items()
        with suppress(DigestMismatch, OSError):  # as of a folder in its place
            place = services.store.put_as(f"jobs/{job_id}/manifest.json", data, durable=False).key
            return {job_id: NewManifest(place, digests[job_id])}
    pack, stored = PackWriter(), {}
    for job_id, data in written.items():
        stored[job_id] = NewManifest(pack.add(data), digests[job_id])
        pack.add(b"\n")
    pack.store(services.store)
    return stored


def read_manifest(services: Services, job: Job) -> bytes | None:
    """The stored manifest of a job; None if it has none. Raises as the store does."""
    if job.packed_manifest is not None:
        return services.packs.read(job.packed_manifest)
    if job.manifest_key is None:
        return None
    with services.store.open(job.manifest_key) as file:
        return file.read()

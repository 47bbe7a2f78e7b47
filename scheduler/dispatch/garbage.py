"""Garbage: objects in the store that the database does not refer to, and unfinished batches.

Any number of schedulers may collect at once; deleting an object twice is no error.
"""

import logging
from collections.abc import Iterable
from functools import partial

from sqlalchemy.orm import Session

from db import artifacts, batches, datasets, jobs, ledger
from scheduler.removal.objects import STALE_UPLOAD_S, delete_garbage_of, delete_unnamed
from scheduler.submission.batches import ABANDONED_S, discard
from worker.data.versions import PREFIX, object_keys
from worker.failpoints import reach
from worker.services import Services, prompts
from worker.services.loops import Loop
from worker.store import packs
from worker.watched import pulse

log = logging.getLogger(__name__)

JOB_GRACE_S = 3600.0  # since the job ended
UPLOAD_GRACE_S = 86_400.0  # since the object was stored; no command takes that long to record it
JOBS_AT_ONCE = 20
BATCH_STEPS_AT_ONCE = 10


def collect_jobs(services: Services, *, older_than_s: float = JOB_GRACE_S) -> int:
    """Delete unreferenced objects of jobs that ended long enough ago; return how many.

    Nothing can be committed for these jobs any more.
    """
    with Loop(services, "collecting garbage") as loop:
        with services.database.read() as session:
            due = jobs.collectable(session, older_than_s, JOBS_AT_ONCE, without=loop.paused)
        return sum(loop.each(due, partial(_collect_job, services)))


def _collect_job(services: Services, job_id: str) -> int:
    deleted = delete_garbage_of(services, job_id)
    reach(services.settings, "collected")
    services.database.transact(partial(_mark_collected, job_id=job_id))
    log.info("garbage collected", extra={"job": job_id, "objects": deleted})
    return deleted


def _mark_collected(session: Session, job_id: str) -> None:
    """Record that a job has nothing left to see to: its manifest is in the ledger, too."""
    ledger.enter_manifests(session, [job_id])
    jobs.mark_collected(session, job_id)


def collect_batches(services: Services, *, older_than_s: float = ABANDONED_S) -> int:
    """Delete some jobs of batches whose submission was killed; return how many."""
    with Loop(services, "deleting unfinished batches") as loop:
        with services.database.read() as session:
            abandoned = batches.abandoned(session, older_than_s)
        discard_some = partial(discard, services, steps=BATCH_STEPS_AT_ONCE)
        deleted = sum(loop.each(abandoned, discard_some))
    if deleted:
        log.info("jobs of unfinished batches deleted", extra={"jobs": deleted})
    return deleted


def collect_datasets(services: Services, *, older_than_s: float = UPLOAD_GRACE_S) -> int:
    """Delete datasets' objects that only removed versions use, or none; return how many.

    Objects stored recently stay: `dataset add` uploads before it records a version, and counts
    objects that it shares with removed versions as stored again. If a manifest cannot be read, its
    error is raised and nothing is deleted.
    """
    with services.database.read() as session:
        manifests = datasets.manifests_in_use(session)
    used = {key for manifest in manifests for key in _objects_of(services, manifest)}
    # deleted while listing, because an object may be stored again at any time
    keys = services.store.keys(PREFIX, older_than_s=older_than_s)
    count = delete_unnamed(services, keys, is_named=used.__contains__)
    services.store.abort_uploads(PREFIX, STALE_UPLOAD_S)
    if count:
        log.info("garbage of removed datasets collected", extra={"objects": count})
    return count


def _objects_of(services: Services, manifest: str) -> Iterable[str]:
    pulse()
    return object_keys(services.store, manifest)


def collect_prompts(services: Services, *, older_than_s: float = UPLOAD_GRACE_S) -> int:
    """Delete the prompts that no job names; return how many objects.

    Objects stored recently stay: prompts are stored before the job that names them is recorded.
    """

    def is_used(key: str) -> bool:
        with services.database.read() as session:
            return jobs.names_prompts(session, key.rpartition("/")[2])

    keys = services.store.keys(prompts.PREFIX, older_than_s=older_than_s)
    count = delete_unnamed(services, keys, is_named=is_used)
    services.store.abort_uploads(prompts.PREFIX, STALE_UPLOAD_S)
    return count


def collect_packs(services: Services, *, older_than_s: float = UPLOAD_GRACE_S) -> int:
    """Delete the packs in which nothing lies that is kept; return how many.

    Packs stored recently stay: they are stored before what lies in them is recorded.
    """

    def is_used(key: str) -> bool:
        number = packs.number_in(key)
        if number is None:  # not ours
            return True
        with services.database.read() as session:
            return artifacts.names_pack(session, number)

    keys = services.store.keys(packs.PREFIX, older_than_s=older_than_s)
    count = delete_unnamed(services, keys, is_named=is_used)
    if count:
        log.info("packs collected", extra={"objects": count})
    return count

"""Garbage: objects in the store that the database does not refer to, and unfinished batches.

Any number of schedulers may collect at once; deleting an object twice is no error.
"""

import logging

from db import artifacts, batches, datasets, jobs
from scheduler.submission.batches import ABANDONED_S, discard
from worker.data.versions import PREFIX, object_keys
from worker.failpoints import reach
from worker.services import Services, prompts
from worker.store import packs

log = logging.getLogger(__name__)

JOB_GRACE_S = 3600.0  # since the job ended
UPLOAD_GRACE_S = 86_400.0  # since the object was stored; no command takes that long to record it
STALE_UPLOAD_S = 86_400.0
JOBS_AT_ONCE = 20
BATCH_JOBS_AT_ONCE = 10_000


def collect_jobs(services: Services, *, older_than_s: float = JOB_GRACE_S) -> int:
    """Delete unreferenced objects of jobs that ended long enough ago; return how many.

    Nothing can be committed for these jobs any more.
    """
    with services.database.read() as session:
        due = [job.id for job in jobs.collectable(session, older_than_s, JOBS_AT_ONCE)]
    return sum(_collect_job(services, job_id) for job_id in due)


def _collect_job(services: Services, job_id: str) -> int:
    with services.database.read() as session:
        used = artifacts.referenced_keys(session, job_id)
    garbage = [key for key in services.store.keys(f"jobs/{job_id}") if key not in used]
    for key in garbage:
        services.store.delete(key)
    services.store.abort_uploads(f"jobs/{job_id}", STALE_UPLOAD_S)
    reach(services.settings, "collected")
    services.database.transact(lambda session: jobs.mark_collected(session, job_id))
    log.info("garbage collected", extra={"job": job_id, "objects": len(garbage)})
    return len(garbage)


def collect_batches(services: Services, *, older_than_s: float = ABANDONED_S) -> int:
    """Delete some jobs of batches whose submission was killed; return how many."""
    with services.database.read() as session:
        abandoned = batches.abandoned(session, older_than_s)
    deleted = sum(discard(services, batch_id, at_most=BATCH_JOBS_AT_ONCE) for batch_id in abandoned)
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
    used = {key for manifest in manifests for key in object_keys(services.store, manifest)}
    count = 0
    # deleted while listing, because an object may be stored again at any time
    for key in services.store.keys(PREFIX, older_than_s=older_than_s):
        if key not in used:
            services.store.delete(key)
            count += 1
    services.store.abort_uploads(PREFIX, STALE_UPLOAD_S)
    if count:
        log.info("garbage of removed datasets collected", extra={"objects": count})
    return count


def collect_prompts(services: Services, *, older_than_s: float = UPLOAD_GRACE_S) -> int:
    """Delete the prompts that no job names; return how many objects.

    Objects stored recently stay: prompts are stored before the job that names them is recorded.
    """
    count = 0
    for key in services.store.keys(prompts.PREFIX, older_than_s=older_than_s):
        with services.database.read() as session:
            used = jobs.names_prompts(session, key.rpartition("/")[2])
        if not used:
            services.store.delete(key)
            count += 1
    services.store.abort_uploads(prompts.PREFIX, STALE_UPLOAD_S)
    return count


def collect_packs(services: Services, *, older_than_s: float = UPLOAD_GRACE_S) -> int:
    """Delete the packs in which nothing lies that is kept; return how many.

    Packs stored recently stay: they are stored before what lies in them is recorded.
    """
    count = 0
    for key in services.store.keys(packs.PREFIX, older_than_s=older_than_s):
        number = packs.number_in(key)
        if number is None:  # not ours
            continue
        with services.database.read() as session:
            used = artifacts.names_pack(session, number)
        if not used:
            services.store.delete(key)
            count += 1
    if count:
        log.info("packs collected", extra={"objects": count})
    return count

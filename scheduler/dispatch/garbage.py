"""Garbage: objects in the store that the database does not name.

Any number of schedulers may collect at once; deleting twice is no error.
"""

import logging

from db import artifacts, datasets, jobs
from worker.data.versions import PREFIX, object_keys
from worker.services import Services

log = logging.getLogger(__name__)

JOB_GRACE_S = 3600.0  # since the job ended
DATASET_GRACE_S = 86_400.0  # since the object was stored; no `dataset add` uploads for that long
STALE_UPLOAD_S = 86_400.0
JOBS_AT_ONCE = 20


def collect_jobs(services: Services, *, older_than_s: float = JOB_GRACE_S) -> int:
    """Delete the unnamed objects of jobs that ended long enough ago; return how many.

    Nothing can be committed to those any more.
    """
    with services.database.read() as session:
        due = [job.id for job in jobs.collectable(session, older_than_s, JOBS_AT_ONCE)]
    return sum(_collect_job(services, job_id) for job_id in due)


def _collect_job(services: Services, job_id: str) -> int:
    with services.database.read() as session:
        named = artifacts.referenced_keys(session, job_id)
    swept = [key for key in services.store.keys(f"jobs/{job_id}") if key not in named]
    for key in swept:
        services.store.delete(key)
    services.store.abort_uploads(f"jobs/{job_id}", STALE_UPLOAD_S)
    services.database.transact(lambda session: jobs.mark_collected(session, job_id))
    log.info("garbage collected", extra={"job": job_id, "objects": len(swept)})
    return len(swept)


def collect_datasets(services: Services, *, older_than_s: float = DATASET_GRACE_S) -> int:
    """Delete the objects that no dataset version names, removed ones apart; return how many.

    Only those stored long enough ago: a dataset that is being added is uploaded before it is
    recorded, and what it shares with removed ones counts as stored again. Where a manifest cannot
    be read, that error is raised and nothing is deleted.
    """
    with services.database.read() as session:
        manifests = datasets.manifests_in_use(session)
    named = {key for manifest in manifests for key in object_keys(services.store, manifest)}
    count = 0
    # listed and deleted one by one, for an object may be stored again at any time
    for key in services.store.keys(PREFIX, older_than_s=older_than_s):
        if key not in named:
            services.store.delete(key)
            count += 1
    services.store.abort_uploads(PREFIX, STALE_UPLOAD_S)
    if count:
        log.info("garbage of removed datasets collected", extra={"objects": count})
    return count

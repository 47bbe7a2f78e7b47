"""Finishing jobs whose shards are all done: store the manifests, then mark the jobs succeeded.

Workers and dispatchers may do it at the same time: a manifest's bytes follow from the database
alone, and the last step updates guarded rows.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from db import jobs
from db.states import JobState
from worker.files import canonical_json
from worker.services import Services

log = logging.getLogger(__name__)

STORED_AT_ONCE = 8  # manifests


def finalize_due(services: Services, *, limit: int = 50) -> int:
    """Finish at most `limit` jobs; return how many succeeded."""
    with services.database.read() as session:
        due = jobs.next_to_finalize(session, limit)
    return len(finalize(services, settle(services, due)))


def settle(services: Services, job_ids: Sequence[str]) -> list[str]:
    """Move those jobs on whose shards have all succeeded; return those that can be finished.

    Each is a transaction of its own, because it locks the job for itself alone.
    """
    return [
        job_id
        for job_id in job_ids
        if services.database.transact(partial(jobs.settle, job_id=job_id)) is JobState.FINALIZING
    ]


def settle_complete(services: Services, job_ids: Sequence[str]) -> list[str]:
    """`settle`, but only for jobs that seem complete to a look without locks, which is cheap."""
    with services.database.read() as session:
        complete = jobs.complete(session, job_ids)
    return settle(services, complete)


def finalize(services: Services, job_ids: Sequence[str]) -> list[str]:
    """Finish jobs that are finalizing; return those that succeeded now."""
    if not job_ids:
        return []
    with services.database.read() as session:
        manifests = jobs.manifests(session, job_ids)

    def store(job_id: str) -> tuple[str, str]:
        data = canonical_json(manifests[job_id])
        blob = services.store.put_as(f"jobs/{job_id}/manifest.json", data, durable=False)
        return blob.key, blob.sha256

    with ThreadPoolExecutor(min(STORED_AT_ONCE, len(job_ids))) as threads:
        stored = dict(zip(job_ids, threads.map(store, job_ids), strict=True))
    services.store.flush()
    done = services.database.transact(lambda session: jobs.succeed_many(session, stored))
    for job_id in done:
        log.info("job succeeded", extra={"job": job_id})
    return done

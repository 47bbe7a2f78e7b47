"""Finishing jobs whose shards are all done: store the manifest, then mark the job succeeded.

Workers and dispatchers may do it at the same time: the manifest's bytes follow from the database
alone, and the last step updates one guarded row.
"""

import logging

from db import jobs
from db.states import JobState
from worker.files import canonical_json
from worker.services import Services

log = logging.getLogger(__name__)


def finalize_due(services: Services, *, limit: int = 50) -> int:
    """Finish at most `limit` jobs; return how many succeeded."""
    with services.database.read() as session:
        due = [job.id for job in jobs.next_to_finalize(session, limit)]
    return sum(finalize(services, job_id) for job_id in due)


def finalize(services: Services, job_id: str) -> bool:
    """Finish a job; False if some of its shards are not done, or it is finished already."""
    if services.database.transact(lambda s: jobs.settle(s, job_id)) is not JobState.FINALIZING:
        return False
    with services.database.read() as session:
        manifest = canonical_json(jobs.manifest(session, job_id))
    blob = services.store.put_as(f"jobs/{job_id}/manifest.json", manifest)
    services.database.transact(lambda s: jobs.succeed(s, job_id, blob.key, blob.sha256))
    log.info("job succeeded", extra={"job": job_id})
    return True

"""Finishing jobs whose shards are all done: the manifest is put, then the job has succeeded.

Any worker after its last shard and any dispatcher may do it, at once too: the manifest's bytes
follow from the record alone, and the last step is one guarded row.
"""

import json
import logging
from typing import Any

from sqlalchemy.orm import Session

from db import jobs
from db.states import JobState
from worker.services import Services

log = logging.getLogger(__name__)

AT_ONCE = 50


def finalize_due(services: Services, *, limit: int = AT_ONCE) -> int:
    """Finish at most `limit` jobs; say how many have now succeeded."""
    with services.database.read() as session:
        due = [job.id for job in jobs.next_to_finalize(session, limit)]
    return sum(finalize(services, job_id) for job_id in due)


def finalize(services: Services, job_id: str) -> bool:
    """Finish one job if its shards are all done; False where it is not this far, or is already."""
    if services.database.transact(lambda s: jobs.settle(s, job_id)) is not JobState.FINALIZING:
        return False
    with services.database.read() as session:
        manifest = canonical(jobs.manifest(session, job_id))
    blob = services.store.put_as(f"jobs/{job_id}/manifest.json", manifest)

    def succeed(session: Session) -> None:
        jobs.succeed(session, job_id, blob.key, blob.sha256)

    services.database.transact(succeed)
    log.info("job succeeded", extra={"job": job_id})
    return True


def canonical(data: dict[str, Any]) -> bytes:
    """The one way to write a manifest: sorted keys, no spaces, UTF-8."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()

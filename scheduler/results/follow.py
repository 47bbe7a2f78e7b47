"""Following jobs to their end by reading the record, as `wait`, `watch` and `--wait` do."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence

from sqlalchemy.orm import Session

from db import jobs, workers
from db.errors import NotFound
from db.states import FINAL
from db.tables import Job
from worker.services import Services

log = logging.getLogger(__name__)

POLL_S = 0.5
JOBS_A_SECOND = 400  # read at most, so that following a large batch stays cheap for the database


def find_jobs(session: Session, references: Sequence[str]) -> list[Job]:
    """The jobs that ids or prefixes of jobs or batches name, each once. Raises `NotFound`."""
    found: dict[str, Job] = {}
    for reference in references:
        for job in _jobs_of(session, reference):
            found.setdefault(job.id, job)
    return list(found.values())


def _jobs_of(session: Session, reference: str) -> Sequence[Job]:
    try:
        return [jobs.get(session, reference)]
    except NotFound as not_a_job:
        try:
            batch = jobs.get_batch(session, reference)
        except NotFound:
            raise not_a_job from None
        return jobs.batch_jobs(session, batch.id)


def follow(services: Services, job_ids: Sequence[str]) -> Iterator[list[Job]]:
    """Yield the jobs as they are now, again and again, lastly when all of them have ended."""
    latest: dict[str, Job] = {}
    pause_s = max(POLL_S, len(job_ids) / JOBS_A_SECOND)
    while True:
        with services.database.read() as session:
            for job_id in job_ids:
                if job_id not in latest or latest[job_id].status not in FINAL:
                    latest[job_id] = jobs.get(session, job_id)
        yield list(latest.values())
        if all(job.status in FINAL for job in latest.values()):
            return
        time.sleep(pause_s)


def wait(
    services: Services, job_ids: Sequence[str], seen: Callable[[list[Job]], None] | None = None
) -> list[Job]:
    """Return the jobs once all of them have ended; `seen` is called each time they are read.

    Warns where no worker is running, for the wait may then never end.
    """
    with services.database.read() as session:
        if not workers.live(session):
            log.warning("no worker is running; start one with `genmill up`")
    ended: list[Job] = []
    for ended in follow(services, job_ids):
        if seen:
            seen(ended)
    return ended

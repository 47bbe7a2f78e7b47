"""Finding jobs by their ids, and waiting for them to end by reading the record."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sqlalchemy.orm import Session

from db import batches, chains, jobs, progress, workers
from db.errors import NotFound
from db.states import FINAL
from db.tables import Job
from worker.services import Services

log = logging.getLogger(__name__)

POLL_S = 0.5
JOBS_PER_SECOND = 400  # read at most, so that waiting for a large batch stays cheap


class Watched(NamedTuple):
    """A job and its progress, read at the same time."""

    job: Job
    progress: progress.Progress


def find_jobs(
    session: Session, references: Sequence[str], *, with_chains: bool = False
) -> list[Job]:
    """The jobs with these ids, and those of batches with these ids, each job once.

    `with_chains`, the jobs to run after them too. Unambiguous prefixes of ids will do. Raises
    `NotFound` or `Refused`.
    """
    found: dict[str, Job] = {}
    for reference in references:
        try:
            matching = [jobs.get(session, reference)]
        except NotFound as not_a_job:
            try:
                batch = batches.get(session, reference)
            except NotFound:
                raise not_a_job from None
            matching = batches.jobs_of(session, batch.id)
        found |= {job.id: job for job in matching}
    for job in list(found.values()) if with_chains else ():
        found |= {each.id: each for each in chains.followers(session, job.id)}
    return list(found.values())


def wait(
    services: Services,
    job_ids: Sequence[str],
    on_poll: Callable[[list[Watched]], None] = lambda _: None,
) -> list[Job]:
    """Return the jobs once all of them have ended; `on_poll` gets them each time they are read.

    Logs a warning if no worker is running: the wait may never end.
    """
    with services.database.read() as session:
        if not workers.live(session):
            log.warning("no worker is running; start one with `genmill up`")
    latest: dict[str, Job] = {}
    while True:
        with services.database.read() as session:
            for job_id in job_ids:
                if job_id not in latest or latest[job_id].status not in FINAL:
                    latest[job_id] = jobs.get(session, job_id)
            done = progress.of(session, list(latest.values()))
        on_poll([Watched(job, done[job.id]) for job in latest.values()])
        if all(job.status in FINAL for job in latest.values()):
            return list(latest.values())
        time.sleep(max(POLL_S, len(job_ids) / JOBS_PER_SECOND))

"""Finding jobs by their ids, and waiting for them to end by reading the record."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy.orm import Session

from db import batches, chains, jobs, progress, workers
from db.errors import Gone, NotFound, TimedOut
from db.states import FINAL
from db.tables import Batch, Job
from scheduler.output.render import first_lines, to_count, to_duration
from worker.services import Services

log = logging.getLogger(__name__)

POLL_S = 0.5
JOBS_PER_SECOND = 400  # read at most, so that waiting for a large batch stays cheap


class Watched(NamedTuple):
    """A job and its progress, read at the same time."""

    job: Job
    progress: progress.Progress


def find_jobs(
    session: Session,
    references: Sequence[str],
    *,
    with_chains: bool = False,
    kept: bool = False,
) -> list[Job]:
    """The jobs with these ids, and those of batches with these ids, each job once.

    `with_chains`, the jobs to run after them too; with `kept`, also those that were removed and
    whose artifacts were kept. Unambiguous prefixes of ids will do. Raises `NotFound`, `Gone` or
    `Refused`.
    """
    groups = find_groups(session, references, kept=kept).values()
    found = {job.id: job for group in groups for job in group}
    for job in list(found.values()) if with_chains else ():
        found |= {each.id: each for each in chains.followers(session, job.id)}
    return list(found.values())


def find_groups(
    session: Session, references: Sequence[str], *, kept: bool = False
) -> dict[str, list[Job]]:
    """As `find_jobs`, by the id of the job or batch that each reference names."""
    found: dict[str, list[Job]] = {}
    for reference in references:
        try:
            job = jobs.get(session, reference, kept=kept)
            found[job.id] = [job]
        except NotFound:
            batch = _batch(session, reference)
            if batch is None:
                raise
            found[batch.id] = batches.jobs_of(session, batch.id, kept=kept)
    return found


def find_job(session: Session, reference: str, *, kept: bool = False) -> Job:
    """The job with this id or unambiguous prefix. Raises `NotFound`, also for a batch's id.

    `kept` as in `find_jobs`.
    """
    try:
        return jobs.get(session, reference, kept=kept)
    except NotFound:
        batch = _batch(session, reference)
        if batch is None:
            raise
        raise NotFound(
            f"{reference!r} is a batch of {to_count(batch.size, 'job')}, and one job is needed",
            remedy=f"list them with `genmill job list --batch {reference}`",
        ) from None


def _batch(session: Session, reference: str) -> Batch | None:
    try:
        return batches.get(session, reference)
    except Gone:
        raise
    except NotFound:
        return None


def wait(
    services: Services,
    job_ids: Sequence[str],
    on_poll: Callable[[list[Watched]], None] = lambda _: None,
    *,
    timeout: timedelta | None = None,
) -> list[Job]:
    """Return the jobs once all of them have ended; `on_poll` gets them each time they are read.

    Logs a warning if no worker is running: the wait may never end. Raises `TimedOut` if they have
    not ended within `timeout`.
    """
    deadline = time.monotonic() + (timeout.total_seconds() if timeout else math.inf)
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
        left_s = deadline - time.monotonic()
        if timeout is not None and left_s <= 0:
            raise _timed_out(list(latest.values()), timeout)
        time.sleep(min(max(POLL_S, len(job_ids) / JOBS_PER_SECOND), left_s))


def _timed_out(waited: Sequence[Job], timeout: timedelta) -> TimedOut:
    """The error that names the jobs which have not ended."""
    still = [f"job {job.id} is {job.status}" for job in waited if job.status not in FINAL]
    after = f"after {to_duration(timeout.total_seconds())}"
    if len(waited) == 1:
        told = f"{after}, {still[0]}; it goes on"
    else:
        lines = first_lines(still)
        counted = f"{after}, {len(still)} of {len(waited)} jobs have not ended; they go on"
        told = "\n".join([counted, *lines])
    return TimedOut(told, remedy="wait again, or end it with `genmill job cancel`")

"""Reading a job's log, and following it while the job runs."""

import time
from collections.abc import Iterator
from datetime import timedelta

from db import jobs
from db.session import clock
from db.states import FINAL
from db.tables import Job, LogLine
from scheduler.results.waiting import POLL_S, find_job
from worker.services import Services

LATE = timedelta(seconds=5)  # a line's time is from before its commit


def read_log(
    services: Services, reference: str, *, since: timedelta | None = None, tail: int | None = None
) -> tuple[Job, list[LogLine], set[str]]:
    """A job, the lines of its log to show, and the ids of all lines that are there.

    Raises `NotFound` or `Refused` for the reference.
    """
    with services.database.read() as session:
        job = find_job(session, reference)
        beginning = clock(session) - since if since else None
        found = jobs.log_lines(session, job.id, since=beginning)
    shown = found if tail is None else found[len(found) - min(tail, len(found)) :]
    return job, shown, {line.id for line in found}


def new_lines(services: Services, job: Job, seen: set[str]) -> Iterator[LogLine]:
    """The lines that are not `seen` yet, as they come, until the job has ended."""
    with services.database.read() as session:
        beginning = clock(session) - LATE
    while True:
        with services.database.read() as session:
            # its state first: the lines are written before it ends
            ended = jobs.get(session, job.id).status in FINAL
            found = jobs.log_lines(session, job.id, since=beginning)
            beginning = clock(session) - LATE
        yield from (line for line in found if line.id not in seen)
        seen |= {line.id for line in found}
        if ended:
            return
        time.sleep(POLL_S)

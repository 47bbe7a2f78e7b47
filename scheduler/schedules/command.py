"""The enqueue command that a schedule repeats, and the jobs that it makes."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from db import jobs
from db.tables import Job, Schedule
from scheduler.submission.arguments import parse_repeated
from scheduler.submission.batches import check_batch, insert_batch
from scheduler.submission.enqueue import Request, insert, prepare
from worker.services import Services


def prepare_requests(services: Services, words: Sequence[str]) -> list[Request]:
    """The jobs that the command means now, with names pinned to today's versions.

    Raises `Refused`, `NotFound` or `Unreachable` as the command itself would.
    """
    command = parse_repeated(words)
    if command.spec is None:
        return check_batch(services, command.lines, priority=command.priority)
    return [prepare(services, command.spec, priority=command.priority)]


def insert_jobs(session: Session, schedule: Schedule, requests: list[Request]) -> list[Job]:
    """Insert jobs of a schedule; those of a batch file under a new batch."""
    requests = [request.with_columns(schedule_id=schedule.id) for request in requests]
    if len(requests) == 1 and schedule.command[1] != "batch":
        return [insert(session, requests[0])]
    batch = insert_batch(session, requests)
    return jobs.batch_jobs(session, batch.id)

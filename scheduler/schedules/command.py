"""The enqueue command that a schedule repeats, and the jobs that it makes."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from db import jobs
from db.tables import Job, Schedule
from scheduler.submission.arguments import parse_repeated
from scheduler.submission.batches import check_batch, insert_batch
from scheduler.submission.enqueue import Request, insert, prepare
from worker.services import Services
from worker.services.prompts import store_prompts


def prepare_requests(services: Services, words: Sequence[str]) -> list[Request]:
    """The jobs that the command means now, with names pinned to today's versions, to be inserted.

    Raises `Refused`, `NotFound` or `Unreachable` as the command itself would.
    """
    command = parse_repeated(words)
    if command.spec is None:
        requests = check_batch(services, command.lines, priority=command.priority)
    else:
        requests = [prepare(services, command.spec, priority=command.priority)]
    for request in requests:
        store_prompts(services.store, request.pinned)
    return requests


def insert_jobs(session: Session, schedule: Schedule, requests: list[Request]) -> list[Job]:
    """Insert jobs of a schedule; those of a batch file under a new batch."""
    requests = [request.with_columns(schedule_id=schedule.id) for request in requests]
    if len(requests) == 1 and schedule.command[1] != "batch":
        return [insert(session, requests[0])]
    batch = insert_batch(session, requests)
    return jobs.batch_jobs(session, batch.id)

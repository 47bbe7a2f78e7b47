"""The enqueue command that a schedule repeats, and the jobs that it makes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy.orm import Session

from db import batches
from db.tables import Job, Schedule
from scheduler.submission.arguments import parse_repeated
from scheduler.submission.batch_lines import check_batch, read_batch
from scheduler.submission.batches import staged_batch
from scheduler.submission.enqueue import prepare, prepare_then, store
from scheduler.submission.requests import Columns
from worker.services import Services

InsertJobs = Callable[[Session], Job]


def check_command(services: Services, words: Sequence[str]) -> None:
    """Raise `Refused`, `NotFound` or `Unreachable` as the command itself would now."""
    command = parse_repeated(words)
    if command.spec is not None:
        request = prepare(services, command.spec, priority=command.priority)
        prepare_then(services, request, command.then)
        return
    for _ in check_batch(services, read_batch(command.file), priority=command.priority):
        pass


@contextmanager
def prepared_jobs(services: Services, schedule: Schedule) -> Iterator[InsertJobs]:
    """Check a schedule's command; yield a function that inserts its jobs and returns the first.

    Names mean today's versions. A batch is stored beforehand: the function makes it visible, and
    it is deleted if the function was not called. Raises as `check_command`.
    """
    command = parse_repeated(schedule.command)
    columns: Columns = {"priority": command.priority, "schedule_id": schedule.id}
    if command.spec is not None:
        request = prepare(services, command.spec, **columns)
        yield store(services, request, prepare_then(services, request, command.then))
        return
    with staged_batch(services, read_batch(command.file), columns) as batch_id:
        yield lambda session: _complete(session, batch_id)


def _complete(session: Session, batch_id: str) -> Job:
    batches.complete(session, batch_id)
    return batches.jobs_of(session, batch_id, limit=1)[0]

"""The enqueue command that a schedule repeats, and the jobs that it makes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from db import batches
from db.columns import new_id
from db.errors import Refused
from db.registry import Reference
from db.tables import Batch, Job, Schedule
from scheduler.publishing.sources import NothingThere, resolved
from scheduler.schedules.parsing import parse_repeated
from scheduler.submission.arguments import EnqueueCommand
from scheduler.submission.batch_lines import check_batch, read_batch
from scheduler.submission.batches import staged_batch
from scheduler.submission.enqueue import prepare, prepare_then, store
from scheduler.submission.judges import JudgeFolders
from scheduler.submission.requests import Columns
from worker.services import Services
from worker.specs import Publish

InsertJobs = Callable[[Session], Job]


@dataclass(frozen=True)
class Prepared:
    """The checked jobs of a schedule's command."""

    insert: InsertJobs  # returns the first
    find: Callable[[Session], Job | None]  # the first, if they have been inserted
    reference: str  # the id of the batch, or else of the first
    dataset: str | None = None  # the version that the first uses, as in `digits:4`


def check_command(services: Services, words: Sequence[str], *, for_new_data: bool = False) -> None:
    """Raise `Refused`, `NotFound` or `Unreachable` as the command itself would now.

    A command that is repeated `for_new_data` must use a dataset's newest version. One that takes
    down may find nothing now.
    """
    command = parse_repeated(words)
    if for_new_data:
        _refuse_without_data(command)
    try:
        command = _named_now(services, command)
    except NothingThere:
        return
    judges = JudgeFolders(loading=True)
    if command.spec is not None:
        request = prepare(services, command.spec, priority=command.priority)
        prepare_then(services, request, command.then)
        for spec in (command.spec, *command.then):
            judges.refuse_unusable(spec)
        return
    for _ in check_batch(services, _lines(command), judges=judges, priority=command.priority):
        pass


@contextmanager
def prepared_jobs(services: Services, schedule: Schedule) -> Iterator[Prepared]:
    """Check a schedule's command; yield its jobs.

    Names mean today's versions. A batch is stored beforehand: `insert` makes it visible, and it is
    deleted if that was not called. Raises as `check_command`, and `NothingThere`.
    """
    command = _named_now(services, parse_repeated(schedule.command))
    columns: Columns = {"priority": command.priority, "schedule_id": schedule.id}
    if command.spec is not None:
        request = prepare(services, command.spec, **columns)
        then, job_id = prepare_then(services, request, command.then), new_id()
        insert, find = store(services, request, then, job_id), partial(_find_job, job_id=job_id)
        yield Prepared(insert, find, job_id, getattr(request.pinned.spec, "dataset", None))
        return
    with staged_batch(services, _lines(command), columns) as batch_id:
        complete = partial(_complete, batch_id=batch_id)
        yield Prepared(complete, partial(_find_batch, batch_id=batch_id), batch_id)


def _named_now(services: Services, command: EnqueueCommand) -> EnqueueCommand:
    """The command, with the jobs that are published if it names some."""
    return resolved(services, command) if isinstance(command.spec, Publish) else command


def _lines(command: EnqueueCommand) -> Iterable[str]:
    return command.lines or read_batch(command.file)


def _refuse_without_data(command: EnqueueCommand) -> None:
    dataset = getattr(command.spec, "dataset", None)
    if dataset is None:
        raise Refused(
            "the command uses no dataset, so no data can be new to it",
            remedy="schedule a train or finetune command, or leave --only-if-new-data out",
        )
    if Reference.parse(dataset).number is not None:
        raise Refused(
            f"--dataset {dataset} is always the same version, so no data is ever new",
            remedy=f"use --dataset {Reference.parse(dataset).name}, which means the newest one",
        )


def _complete(session: Session, batch_id: str) -> Job:
    batches.complete(session, batch_id)
    return batches.jobs_of(session, batch_id, limit=1)[0]


def _find_batch(session: Session, batch_id: str) -> Job | None:
    done = session.get_one(Batch, batch_id).complete_at is not None
    return batches.jobs_of(session, batch_id, limit=1)[0] if done else None


def _find_job(session: Session, job_id: str) -> Job | None:
    return session.get(Job, job_id)

"""Schedules: when each is due next, and the outcome of every due time."""

from collections.abc import Sequence
from datetime import datetime
from typing import NotRequired, TypedDict, Unpack

from sqlalchemy import Row, Select, delete, select
from sqlalchemy.orm import Session

from db.columns import new_id
from db.errors import NotFound, Refused
from db.readable import Unreadable, read_each
from db.session import clock, insert_new
from db.tables import Job, Schedule, ScheduleRun


class Rules(TypedDict):
    """When a due time is skipped or made up for: columns of a schedule."""

    missed: str  # skip | once
    overlap: str  # skip | queue
    only_if_new_data: NotRequired[bool]
    new_data_wait_s: NotRequired[float | None]


def add(
    session: Session,
    *,
    name: str,
    cron: str,
    timezone: str,
    command: list[str],
    next_due: datetime,
    **rules: Unpack[Rules],
) -> Schedule:
    """Add a schedule that is first due at `next_due`. Raises `Refused` if the name is taken."""
    row = {
        "id": new_id(),
        "name": name,
        "cron": cron,
        "timezone": timezone,
        "command": command,
        "paused": False,
        "next_due": next_due,
        "created_at": clock(session),
        **rules,
    }
    if not insert_new(session, Schedule, [row]):
        raise Refused(
            f"there is already a schedule {name!r}", remedy="remove it or choose another name"
        )
    return get(session, name)


def get(session: Session, name: str) -> Schedule:
    """The schedule of this name. Raises `NotFound` with the nearest spelling."""
    found: Schedule | None = session.scalar(select(Schedule).where(Schedule.name == name))
    if found is None:
        raise _unknown(session, name)
    return found


def _unknown(session: Session, name: str) -> NotFound:
    return NotFound.unknown("schedule", name, session.scalars(select(Schedule.name)))


def lock(session: Session, schedule_id: str) -> Schedule | None:
    """Lock a schedule's row until the transaction ends, and return it; None if it was removed."""
    return session.get(Schedule, schedule_id, with_for_update=True, populate_existing=True)


def select_all() -> Select[Schedule]:
    """The statement of every schedule, by name."""
    return select(Schedule).order_by(Schedule.name)


def listing(session: Session) -> list[Schedule]:
    """Every schedule whose row can be read, by name."""
    return read_each(session, select_all(), _schedules, called=Schedule.name)[0]


def pause(session: Session, name: str) -> Schedule:
    """Stop a schedule from firing until it is resumed. Raises `NotFound`."""
    schedule = get(session, name)
    schedule.paused = True
    session.flush()
    return schedule


def resume(session: Session, name: str, *, next_due: datetime | None = None) -> Schedule:
    """Let a paused schedule fire again, next at `next_due` if given. Raises `NotFound`."""
    schedule = get(session, name)
    schedule.paused = False
    schedule.next_due = next_due or schedule.next_due
    session.flush()
    return schedule


def remove(session: Session, name: str) -> None:
    """Remove a schedule and its runs; the jobs it submitted stay. Raises `NotFound`."""
    found = session.scalar(select(Schedule.id).where(Schedule.name == name))  # it may be damaged
    if found is None:
        raise _unknown(session, name)
    session.execute(delete(ScheduleRun).where(ScheduleRun.schedule_id == found))
    session.execute(delete(Schedule).where(Schedule.id == found))
    session.expire_all()


def due(session: Session) -> tuple[list[Schedule], list[Unreadable]]:
    """Schedules that are due and not paused, the longest overdue first; and damaged ones."""
    statement = select(Schedule).where(
        Schedule.paused.is_(False), Schedule.next_due <= clock(session)
    )
    in_order = statement.order_by(Schedule.next_due, Schedule.name)
    return read_each(session, in_order, _schedules, called=Schedule.name)


def _schedules(rows: Sequence[Row[Schedule]]) -> list[Schedule]:
    return [row[0] for row in rows]


def record_run(
    session: Session,
    schedule_id: str,
    due: datetime,
    *,
    outcome: str,
    job_id: str | None = None,
    reason: str | None = None,
) -> bool:
    """Record the outcome of a due time; False if it has one already: then submit nothing for it.

    Call it in the transaction that inserts the job: then a due time fires once, whatever crashes.
    Of two schedulers, the second waits here until the first has committed or rolled back.
    """
    row = {
        "schedule_id": schedule_id,
        "due": due,
        "outcome": outcome,
        "job_id": job_id,
        "reason": reason,
    }
    return insert_new(session, ScheduleRun, [row]) == 1


def last_used(session: Session, schedule_id: str) -> str | None:
    """The dataset version that the job of the latest run used, as in `digits:4`."""
    # those of a clock that was ahead would stay the latest until their time has come
    run = (ScheduleRun.schedule_id == schedule_id, ScheduleRun.due <= clock(session))
    statement = (
        select(Job.spec["dataset"].as_string())
        .join(ScheduleRun, ScheduleRun.job_id == Job.id)
        .where(*run)
        .order_by(ScheduleRun.due.desc())
    )
    found: str | None = session.scalar(statement.limit(1))
    return found


def set_next_due(session: Session, schedule_id: str, next_due: datetime) -> None:
    """Set when a schedule is due next; does nothing if it was removed meanwhile."""
    schedule = session.get(Schedule, schedule_id)
    if schedule is not None:
        schedule.next_due = next_due
        session.flush()


def runs(session: Session, schedule_id: str, limit: int = 20) -> list[ScheduleRun]:
    """A schedule's newest runs, and its newest that enqueued a job; newest first.

    Without the latter, a schedule that skips most of its due times would hide what it did.
    """
    newest = (
        select(ScheduleRun)
        .where(ScheduleRun.schedule_id == schedule_id)
        .order_by(ScheduleRun.due.desc())
        .limit(limit)
    )
    enqueued = newest.where(ScheduleRun.job_id.is_not(None))
    found = {run.due: run for each in (newest, enqueued) for run in session.scalars(each)}
    return [found[due] for due in sorted(found, reverse=True)]

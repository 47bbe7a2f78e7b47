"""Firing: each due time is answered once, however many schedulers look and whenever they crash.

One transaction answers a due time: it locks the schedule, inserts the jobs, records the due time (a
primary key) and sets the next one. So a crash leaves either all of it or nothing.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from db import jobs, schedules
from db.errors import GenmillError, Unreachable
from db.session import clock
from db.states import FINAL, JobState
from db.tables import Job, Schedule
from scheduler.schedules.command import insert_jobs, prepare_requests
from scheduler.schedules.cron import due_by, next_due
from scheduler.submission.enqueue import Request, ring_or_warn
from worker.services import Services

log = logging.getLogger(__name__)

GRACE = timedelta(seconds=60)  # a due time that is answered later than this counts as missed


@dataclass(frozen=True)
class Answer:
    """What becomes of a due time."""

    due: datetime
    outcome: str  # fired | skipped | missed | failed | triggered
    reason: str | None = None


def fire_due(services: Services) -> int:
    """Answer every schedule that is due; return how many of them enqueued jobs."""
    with services.database.read() as session:
        due = schedules.due(session)
    fired = sum(_fire(services, schedule) for schedule in due)
    if fired:
        ring_or_warn(services)
    return fired


def _fire(services: Services, schedule: Schedule) -> bool:
    """Answer one schedule; where a service is away it stays due, for the next round."""
    requests: list[Request] = []
    failure = None
    try:
        requests = prepare_requests(services, schedule.command)
    except Unreachable as error:
        log.warning("schedule %s waits: %s", schedule.name, error)
        return False
    except GenmillError as error:
        failure = str(error)
    try:
        answers = services.database.transact(
            lambda session: _answer(session, schedule, requests, failure)
        )
    except _AlreadyAnswered:  # as after a restored backup: go on to the next due time

        def skip(session: Session) -> None:
            following = next_due(schedule.cron, schedule.timezone, clock(session))
            schedules.set_next_due(session, schedule.id, following)

        services.database.transact(skip)
        return False
    for answer in answers:
        log.info("schedule %s: %s", schedule.name, answer.outcome, extra={"due": answer.due})
    return any(answer.outcome == "fired" for answer in answers)


class _AlreadyAnswered(Exception):
    """A run is recorded for this due time."""


def _answer(
    session: Session, seen: Schedule, requests: list[Request], failure: str | None
) -> list[Answer]:
    """Answer every due time up to now; `seen` is the schedule as it was when it was found due."""
    schedule = schedules.lock(session, seen.id)
    if schedule is None or schedule.paused or schedule.next_due != seen.next_due:
        return []
    now = clock(session)
    times = due_by(now, cron=schedule.cron, timezone=schedule.timezone, first=schedule.next_due)
    answers = _by_rules(session, schedule, times.latest, now, failure)
    for answer in answers:
        made = insert_jobs(session, schedule, requests) if answer.outcome == "fired" else []
        if not schedules.record_run(
            session,
            schedule.id,
            answer.due,
            outcome=answer.outcome,
            job_id=made[0].id if made else None,
            reason=answer.reason,
        ):
            raise _AlreadyAnswered
    schedules.set_next_due(session, schedule.id, times.following)
    return answers


def _by_rules(
    session: Session, schedule: Schedule, latest: datetime, now: datetime, failure: str | None
) -> list[Answer]:
    """What becomes of the due times from `schedule.next_due` to `latest`."""
    first, skips_missed = schedule.next_due, schedule.missed == "skip"
    since = f"missed from {first.isoformat()} on"
    if skips_missed and now - latest > GRACE:
        return [Answer(latest, "missed", since)]
    answers = [Answer(first, "missed", since)] if skips_missed and latest != first else []
    if failure is not None:
        return [*answers, Answer(latest, "failed", failure)]
    if schedule.overlap == "skip" and (running := _unfinished_job(session, schedule)):
        return [*answers, Answer(latest, "skipped", f"job {running.id} is {running.status}")]
    return [*answers, Answer(latest, "fired", since if latest != first else None)]


def _unfinished_job(session: Session, schedule: Schedule) -> Job | None:
    for state in set(JobState) - FINAL:
        if found := jobs.listing(session, schedule=schedule.id, status=state, limit=1):
            return found[0]
    return None

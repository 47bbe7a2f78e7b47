"""Schedules: each due time is answered once, however many schedulers look and whenever they crash.

One transaction answers a due time: it locks the schedule, inserts the jobs, takes the due time (a
primary key) and moves the schedule on. So a crash leaves either all of it or nothing.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from db import jobs, schedules
from db.errors import GenmillError, Refused, Unreachable
from db.session import clock
from db.states import FINAL, JobState
from db.tables import Job, Schedule
from scheduler.schedules.cron import next_due, turn
from scheduler.submission.arguments import anchor_files, parse_repeated
from scheduler.submission.batches import check_batch, insert_batch
from scheduler.submission.enqueue import Request, insert, prepare, ring_softly
from worker.services import Services
from worker.specs import NAME_PATTERN, NAME_RULE

log = logging.getLogger(__name__)

MISSED = ("skip", "once")
OVERLAP = ("skip", "queue")
GRACE = timedelta(seconds=60)  # a due time that is answered later than this counts as missed


@dataclass(frozen=True)
class Answer:
    """What becomes of a due time."""

    due: datetime
    outcome: str  # fired | skipped | missed | failed | triggered
    reason: str | None = None


def add_schedule(
    services: Services,
    name: str,
    *,
    cron: str,
    command: Sequence[str],
    timezone: str = "UTC",
    missed: str = "skip",
    overlap: str = "skip",
) -> Schedule:
    """Add a schedule that repeats the words of an enqueue command, `["enqueue", "train", ...]`.

    `missed`: a due time that nobody answered in time is skipped, or `once` for all of them is made
    up for. `overlap`: while a job of an earlier time goes on, the next is skipped, or queued.
    Raises `Refused` or `NotFound` for whatever would be wrong if it came due now.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise Refused(f"schedule name {name!r}: {NAME_RULE}")
    for rule, given, known in (("missed", missed, MISSED), ("overlap", overlap, OVERLAP)):
        if given not in known:
            raise Refused.unknown(f"{rule} rule", given, known)
    words = anchor_files(command)
    _requests(services, words)

    def work(session: Session) -> Schedule:
        return schedules.add(
            session,
            name=name,
            cron=cron,
            timezone=timezone,
            missed=missed,
            overlap=overlap,
            command=words,
            next_due=next_due(cron, timezone, clock(session)),
        )

    return services.database.transact(work)


def resume_schedule(services: Services, name: str) -> Schedule:
    """Let a paused schedule go on; the due times of the pause are not made up for."""

    def work(session: Session) -> Schedule:
        schedule = schedules.get(session, name)
        following = next_due(schedule.cron, schedule.timezone, clock(session))
        return schedules.resume(session, name, next_due=following)

    return services.database.transact(work)


def trigger_schedule(services: Services, name: str) -> list[Job]:
    """Enqueue what a schedule repeats now, besides its due times and even while it is paused."""
    with services.database.read() as session:
        schedule = schedules.get(session, name)
    requests = _requests(services, schedule.command)

    def work(session: Session) -> list[Job]:
        made = _insert(session, schedules.get(session, name), requests)
        schedules.record_run(
            session, schedule.id, clock(session), outcome="triggered", job_id=made[0].id
        )
        return made

    made = services.database.transact(work)
    ring_softly(services)
    return made


def fire_due(services: Services) -> int:
    """Answer every schedule that is due; say for how many jobs were enqueued."""
    with services.database.read() as session:
        due = schedules.due(session)
    fired = sum(_fire(services, schedule) for schedule in due)
    if fired:
        ring_softly(services)
    return fired


def _fire(services: Services, schedule: Schedule) -> bool:
    """Answer one schedule; trouble of a service leaves it due, for the next round."""
    requests: list[Request] = []
    trouble = None
    try:
        requests = _requests(services, schedule.command)
    except Unreachable as error:
        log.warning("schedule %s waits: %s", schedule.name, error)
        return False
    except GenmillError as error:
        trouble = str(error)
    try:
        answers = services.database.transact(
            lambda session: _answer(session, schedule, requests, trouble)
        )
    except _Taken:
        _move_on(services, schedule)
        return False
    for answer in answers:
        log.info("schedule %s: %s", schedule.name, answer.outcome, extra={"due": answer.due})
    return any(answer.outcome == "fired" for answer in answers)


def _move_on(services: Services, schedule: Schedule) -> None:
    """Leave a due time behind that was answered before, as after a restored backup."""

    def work(session: Session) -> None:
        following = next_due(schedule.cron, schedule.timezone, clock(session))
        schedules.set_next_due(session, schedule.id, following)

    services.database.transact(work)


class _Taken(Exception):
    """Somebody has answered this due time."""


def _answer(
    session: Session, seen: Schedule, requests: list[Request], trouble: str | None
) -> list[Answer]:
    """Answer every due time up to now; `seen` is the schedule as it was when it was found due."""
    schedule = schedules.lock(session, seen.id)
    if schedule is None or schedule.paused or schedule.next_due != seen.next_due:
        return []
    now = clock(session)
    stand = turn(schedule.cron, schedule.timezone, due=schedule.next_due, now=now)
    answers = _by_rules(session, schedule, stand.latest, now, trouble)
    for answer in answers:
        made = _insert(session, schedule, requests) if answer.outcome == "fired" else []
        job_id = made[0].id if made else None
        if not schedules.record_run(
            session,
            schedule.id,
            answer.due,
            outcome=answer.outcome,
            job_id=job_id,
            reason=answer.reason,
        ):
            raise _Taken
    schedules.set_next_due(session, schedule.id, stand.following)
    return answers


def _by_rules(
    session: Session, schedule: Schedule, latest: datetime, now: datetime, trouble: str | None
) -> list[Answer]:
    """What becomes of the due times from `schedule.next_due` to `latest`."""
    first, skips_missed = schedule.next_due, schedule.missed == "skip"
    since = f"nobody answered from {first.isoformat()} on"
    if skips_missed and now - latest > GRACE:
        return [Answer(latest, "missed", since)]
    answers = [Answer(first, "missed", since)] if skips_missed and latest != first else []
    if trouble is not None:
        return [*answers, Answer(latest, "failed", trouble)]
    if schedule.overlap == "skip" and (running := _unfinished(session, schedule)):
        return [*answers, Answer(latest, "skipped", f"job {running.id} is {running.status}")]
    return [*answers, Answer(latest, "fired", since if latest != first else None)]


def _unfinished(session: Session, schedule: Schedule) -> Job | None:
    """A job of the schedule that has not ended, if any."""
    for state in set(JobState) - FINAL:
        if found := jobs.listing(session, schedule=schedule.id, status=state, limit=1):
            return found[0]
    return None


def _requests(services: Services, words: Sequence[str]) -> list[Request]:
    """What the words enqueue now, names pinned to today's versions."""
    command = parse_repeated(words)
    if command.spec is None:
        return check_batch(services, command.lines, priority=command.priority)
    return [prepare(services, command.spec, priority=command.priority)]


def _insert(session: Session, schedule: Schedule, requests: list[Request]) -> list[Job]:
    """Insert the jobs under the schedule's name; those of a batch file under a new batch."""
    ours = [request.with_columns(schedule_id=schedule.id) for request in requests]
    if len(ours) == 1 and schedule.command[1] != "batch":
        return [insert(session, ours[0])]
    batch = insert_batch(session, ours)
    return jobs.batch_jobs(session, batch.id)

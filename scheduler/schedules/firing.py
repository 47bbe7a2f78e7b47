"""Firing: each due time is handled once, however many schedulers run and whenever they crash.

One transaction handles a due time: it locks the schedule, inserts the jobs, records the run (whose
primary key is the due time) and sets the next due time. A crash leaves all of it or nothing.
"""

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy.orm import Session

from db import datasets, jobs, schedules
from db.errors import GenmillError
from db.late_times import SLACK
from db.session import clock
from db.tables import Schedule
from scheduler.output.render import to_duration, to_iso
from scheduler.publishing.sources import NothingThere
from scheduler.schedules.command import Prepared, prepared_jobs
from scheduler.schedules.cron import due_around, next_due
from scheduler.submission.enqueue import ring_or_warn
from worker.failpoints import reach
from worker.services import Services
from worker.services.loops import Loop

log = logging.getLogger(__name__)

GRACE = timedelta(seconds=60)  # a due time that is handled later than this counts as missed


@dataclass(frozen=True)
class Decision:
    """What to do about a due time."""

    due: datetime
    outcome: str  # fired | skipped | missed | failed | triggered
    reason: str | None = None
    again_at: datetime | None = None  # look again then, if nothing is due before


class Instead(NamedTuple):
    """What becomes of a due time whose command enqueues nothing, and why."""

    outcome: str
    reason: str


def fire_due(services: Services) -> int:
    """Handle every schedule that is due; return how many of them enqueued jobs.

    One whose command is refused has a failed run at once. One that fails otherwise stays due, and
    has a failed run at the `max_failures`-th time; while a service is away, it waits. One whose
    row is damaged is left for a growing pause.
    """
    due, unreadable = dict[str, Schedule](), dict[str, GenmillError]()

    def fire(name: str) -> bool:
        if name in unreadable:
            raise unreadable[name]
        return _fire(services, due[name])

    def give_up(name: str, reason: str) -> None:
        _record(services, due[name], None, Instead("failed", reason))

    tries = services.settings.max_failures
    with Loop(services, "firing schedules", give_up=give_up, max_tries=tries) as loop:
        with services.database.read() as session:
            found, damaged = schedules.due(session)
        due |= {schedule.name: schedule for schedule in found}
        unreadable |= dict(damaged)
        fired = sum(loop.each([*due, *unreadable], fire))
    if fired:
        ring_or_warn(services)
    return fired


def _fire(services: Services, schedule: Schedule) -> bool:
    """Whether a due schedule enqueues jobs. What it raises leaves the schedule due."""
    try:
        with prepared_jobs(services, schedule) as prepared:
            reach(services.settings, "schedule_prepared")
            return _record(services, schedule, prepared)
    except NothingThere as none:
        return _record(services, schedule, None, Instead("skipped", none.message))


def _record(
    services: Services,
    schedule: Schedule,
    prepared: Prepared | None,
    instead: Instead | None = None,
) -> bool:
    """Record what becomes of the due times; whether one of them enqueues jobs."""
    try:
        decisions = services.database.transact(
            lambda session: _handle(session, schedule, prepared, instead)
        )
    except _AlreadyRecorded:  # as after a restored backup: go on to the next due time
        services.database.transact(lambda session: _skip(session, schedule))
        return False
    for each in decisions:
        log.info("schedule %s: %s", schedule.name, each.outcome, extra={"due": each.due})
    return any(each.outcome == "fired" for each in decisions)


def _skip(session: Session, schedule: Schedule) -> None:
    following = next_due(schedule.cron, schedule.timezone, clock(session))
    schedules.set_next_due(session, schedule.id, following)


class _AlreadyRecorded(Exception):
    """A run is recorded for this due time."""


def _handle(
    session: Session, seen: Schedule, prepared: Prepared | None, instead: Instead | None
) -> list[Decision]:
    """Handle every due time up to now; `seen` is the schedule's row when it was found due."""
    schedule = schedules.lock(session, seen.id)
    if schedule is None or schedule.paused or schedule.next_due != seen.next_due:
        return []
    now, first = clock(session), schedule.next_due
    latest, following = due_around(now, cron=schedule.cron, timezone=schedule.timezone, first=first)
    decisions = _decide(session, schedule, latest, now, prepared, instead)
    for decision in decisions:
        job = prepared.insert(session) if prepared and decision.outcome == "fired" else None
        following = min(following, decision.again_at or following)
        if not schedules.record_run(
            session,
            schedule.id,
            decision.due,
            outcome=decision.outcome,
            job_id=job.id if job else None,
            reason=decision.reason,
        ):
            raise _AlreadyRecorded
    schedules.set_next_due(session, schedule.id, following)
    return decisions


def _decide(
    session: Session,
    schedule: Schedule,
    latest: datetime,
    now: datetime,
    prepared: Prepared | None,
    instead: Instead | None,
) -> list[Decision]:
    """Apply the schedule's rules to the due times from `schedule.next_due` to `latest`."""
    first, skips_missed = schedule.next_due, schedule.missed == "skip"
    since = f"missed from {first.isoformat()} on"
    if skips_missed and instead is None and now - latest > GRACE:
        return [Decision(latest, "missed", since)]
    earlier = [Decision(first, "missed", since)] if skips_missed and latest != first else []
    if instead is not None:
        return [*earlier, Decision(latest, *instead)]
    if schedule.overlap == "skip":
        for job in jobs.unfinished(session, schedule_id=schedule.id, limit=1):
            return [*earlier, Decision(latest, "skipped", f"job {job.id} is {job.status}")]
    fire = Decision(latest, "fired", since if latest != first else None)
    dataset = prepared.dataset if prepared and schedule.only_if_new_data else None
    return [*earlier, _unless_known(session, schedule, dataset, fire, now) if dataset else fire]


def _unless_known(
    session: Session, schedule: Schedule, dataset: str, fire: Decision, now: datetime
) -> Decision:
    """Fire, unless the last run used the same data, or newer data may follow it any minute."""
    if schedules.last_used(session, schedule.id) == dataset:
        return replace(fire, outcome="skipped", reason=f"no new data since {dataset}")
    created_at = datasets.resolve(session, dataset)[1].created_at
    quiet_at = created_at + timedelta(seconds=schedule.new_data_wait_s or 0)
    if now >= quiet_at or created_at > now + SLACK:  # the latter: by a clock that was ahead
        return fire
    wait = to_duration(schedule.new_data_wait_s or 0)
    reason = f"{dataset} has not been the newest for {wait} yet: next look at {to_iso(quiet_at)}"
    return replace(fire, outcome="skipped", reason=reason, again_at=quiet_at)

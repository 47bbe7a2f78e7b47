"""Adding, resuming and triggering schedules."""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import TypedDict, Unpack

from sqlalchemy.orm import Session

from db import batches, chains, schedules
from db.audit_trail import note
from db.errors import BadRecord, Refused
from db.readable import one_of
from db.session import clock
from db.tables import Job, Schedule
from scheduler.schedules.command import check_command, prepared_jobs
from scheduler.schedules.cron import find_zone, next_due
from scheduler.schedules.parsing import make_paths_absolute, parse_command
from scheduler.submission.enqueue import refuse_wrong_broker, ring_or_warn
from scheduler.submission.receipts import OnStored, say_nothing, store_or_find, undivided
from worker.identity import who
from worker.services import Services
from worker.specs import check_name, fresh_seed, is_seed_given

MISSED = ("skip", "once")
OVERLAP = ("skip", "queue")
FRESH, FIXED = "fresh", "fixed"


class Rules(TypedDict, total=False):
    """When a due time is skipped, or made up for."""

    missed: str  # due times that passed while no scheduler ran: skip them, or run once for all
    overlap: str  # while a job of an earlier due time has not ended: skip the next, or queue it
    only_if_new_data: bool  # skip if the last run used the dataset's newest version
    new_data_wait: timedelta | None  # and until that has been the newest for so long


def add_schedule(
    services: Services,
    name: str,
    *,
    cron: str,
    command: Sequence[str],
    timezone: str = "UTC",
    seed: str = FRESH,
    **rules: Unpack[Rules],
) -> Schedule:
    """Add a schedule that repeats an enqueue command, given as `["enqueue", "train", ...]`.

    `seed`: the jobs of each run draw their own unless the command names one (`fresh`), or all have
    one that is drawn now (`fixed`), or a number. Raises `Refused` or `NotFound` if the command
    would fail now.
    """
    check_name("schedule", name)
    missed, overlap = rules.get("missed", "skip"), rules.get("overlap", "skip")
    for rule, given, known in (("missed", missed, MISSED), ("overlap", overlap, OVERLAP)):
        if given not in known:
            raise Refused.unknown(f"{rule} rule", given, known)
    wait = rules.get("new_data_wait")
    words = _seeded(make_paths_absolute(command), seed)
    for_new_data = rules.get("only_if_new_data", False) or wait is not None
    check_command(services, words, for_new_data=for_new_data)

    def work(session: Session) -> Schedule:
        return schedules.add(
            session,
            name=name,
            cron=cron,
            timezone=timezone,
            missed=missed,
            overlap=overlap,
            command=words,
            only_if_new_data=for_new_data,
            new_data_wait_s=wait.total_seconds() if wait else None,
            next_due=next_due(cron, timezone, clock(session)),
        )

    return services.database.transact(work)


def require_intact(schedule: Schedule) -> Schedule:
    """The schedule. Raises `BadRecord` if it has rules that `add_schedule` would have refused."""
    for held, known in ((schedule.missed, MISSED), (schedule.overlap, OVERLAP)):
        one_of(held, known, " or ".join(known))
    try:
        find_zone(schedule.timezone)
    except Refused:
        raise _damaged(schedule.timezone, "a time zone") from None
    try:
        next_due(schedule.cron, schedule.timezone, schedule.created_at)
    except Refused:
        raise _damaged(schedule.cron, "a cron expression") from None
    return schedule


def _damaged(held: str, noun: str) -> BadRecord:
    return BadRecord(
        f"the record holds {held[:40]!r} where {noun} belongs",
        remedy="it was damaged or edited: remove the schedule and add it again",
    )


def _seeded(words: list[str], seed: str) -> list[str]:
    """The command with the seed of a schedule's rule."""
    if seed == FRESH:
        return words
    if seed != FIXED and not re.fullmatch(r"[0-9]{1,19}", seed):
        raise Refused(f"seed {seed[:40]!r}", remedy=f"use {FRESH}, {FIXED} or a whole number")
    if words[1:2] == ["batch"]:
        raise Refused(
            "a batch takes no seed of its schedule", remedy='give the lines a "seed" of their own'
        )
    command = parse_command(words).spec
    if command is not None and is_seed_given(command):
        raise Refused("the command has a seed of its own", remedy="give one of the two")
    return [*words, "--seed", str(fresh_seed()) if seed == FIXED else seed]


def resume_schedule(services: Services, name: str, *, withdrawn: Sequence[str] = ()) -> Schedule:
    """Resume a paused schedule; due times during the pause are skipped.

    `withdrawn` is what it would train on although it was withdrawn: the audit trail says so.
    """

    def work(session: Session) -> Schedule:
        schedule = require_intact(schedules.get(session, name))
        _note_forced(session, "resume", name, withdrawn)
        following = next_due(schedule.cron, schedule.timezone, clock(session))
        return schedules.resume(session, name, next_due=following)

    return services.database.transact(work)


def _note_forced(session: Session, verb: str, name: str, withdrawn: Sequence[str]) -> None:
    if withdrawn:
        told = {"command": f"schedule {verb}", "reason": "withdrawn", "uses": [*withdrawn]}
        note(session, who(), "forced", name, told)


def trigger_schedule(
    services: Services,
    name: str,
    *,
    withdrawn: Sequence[str] = (),
    on_stored: OnStored = say_nothing,
) -> list[Job]:
    """Enqueue a schedule's jobs now, outside its due times and even while it is paused.

    `withdrawn` is as for `resume_schedule`. `on_stored` gets the id of the batch, or else of the
    first job, before the ringing.
    """
    refuse_wrong_broker(services)
    with services.database.read() as session:
        schedule = schedules.get(session, name)
    with prepared_jobs(services, schedule) as prepared:

        def work(session: Session) -> Job:
            schedules.get(session, name)  # it may have been removed
            _note_forced(session, "trigger", name, withdrawn)
            job = prepared.insert(session)
            schedules.record_run(
                session, schedule.id, clock(session), outcome="triggered", job_id=job.id
            )
            return job

        with undivided():
            first = store_or_find(
                services, work, prepared.find, noun="job", reference=prepared.reference
            )
            on_stored(prepared.reference)
    ring_or_warn(services)
    with services.database.read() as session:
        if first.batch_id is None:
            return [first, *chains.followers(session, first.id)]
        return batches.jobs_of(session, first.batch_id, with_spec=True)

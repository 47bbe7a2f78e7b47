"""Setbacks: items of the scheduler's loops that fail, how often in a row, why, and when next.

An item is named by its loop and its own id. Its row is deleted once the item works; what nobody has
tried for a while, because it is gone, is forgotten.
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db.journal import log
from db.session import Now, clock, upsert
from db.tables import Job, Setback, Shard

FORGOTTEN = timedelta(hours=3)


class Failure(NamedTuple):
    """Why an item failed, and how long it is left alone: as long as it has been failing already.

    That doubles the pause each time, from `first_s` to `longest_s`. Only what is `counted` makes up
    the number of times.
    """

    error: str
    counted: bool
    first_s: float
    longest_s: float


def known(session: Session, loop: str) -> dict[str, Setback]:
    """The setbacks of a loop's items, by the items' ids."""
    return {row.item: row for row in session.scalars(select(Setback).where(Setback.loop == loop))}


def paused(session: Session, loop: str) -> frozenset[str]:
    """The items of a loop that are not to be tried yet."""
    waiting = Setback.again_at > Now()
    return frozenset(session.scalars(select(Setback.item).where(Setback.loop == loop, waiting)))


def note(session: Session, loop: str, failures: Mapping[str, Failure]) -> None:
    """Record that items have failed once more.

    The logs of jobs, and of those of shards, tell why, unless that is what the last line told.
    """
    now, before = clock(session), known(session, loop)
    session.execute(delete(Setback).where(Setback.tried_at < now - FORGOTTEN))
    upsert(
        session,
        Setback,
        [
            {"loop": loop, "item": item} | _after(before.get(item), failure, now)
            for item, failure in sorted(failures.items())
        ],
    )
    news = [item for item, failure in failures.items() if _is_new(before.get(item), failure)]
    for item, job_id in _jobs_of(session, news):
        log(session, job_id, f"{loop} failed: {failures[item].error}; it is tried again", "warning")


def _after(last: Setback | None, failure: Failure, now: datetime) -> dict[str, Any]:
    since = last.since if last else now
    first, longest = (timedelta(seconds=each) for each in (failure.first_s, failure.longest_s))
    return {
        "times": (last.times if last else 0) + failure.counted,
        "error": failure.error,
        "since": since,
        "tried_at": now,
        "again_at": now + min(longest, max(first, now - since)),
    }


def _is_new(last: Setback | None, failure: Failure) -> bool:
    return last is None or last.error != failure.error


def clear(session: Session, loop: str, items: Collection[str]) -> None:
    """Forget the setbacks of items that work now."""
    session.execute(delete(Setback).where(Setback.loop == loop, Setback.item.in_(items)))


def lasting(session: Session, longer_than_s: float) -> list[Setback]:
    """What has been failing for longer than that, and is still tried; the longest first."""
    now = clock(session)
    since, tried = now - timedelta(seconds=longer_than_s), now - FORGOTTEN
    statement = select(Setback).where(Setback.since < since, Setback.tried_at >= tried)
    return list(session.scalars(statement.order_by(Setback.since, Setback.item)))


def _jobs_of(session: Session, items: Collection[str]) -> Iterator[tuple[str, str]]:
    """Those items that are jobs, and shards, with the jobs."""
    for statement in (
        select(Job.id, Job.id).where(Job.id.in_(items)),
        select(Shard.id, Shard.job_id).where(Shard.id.in_(items)),
    ):
        yield from session.execute(statement)

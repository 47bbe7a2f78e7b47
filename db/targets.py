"""Targets: where items are published to, and when the rate of one allows the next item."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from db import ledger
from db.columns import new_id
from db.errors import NotFound, Refused
from db.late_times import SLACK
from db.leaves import TARGET
from db.session import clock, insert_new
from db.tables import Target
from db.workers import count_live

MOST_AT_ONCE = 128  # items that a worker reserves before it has put them


def add(
    session: Session,
    *,
    name: str,
    kind: str,
    settings: Mapping[str, Any],
    secrets: Mapping[str, str],
    who: str,
    expires_after_s: float | None = None,
) -> Target:
    """Add a target, or bring a removed one back with these settings. Raises `Refused`.

    `secrets` say where each secret is: never the secret itself.
    """
    row = {
        "kind": kind,
        "settings": dict(settings),
        "secrets": dict(secrets),
        "expires_after_s": expires_after_s,
        "who": who,
        "created_at": clock(session),
    }
    if not insert_new(session, Target, [{"id": new_id(), "name": name} | row]):
        removed = (Target.name == name, Target.removed_at.is_not(None))
        again = update(Target).where(*removed).values(**row, removed_at=None, next_at=None)
        if session.scalar(again.returning(Target.id)) is None:
            raise Refused(
                f"there is a target {name!r} already",
                remedy=f"choose another name, or run `genmill target remove {name}` first",
            )
    added = get(session, name)
    ledger.enter(session, TARGET, added)
    return added


def get(session: Session, name: str) -> Target:
    """The target of this name. Raises `NotFound` with the nearest spelling."""
    found = session.scalar(_PRESENT.where(Target.name == name))
    if found is None:
        known = session.scalars(select_all().with_only_columns(Target.name))
        raise NotFound.unknown("target", name, known)
    return found


def select_all() -> Select[Target]:
    """The statement of every target, in alphabetical order."""
    return _PRESENT.order_by(Target.name)


def listing(session: Session) -> list[Target]:
    """Every target, in alphabetical order."""
    return list(session.scalars(select_all()))


def by_id(session: Session, target_id: str) -> Target:
    """The target with this id, removed or not."""
    return session.get_one(Target, target_id)


def remove(session: Session, target: Target) -> None:
    """Remove a target; what was published there stays on record."""
    target.removed_at = clock(session)
    session.flush()
    ledger.enter(session, TARGET, target)


def reserve(session: Session, target_id: str, items: int, *, rate: float) -> float:
    """Reserve the time of so many items at `rate` items a second; how many seconds to wait first.

    All workers reserve in turn, so that together they keep to the rate. A time that is further
    ahead than theirs can be was reserved by a clock that was ahead.
    """
    statement = select(Target.next_at).where(Target.id == target_id).with_for_update()
    next_at: datetime | None = session.scalar(statement)
    now = clock(session)
    reserved = timedelta(seconds=(1 + count_live(session)) * MOST_AT_ONCE / rate)
    begins = now if next_at is None or next_at > now + reserved + SLACK else max(now, next_at)
    ends = begins + timedelta(seconds=items / rate)
    session.execute(update(Target).where(Target.id == target_id).values(next_at=ends))
    return (begins - now).total_seconds()


_PRESENT = select(Target).where(Target.removed_at.is_(None))

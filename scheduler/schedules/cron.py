"""Cron rules: when an expression is due in a time zone. Pure: no clock, no database.

Five fields (minute, hour, day, month, weekday), or six with seconds first, read as Debian's cron
does in the schedule's own time zone: a time that a clock change skips is due right after the
change, and a time that comes twice is due once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from db.errors import Refused

WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
LOOK_BACK = timedelta(hours=1)


@dataclass(frozen=True)
class DueTimes:
    """The due times of a schedule around a moment."""

    latest: datetime  # the last one that is not in the future
    earlier: bool  # whether others before it are unanswered too
    following: datetime


def next_due(cron: str, timezone: str, after: datetime) -> datetime:
    """The first due time after `after`, in UTC. `Refused` for a bad expression or zone."""
    return next(due_times(cron, timezone, after))


def due_times(cron: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """Every due time after `after`, in UTC. `Refused` for a bad expression or zone."""
    local = after.astimezone(find_zone(timezone))
    try:
        for due in CronSim(WORDS.get(cron.strip().lower(), cron), local):
            # in the second pass of a repeated hour, times of the first pass are over
            if due.astimezone(UTC) > after:
                yield due.astimezone(UTC)
    except CronSimError as error:
        raise Refused(
            f"cron expression {cron!r}: {str(error).lower()}",
            remedy="write five fields, minute hour day month weekday, such as '0 3 * * *' for "
            "three o'clock every night",
        ) from None
    raise Refused(f"cron expression {cron!r} is never due")


@cache
def find_zone(name: str) -> ZoneInfo:
    """The time zone called `name`, as in `Europe/Berlin`; `Refused` with the nearest spelling."""
    known = available_timezones()
    if name not in known:
        raise Refused.unknown("time zone", name, known)
    return ZoneInfo(name)


def due_by(now: datetime, *, cron: str, timezone: str, first: datetime) -> DueTimes:
    """The due times around `now`; `first`, not after `now`, is the first unanswered one."""
    # a dense expression after a long stop has thousands of due times: the last hour will do
    recent = max(first, now - LOOK_BACK)
    start = recent if next_due(cron, timezone, recent) <= now else first
    latest = first
    for following in due_times(cron, timezone, start):
        if following > now:
            break
        latest = following
    return DueTimes(latest, latest != first, following)

"""When a cron expression comes due. Pure: no clock, no database.

Five fields (minute, hour, day, month, weekday), or six with seconds first, as Debian's cron reads
them in the schedule's own time zone: a time that a clock change skips runs once right after it, and
a time that comes twice runs once.
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
class Turn:
    """Where a schedule stands at a moment."""

    latest: datetime  # the last due time that is not in the future
    earlier: bool  # whether due times before it were not answered either
    following: datetime


def next_due(cron: str, timezone: str, after: datetime) -> datetime:
    """The first due time after `after`, in UTC. Raises `Refused` for what is no cron or zone."""
    return next(due_times(cron, timezone, after))


def due_times(cron: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """Every due time after `after`, in UTC. Raises `Refused` for what is no cron or zone."""
    local = after.astimezone(find_zone(timezone))
    try:
        for due in CronSim(WORDS.get(cron.strip().lower(), cron), local):
            # in the second pass of a repeated hour, times of the first pass are over
            if due.astimezone(UTC) > after:
                yield due.astimezone(UTC)
    except CronSimError as error:
        raise Refused(
            f"cron expression {cron!r}: {str(error).lower()}; five fields are needed, minute hour "
            "day month weekday, as in '0 3 * * *' for three o'clock every night"
        ) from None
    raise Refused(f"cron expression {cron!r} never comes due")


@cache
def find_zone(name: str) -> ZoneInfo:
    """The time zone called `name`, as in `Europe/Berlin`; `Refused` with the nearest spelling."""
    known = available_timezones()
    if name not in known:
        raise Refused.unknown("time zone", name, known)
    return ZoneInfo(name)


def turn(cron: str, timezone: str, *, due: datetime, now: datetime) -> Turn:
    """Where a schedule stands at `now`; `due` is its first unanswered due time, not after `now`."""
    # a dense expression after a long stop has thousands of due times: the last hour will do
    recent = max(due, now - LOOK_BACK)
    start = recent if next_due(cron, timezone, recent) <= now else due
    latest = due
    for following in due_times(cron, timezone, start):
        if following > now:
            break
        latest = following
    return Turn(latest, latest != due, following)

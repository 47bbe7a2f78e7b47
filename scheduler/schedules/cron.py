"""Cron rules: when an expression is due in a time zone. Pure: no clock, no database.

Five fields (minute, hour, day, month, weekday), or six with seconds first, read as Debian's cron
reads them, in the schedule's own time zone: a time that a clock change skips is due right after the
change, and a time that occurs twice is due once.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from db.errors import Refused

NICKNAMES = {  # as crontab(5) calls them
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
LOOK_BACK = timedelta(hours=1)


def next_due(cron: str, timezone: str, after: datetime) -> datetime:
    """The first due time after `after`, in UTC. `Refused` for a bad expression or zone."""
    return next(due_times(cron, timezone, after))


def due_times(cron: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """Every due time after `after`, in UTC. `Refused` for a bad expression or zone."""
    local = after.astimezone(find_zone(timezone))
    try:
        for due in CronSim(NICKNAMES.get(cron.strip().lower(), cron), local):
            # when an hour repeats, CronSim yields times of its first pass during the second
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


def due_around(
    now: datetime, *, cron: str, timezone: str, first: datetime
) -> tuple[datetime, datetime]:
    """The latest due time up to `now`, and the next after it; `first` is one, not after `now`."""
    # after a long stop, a dense expression has thousands of due times: look at the last hour first
    recent = max(first, now - LOOK_BACK)
    start = recent if next_due(cron, timezone, recent) <= now else first
    latest = first
    for following in due_times(cron, timezone, start):
        if following > now:
            break
        latest = following
    return latest, following

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
FIELDS = {  # as CronSim calls them, and what each takes
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, days that the months have, or L for the last",
    "month": "1 to 12 or JAN to DEC",
    "day-of-week": "0 to 7 (both are Sunday) or SUN to SAT",
}
MAX_CHARACTERS = 200
LOOK_BACK = timedelta(hours=1)


def next_due(cron: str, timezone: str, after: datetime) -> datetime:
    """The first due time after `after`, in UTC. `Refused` for a bad expression or zone."""
    return next(due_times(cron, timezone, after))


def due_times(cron: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """Every due time after `after`, in UTC. `Refused` for a bad expression or zone."""
    local = after.astimezone(find_zone(timezone))
    if len(cron) > MAX_CHARACTERS:
        raise Refused(f"a cron expression of {len(cron)} characters", remedy="use at most 200")
    try:
        for due in CronSim(NICKNAMES.get(cron.strip().lower(), cron), local):
            # when an hour repeats, CronSim yields times of its first pass during the second
            if due.astimezone(UTC) > after:
                yield due.astimezone(UTC)
    except CronSimError as error:
        raise _refusal(cron, str(error)) from None
    raise Refused(f"cron expression {cron!r} is never due")


def _refusal(cron: str, complaint: str) -> Refused:
    """Why an expression is refused: the field, its value and what the field takes."""
    fields = cron.split()
    if cron.strip().startswith("@"):
        return Refused.unknown("cron nickname", cron.strip()[:40], NICKNAMES)
    name = complaint.removeprefix("Bad ")
    if name not in FIELDS or len(fields) not in {5, 6}:
        return Refused(
            f"cron expression {cron[:80]!r}: {len(fields)} fields",
            remedy="write five, minute hour day month weekday, such as '0 3 * * *' for three "
            "o'clock every night, or six with seconds first",
        )
    value = fields[list(FIELDS).index(name) - (len(fields) == 5)]
    return Refused(
        f"cron expression {cron[:80]!r}: the {name} is {value[:40]!r}",
        remedy=f"use {FIELDS[name]}, lists (1,2), ranges (1-5), steps (*/2), or * for all",
    )


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

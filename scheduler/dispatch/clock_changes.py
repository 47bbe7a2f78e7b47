"""What a clock that was set right leaves behind: times on record that lie far ahead of it."""

import logging
from datetime import datetime
from functools import partial

from sqlalchemy.orm import Session

from db import late_times, schedules
from db.errors import Refused
from db.session import clock
from db.tables import Schedule
from scheduler.schedules.cron import next_due
from worker.services import Services

log = logging.getLogger(__name__)


def bring_times_back(services: Services) -> int:
    """Bring leases, pauses and due times back that lie too far ahead; return how many."""
    lease_s = services.settings.lease_s
    with services.database.read() as session:
        late = late_times.are_late(session, lease_s=lease_s)
        now = clock(session)
        firing = [each for each in schedules.listing(session) if not each.paused]
    changed = 0
    if late:
        changed = services.database.transact(partial(late_times.bring_back, lease_s=lease_s))
    changed += sum(_bring_back(services, schedule, now) for schedule in firing)
    if changed:
        log.warning("the clock was set back: %d times too far ahead were replaced", changed)
    return changed


def _bring_back(services: Services, schedule: Schedule, now: datetime) -> bool:
    try:
        due = next_due(schedule.cron, schedule.timezone, now)
    except Refused:  # firing it will tell
        return False
    if schedule.next_due < due + late_times.SLACK:
        return False

    def move(session: Session) -> bool:
        found = schedules.lock(session, schedule.id)
        if found is None or found.next_due != schedule.next_due:
            return False
        schedules.set_next_due(session, schedule.id, due)
        return True

    return services.database.transact(move)

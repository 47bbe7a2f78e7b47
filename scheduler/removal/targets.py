"""Removing targets."""

from sqlalchemy.orm import Session

from db import audit_trail, publications, published, targets
from db.errors import Refused
from db.publications import THERE
from scheduler.output.render import first_lines, to_count
from scheduler.removal.schedules import publishing_at
from worker.identity import who
from worker.services import Services


def remove_target(services: Services, name: str, *, abandon: bool) -> int:
    """Remove a target; return how many items stay there, untracked from now on.

    Raises `Refused` while a job that has not ended publishes there or a schedule's jobs would, and,
    without `abandon`, while items are there.
    """

    def work(session: Session) -> int:
        target = targets.get(session, name)
        for each in published.going(session, target=name):
            raise Refused(f"job {each.by_job_id} is {each.status}, and publishes at {name!r}")
        if using := publishing_at(session, name):
            raise Refused(
                f"{to_count(len(using), 'schedule')} would fail without the target {name!r}: "
                f"{', '.join(first_lines(using))}",
                remedy="remove these schedules first",
            )
        states = published.by_state(session, target.id)
        there = [f"{states[each]:,} items are {each}" for each in THERE if each in states]
        if there and not abandon:
            raise Refused(
                f"{' and '.join(reversed(there))} at {name!r}",
                remedy=f"take them down with `genmill publish JOB --target {name} --take-down`, "
                "or give --abandon to leave them there and follow them no more",
            )
        left = publications.abandon(session, target.id)
        targets.remove(session, target)
        audit_trail.note(session, who(), "removed a target", name, {"abandoned": left})
        return left

    return services.database.transact(work)

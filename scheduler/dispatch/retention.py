"""Retention: deleting what finished jobs left behind once it is old enough, a little each round."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from db import job_lists, retention
from db.causes import is_outage
from db.errors import Refused
from db.holders import Held
from scheduler.output.render import to_size
from scheduler.removal import jobs as removal
from worker.isolation import Isolated, described
from worker.services import Services
from worker.services.loops import Loop

log = logging.getLogger(__name__)

JOBS = "jobs"  # whole ones, which only a command removes
KINDS = (*retention.WHAT, JOBS)
SHOWN = 5  # jobs that are held
ROUND_S = 1.0  # at most this long in one round; a step may take a little longer


def keep_times(services: Services) -> dict[str, timedelta]:
    """How long each kind of data is kept; what is kept for ever is left out."""
    return {
        what: timedelta(days=days)
        for what in retention.WHAT
        if (days := getattr(services.settings, f"keep_{what}_days", 0))  # some are kept by default
    }


def chosen(
    services: Services, kinds: Sequence[str], older_than: timedelta | None
) -> dict[str, timedelta]:
    """How long each of some kinds of data is to be kept; without any, those that settings name.

    Raises `Refused` for a kind that is kept for ever unless an age is given.
    """
    kept = keep_times(services)
    for what in kinds:
        if older_than is None and what not in kept:
            raise Refused(
                f"no setting says how long {what} are kept", remedy="give --older-than, as in 30d"
            )
    return {what: older_than or kept[what] for what in kinds or kept}


def apply_retention(services: Services, *, within_s: float = ROUND_S) -> int:
    """Delete some of what is older than the settings say; return how many rows."""
    kept = keep_times(services)
    with Loop(services, "deleting old data", within_s=within_s) as loop:
        total = sum(
            sum(rows.values())
            for rows in loop.each(
                kept, lambda what: _take_steps(services, what, kept[what], lambda: loop.is_over)
            )
        )
    if total:
        log.info("old data deleted", extra={"rows": total})
    return total


def prune(services: Services, keep: Mapping[str, timedelta]) -> dict[str, dict[str, int]]:
    """Delete all that is older than `keep`; return the number of rows by kind and table."""
    return {what: dict(_take_steps(services, what, each)) for what, each in keep.items()}


def prunable(services: Services, keep: Mapping[str, timedelta]) -> dict[str, dict[str, int]]:
    """What `prune` would delete now."""
    with services.database.read() as session:
        return {what: retention.count(session, what, keep=each) for what, each in keep.items()}


@dataclass(frozen=True)
class PrunedJobs:
    """The jobs that went, what that frees, and those that something names."""

    jobs: int
    size_bytes: int
    held: Held
    older_than: timedelta
    dry_run: bool

    @property
    def row(self) -> dict[str, Any]:
        """The row of the table of what was deleted."""
        days = self.older_than.total_seconds() / 86_400
        return {"data": JOBS, "older_than_days": days, "table": JOBS, "rows": self.jobs}

    @property
    def told(self) -> Iterator[str]:
        """Lines about it for people."""
        yield f"{to_size(self.size_bytes)} {'would be freed' if self.dry_run else 'freed'}"
        for job_id, why in list(self.held.items())[:SHOWN]:
            yield f"job {job_id} stays: {', '.join(why)}"
        if len(self.held) > SHOWN:
            yield f"{len(self.held) - SHOWN} more jobs stay, because something names them"


def prune_jobs(services: Services, keep: timedelta, *, dry_run: bool) -> PrunedJobs:
    """Remove the ended jobs that are older than `keep` and that nothing names."""
    plan, held = removal.prune_jobs(services, keep, dry_run=dry_run)
    return PrunedJobs(len(plan.items), plan.size_bytes, held, keep, dry_run)


def fold_counts(services: Services) -> int:
    """Add up what transactions have counted since the last round."""
    return services.database.transact(job_lists.fold_counts)


def _take_steps(
    services: Services, what: str, keep: timedelta, is_over: Callable[[], bool] = lambda: False
) -> Counter[str]:
    """Delete until nothing is left; a job whose data cannot be deleted is passed over."""
    total: Counter[str] = Counter()
    at_once = retention.JOBS_AT_ONCE
    with services.database.read() as session:
        more = retention.is_due(session, what, keep=keep)
    while more and not is_over():
        with Isolated() as attempt:
            step = services.database.transact(
                partial(retention.take_step, what=what, keep=keep, jobs_at_once=at_once)
            )
            total.update(step.rows)
            more = step.more
        if attempt.error is None:
            at_once = min(2 * at_once, retention.JOBS_AT_ONCE)
        elif at_once > 1 and not is_outage(attempt.error):
            at_once //= 2  # to find the one
        else:
            _pass_over(services, what, keep, attempt.error)
    return total


def _pass_over(services: Services, what: str, keep: timedelta, error: BaseException) -> None:
    """Leave the next job's data alone. Raises the error if it says nothing of that job."""
    if is_outage(error):
        raise error
    log.warning("what a job left cannot be deleted", exc_info=error)
    reason = described(error)
    services.database.transact(partial(retention.pass_over, what=what, keep=keep, reason=reason))

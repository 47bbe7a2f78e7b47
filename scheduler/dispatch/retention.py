"""Retention: deleting what finished jobs left behind once it is old enough, a little each round."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial

from db import job_lists, retention
from db.errors import is_outage
from worker.isolation import Isolated, described
from worker.services import Services
from worker.services.loops import Loop

log = logging.getLogger(__name__)

ROUND_S = 1.0  # at most this long in one round; a step may take a little longer


def keep_times(services: Services) -> dict[str, timedelta]:
    """How long each kind of data is kept; what is kept for ever is left out."""
    return {
        what: timedelta(days=days)
        for what in retention.WHAT
        if (days := getattr(services.settings, f"keep_{what}_days"))
    }


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

"""Retention: deleting what finished jobs left behind once it is old enough, a little each round."""

import logging
import time
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from functools import partial

from db import job_lists, retention
from worker.services import Services

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
    deadline = time.monotonic() + within_s
    total = 0
    for what, keep in keep_times(services).items():
        with services.database.read() as session:
            due = retention.is_due(session, what, keep=keep)
        while due and time.monotonic() < deadline:
            step = services.database.transact(partial(retention.take_step, what=what, keep=keep))
            total += sum(step.rows.values())
            due = step.more
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


def _take_steps(services: Services, what: str, keep: timedelta) -> Counter[str]:
    total: Counter[str] = Counter()
    more = True
    while more:
        step = services.database.transact(partial(retention.take_step, what=what, keep=keep))
        for table, rows in step.rows.items():
            total[table] += rows
        more = step.more
    return total

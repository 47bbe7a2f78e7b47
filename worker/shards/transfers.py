"""Transfers to and from a target: tried again, several at once, and as often as its rate allows."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from typing import TypeVar

from db import targets
from db.errors import NotFound, Stopped, Unreachable
from db.tables import Target as Row
from worker.publishing.base import AnyTarget, TargetAway
from worker.services import Services
from worker.shards.lease import Lease

PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0  # between two tries of a transfer
POLL_S = 0.2

T = TypeVar("T")


def tried(target: AnyTarget, lease: Lease, act: Callable[[], T]) -> T:
    """Run a transfer, again after a pause while the target is away, as often as it is set to.

    Raises the last `Unreachable`, and what the lease's order to stop is.
    """
    for number in range(1, target.settings.tries):
        try:
            return act()
        except Unreachable as error:
            asked = error.retry_after_s if isinstance(error, TargetAway) else None
            if asked is not None and asked > LONGEST_PAUSE_S:
                raise
            pause_s = min(asked or PAUSE_S * 2 ** (number - 1), LONGEST_PAUSE_S)
        _pause(lease, pause_s)
    return act()


def in_threads(
    pool: ThreadPoolExecutor, lease: Lease, act: Callable[[T], object], items: Sequence[T]
) -> None:
    """Act on each item, several at once; raises the first error once all have ended.

    An order to stop is heard meanwhile, so that what is under way may end by itself.
    """
    pending = running = {pool.submit(act, item) for item in items}
    while pending:
        pending = wait(pending, timeout=POLL_S).not_done
        with suppress(Stopped):
            lease.raise_if_stopped()
    for each in running:
        each.result()


def wait_for_turn(
    services: Services, lease: Lease, row: Row, target: AnyTarget, items: int
) -> None:
    """Wait as long as the target's rate asks before so many items; all workers share it."""
    rate = target.settings.rate
    if rate is not None:
        reserve = partial(targets.reserve, target_id=row.id, items=items, rate=rate)
        _pause(lease, services.database.transact(reserve))


def _pause(lease: Lease, pause_s: float) -> None:
    until = time.monotonic() + pause_s
    while (left := until - time.monotonic()) > 0:
        lease.raise_if_stopped()
        time.sleep(min(POLL_S, left))


def never_missing(act: Callable[[], T], target: AnyTarget) -> Callable[[], T]:
    """What was not found is a fault of the target, where an item was or is being put."""

    def run() -> T:
        try:
            return act()
        except NotFound as error:
            raise TargetAway(f"{target}: {error.message}") from error

    return run

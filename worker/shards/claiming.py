"""What a worker claims next: what is due, until nothing is; then the shard of its doorbell.

Small shards that can run together are claimed together, as many as take a few seconds at the rate
that this worker has measured, but no more than its share of the last ones. Texts, which end at
different times, are joined by further shards as they end. Among shards of one priority it prefers
those of a model that it has in memory, but takes the fairest shard, whatever its model, at least
every `FAIR_EVERY_S`. Batches and jobs of which equally many shards run are served in turn.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from sqlalchemy.orm import Session

from db import rates, shards
from db.errors import Draining, Unreachable
from db.shards import Claim
from worker.shards.context import WorkerContext, remember
from worker.shared_memory import SharedState

log = logging.getLogger(__name__)

T = TypeVar("T")
Step = Callable[[Session], list[Claim]]

FAIR_EVERY_S = 10.0  # by how much a shard of a model that is not in memory may wait longer
TOGETHER_S = 3.0  # how long the shards of one claim should take together
MAX_TOGETHER = 512  # samples of one claim
LEAST_TOGETHER = 64  # however few are left
LEAST_S = 0.1  # the same, as how long they take
SHARED_BY = 8  # workers; of more, each claim would look at too many shards
UNKNOWN_TOGETHER = 16  # the same for a key whose rate is not known
GROUPS_REMEMBERED = 1000
PAUSE_S = 1.0
MAX_WAY_S = 30.0  # that a worker without the installation key lets others claim
TELLING_S = 1.0  # work that took less says little of the rate
RECORD_EVERY_S = 60.0  # for each key


class Claimer:
    """Claims shards for the worker boot `owner`; waits while the database is away."""

    def __init__(self, context: WorkerContext, owner: str, shared: SharedState) -> None:
        self._context = context
        self._owner = owner
        self._shared = shared
        self._recorded_at = context.recorded_at

    def claims(self, shard_id: str) -> Iterator[list[Claim]]:
        """Claim what is due until nothing is, and the shard of a doorbell. Raises `Draining`."""
        while found := self.next() or self.answer(shard_id):
            yield found

    def answer(self, shard_id: str) -> list[Claim]:
        """Claim the shard of a doorbell, whose lease may have expired. Raises `Draining`."""
        settings = self._context.services.settings
        step = partial(
            shards.claim,
            shard_id=shard_id,
            owner=self._owner,
            lease_s=settings.lease_s,
            max_claims=settings.max_claims,
        )
        found = self._until_answered(step)
        return [found] if found else []

    def next(self) -> list[Claim]:
        """Claim what is due; nothing if nothing is. Raises `Draining`."""
        return self._claim_due(self._context.keys_in_memory(), self._until_answered)

    def more(self, key: int) -> list[Claim]:
        """Claim what can join running shards of `key`, unless other work has its turn."""
        try:
            return self._claim_due([key], self._context.services.database.transact, only=key)
        except Unreachable:  # what runs goes on
            return []

    def _claim_due(
        self,
        keys: Collection[int],
        run: Callable[[Step], list[Claim]],
        *,
        only: int | None = None,
    ) -> list[Claim]:
        context, now = self._context, time.monotonic()
        # after a while the fairest shard, whatever its model
        fair = now - context.fair_at >= FAIR_EVERY_S
        claims = run(partial(self._claim, prefer=() if fair else keys, only=only))
        if fair and claims:
            context.fair_at = now
        note_turn(context.served, [claim.group_id for claim in claims])
        return claims

    def _claim(self, session: Session, *, prefer: Collection[int], only: int | None) -> list[Claim]:
        context = self._context
        share = fair_share(session, context.live_workers)
        rates = context.rates.items()
        return shards.claim_due(
            session,
            owner=self._owner,
            lease_s=context.services.settings.lease_s,
            prefer=prefer,
            limit=UNKNOWN_TOGETHER,
            served=context.served,
            limits={key: samples_together(rate, share) for key, rate in rates},
            only=only,
        )

    def give_way(self) -> None:
        """Let workers come first that have the installation key, each time for longer.

        One without it gives back in no time what it claims: it would claim nearly everything.
        """
        self._context.gave_way += 1
        until = time.monotonic() + min(MAX_WAY_S, 2.0**self._context.gave_way)
        while time.monotonic() < until and not self._shared.draining:
            time.sleep(PAUSE_S / 4)

    def learn(self, claims: Sequence[Claim], elapsed_s: float) -> None:
        """Note how long the claims took together, all of which succeeded, without the loading.

        Less than a forward pass of samples takes as long as a whole one, and tells nothing.
        """
        key = claims[0].work_key
        if key is None:
            return
        samples = sum(claim.stop - claim.start for claim in claims)
        rate, known = samples / max(elapsed_s, 1e-3), self._context.rates.get(key, 0.0)
        if samples < self._context.rows_of(key):
            return
        if rate < known and elapsed_s < TELLING_S and samples < samples_together(known):
            return  # it spent its time on claiming and committing
        remember(self._context.rates, key, rate)
        now = time.monotonic()
        last = self._recorded_at.get(key)
        if elapsed_s >= TELLING_S and (last is None or now - last >= RECORD_EVERY_S):
            remember(self._recorded_at, key, now)
            self._record_rate(key, rate)

    def _record_rate(self, key: int, rate: float) -> None:
        """Record a rate for those who cut jobs into shards. Best effort."""
        try:
            self._context.services.database.transact(
                partial(rates.learn, work_key=key, samples_per_second=rate)
            )
        except Unreachable as error:
            log.warning("the rate is not recorded: %s", error)

    def _until_answered(self, step: Callable[[Session], T]) -> T:
        while not self._shared.draining:
            try:
                return self._context.services.database.transact(step)
            except Unreachable as error:
                log.warning("the claim waits for the database: %s", error)
                time.sleep(PAUSE_S)
        raise Draining


def note_turn(served: dict[str, int], groups: Iterable[str]) -> None:
    """Note that these groups had a turn after all others; forgets the oldest of many."""
    turn = max(served.values(), default=0) + 1
    served |= dict.fromkeys(groups, turn)
    while len(served) > GROUPS_REMEMBERED:
        del served[min(served, key=lambda group: served[group])]


def fair_share(session: Session, live_workers: int) -> int:
    """How many samples to claim at most, so that all workers have work until the end."""
    at_most = MAX_TOGETHER * min(live_workers, SHARED_BY)
    left = shards.unclaimed_samples(session, at_most=at_most)
    if left is None:  # of the end, nothing is to be seen yet
        return MAX_TOGETHER
    return max(LEAST_TOGETHER, -(-left // live_workers))


def samples_together(rate: float, share: int = MAX_TOGETHER) -> int:
    """How many samples to claim together at `rate` samples a second.

    No more than its fair `share` of those that are left, or what takes no time.
    """
    some = min(rate * TOGETHER_S, max(share, rate * LEAST_S), MAX_TOGETHER)
    return round(max(some, 1))

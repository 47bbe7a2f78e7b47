"""What a worker claims: together, in memory first, and fair to those who wait."""

import heapq
import random
from collections import Counter
from types import SimpleNamespace

import pytest

from db.due import in_turn
from db.heads import Due
from db.leases import pick
from worker.shards.claiming import (
    FAIR_EVERY_S,
    MAX_TOGETHER,
    TOGETHER_S,
    note_turn,
    samples_together,
)
from worker.shards.context import KEYS_REMEMBERED, remember

LOADING_S = 2.0


def due(number, *, key=1, samples=1, urgency=0, group="g", lost=0):
    return Due(urgency, group, "j", number, f"s{number}", key, samples, lost)


def picked(shards, prefer=(), *, limit=4, limits=None):
    wanted, count = pick(shards, prefer, limits or {}, limit)
    return [each.idx for each in wanted][:count]


def test_small_shards_of_one_key_and_priority_are_claimed_together() -> None:
    shards = [due(0), due(1, key=2), due(2), due(3, urgency=1), due(4)]
    assert picked(shards) == [0, 2, 4]


def test_together_they_have_no_more_samples_than_the_limit() -> None:
    assert picked([due(n, samples=3) for n in range(5)], limit=8) == [0, 1]
    assert picked([due(n, samples=3) for n in range(5)], limit=8, limits={1: 12}) == [0, 1, 2, 3]


def test_a_shard_above_the_limit_is_claimed_alone() -> None:
    assert picked([due(0, samples=100), due(1)]) == [0]


def test_trainings_are_claimed_one_at_a_time() -> None:
    assert picked([due(0, key=None), due(1, key=None), due(2)]) == [0]


def test_a_model_in_memory_goes_first_among_equal_priorities_only() -> None:
    shards = [due(0), due(1, key=2), due(2, key=2), due(3, key=3, urgency=1)]
    assert picked(shards, prefer=[2]) == [1, 2]
    assert picked(shards, prefer=[3]) == [0]


@pytest.mark.parametrize(("lost", "together"), [(0, 20), (1, 8), (2, 1), (7, 1)])
def test_a_shard_that_kills_its_worker_takes_few_with_it(lost, together) -> None:
    shards = [due(n, lost=lost) for n in range(20)]
    assert picked(shards, limit=100) == list(range(together))
    assert picked([*shards[:2], due(2, lost=9)], limit=100) == [0, 1][:together]


def test_nothing_due_is_nothing_picked() -> None:
    assert picked([]) == []


@pytest.mark.parametrize(("rate", "samples"), [(0.01, 1), (10, 30), (1e6, MAX_TOGETHER)])
def test_as_many_as_take_a_few_seconds_are_claimed_together(rate, samples) -> None:
    assert samples_together(rate) == samples


@pytest.mark.parametrize(
    ("rate", "share", "samples"), [(10, 64, 30), (50, 64, 64), (2000, 64, 200)]
)
def test_of_the_last_ones_no_more_than_a_share_or_a_moments_work_is_claimed(
    rate, share, samples
) -> None:
    assert samples_together(rate, share) == samples


class Tenants:
    """Tenants with endless shards of a model each, and workers that hold one model in memory."""

    def __init__(self, models, *, workers, seed):
        self.models = models  # by tenant
        self.random = random.Random(seed)
        self.served_s = dict.fromkeys(models, 0.0)
        self.running = Counter()
        self.gaps = []  # between two claims of the fairest shard, for each worker
        self.ready = [(0.0, number) for number in range(workers)]
        self.workers = [
            SimpleNamespace(tenant=None, fair_at=-1e9, turns={}) for _ in range(workers)
        ]

    def run(self, until_s):
        while self.ready[0][0] < until_s:
            now, number = heapq.heappop(self.ready)
            worker = self.workers[number]
            self.running[worker.tenant] -= 1
            took_s = self.claim(worker, now)
            self.running[worker.tenant] += 1
            self.served_s[worker.tenant] += took_s
            heapq.heappush(self.ready, (now + took_s, number))

    def claim(self, worker, now):
        loaded = self.models.get(worker.tenant)
        fair = now - worker.fair_at >= FAIR_EVERY_S
        if fair:
            self.gaps.append(now - worker.fair_at)
            worker.fair_at = now
        ranked = [
            (self.running[tenant], due(n, key=model, group=tenant))
            for n, (tenant, model) in enumerate(self.models.items())
        ]
        [first, *_], _ = pick(in_turn(ranked, worker.turns), () if fair else {loaded}, {}, 1)
        worker.tenant = first.group_id
        note_turn(worker.turns, [worker.tenant])
        return self.random.uniform(0.2, TOGETHER_S) + LOADING_S * (first.work_key != loaded)


def jain(shares):
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


@pytest.mark.parametrize(
    ("tenants", "models", "workers"), [(8, 8, 2), (8, 3, 2), (5, 1, 3), (20, 20, 4), (3, 2, 8)]
)
@pytest.mark.parametrize("seed", range(3))
def test_tenants_get_equal_shares_and_none_is_passed_over_for_long(
    tenants, models, workers, seed
) -> None:
    queue = Tenants({f"t{n}": n % models for n in range(tenants)}, workers=workers, seed=seed)
    queue.run(3600)
    assert jain(list(queue.served_s.values())) >= 0.95
    assert max(queue.gaps[workers:]) <= FAIR_EVERY_S + TOGETHER_S + LOADING_S


def test_of_many_work_keys_the_oldest_are_forgotten() -> None:
    known = {}
    for key in range(2 * KEYS_REMEMBERED):
        remember(known, key, key)
        remember(known, 0, key)
    assert len(known) == KEYS_REMEMBERED
    assert {0, 2 * KEYS_REMEMBERED - 1} <= known.keys()

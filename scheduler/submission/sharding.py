"""Cutting generate jobs into shards that fit the workers: several for each, none too long."""

import math

from sqlalchemy.orm import Session

from db import rates
from db.errors import Refused
from worker.services.pinned import PinnedGeneration

UNKNOWN_RATE = 50.0  # samples per second, for a version whose speed was never measured
# The speed measured at the end of training is that of the network alone: samples must be encoded,
# hashed and stored too, and other workers use the same machine.
OF_NETWORK_ALONE = 1 / 3
UNKNOWN_WORKERS = 2  # while none is live
FEW_S = 3.0  # a shorter job is not worth sharing
SHARDS_PER_WORKER = 4
LEAST_S = 0.25  # a shorter shard costs more than it saves
MAX_SHARDS = 100_000
ITEMS_PER_SHARD = 200  # of publish jobs
# of a publish job, and of one at a target of which each shard writes anew what shows all items
MAX_PUBLISH_SHARDS, MAX_LISTING_SHARDS = 100, 10


def samples_per_second(session: Session, pinned: PinnedGeneration) -> float:
    """The speed of one worker: learnt from finished shards, else measured, else assumed."""
    learnt = None if pinned.work_key is None else rates.of(session, pinned.work_key)
    measured = pinned.version.metrics.get("samples_per_second")
    return learnt or (float(measured) * OF_NETWORK_ALONE if measured else UNKNOWN_RATE)


def fitting_size(count: int, *, rate: float, workers: int, shard_s: float, step: int) -> int:
    """The samples of a shard, in whole steps (micro-batches), for a job of `count` samples.

    A job of more than a few seconds has several shards for each worker; none takes much longer than
    `shard_s` at `rate` samples a second.
    """
    size = rate * shard_s
    if count > rate * FEW_S:
        share = count / (SHARDS_PER_WORKER * (workers or UNKNOWN_WORKERS))
        size = min(size, max(share, rate * LEAST_S))
    return math.ceil(max(size, count / MAX_SHARDS) / step) * step


def publish_size(items: int, *, lists_all: bool = False) -> int:
    """The items of each shard of a publish job; `lists_all` is that of its target."""
    most = MAX_LISTING_SHARDS if lists_all else MAX_PUBLISH_SHARDS
    return max(ITEMS_PER_SHARD, math.ceil(items / most))


def cut(count: int, size: int) -> list[tuple[int, int]]:
    """The ranges of shards of `size` samples. Raises `Refused` for too many of them."""
    if size < 1 or count > size * MAX_SHARDS:
        least = math.ceil(count / MAX_SHARDS)
        raise Refused(f"shard size {size}: {count} samples need at least {least} per shard")
    return [(start, min(start + size, count)) for start in range(0, count, size)]

"""Doorbells: messages that say "look at this shard". Commit the rows first, then ring.

A lost doorbell loses nothing: the row is still queued, and it is rung for again after a deadline.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from kombu.exceptions import OperationalError
from kombu.messaging import Producer
from redis.exceptions import RedisError

from db import shards
from db.errors import Unreachable
from worker.broker.app import QUEUE, TASK, celery_app
from worker.failpoints import reach
from worker.isolation import each
from worker.services import Services

# one shard running and two waiting keep a worker busy; the real queue is the database
PER_WORKER = 3
PATIENCE_S = 2.0  # with a broker that takes no messages: what is not rung for now is rung for later


def ring(services: Services, shard_ids: Sequence[str]) -> None:
    """Send a doorbell for each shard. Raises `Unreachable` if the broker does not answer.

    One that cannot be sent does not keep the others from being sent; its error is raised after
    them.
    """
    if not shard_ids:
        return
    app = celery_app(services.settings)
    with _producer(services) as producer:
        failed = each(
            shard_ids,
            lambda shard_id: app.send_task(TASK, args=[shard_id], queue=QUEUE, producer=producer),
            patience_s=PATIENCE_S,
        )
        for error in failed.values():
            raise error
    reach(services.settings, "rung")


def ring_due(services: Services) -> int:
    """Mark the shards that are due as dispatched, commit, and ring for them; return their number.

    Raises `Unreachable` before anything is marked if the broker does not answer.
    """
    with _producer(services) as producer:
        # workers claim by themselves what is due: doorbells that wait already wake as many
        waiting = producer.connection.default_channel.queue_declare(QUEUE).message_count
    deadline_s = services.settings.deadline_s
    shard_ids = services.database.transact(
        partial(shards.take_due, per_worker=PER_WORKER, deadline_s=deadline_s, waiting=waiting)
    )
    if shard_ids:
        reach(services.settings, "dispatched")
    ring(services, shard_ids)
    return len(shard_ids)


@contextmanager
def _producer(services: Services) -> Iterator[Producer]:
    """A pooled producer whose connection has just been checked."""
    app = celery_app(services.settings)
    try:
        with app.producer_or_acquire() as producer:
            producer.connection.ensure_connection(max_retries=1, interval_start=0.1)
            yield producer
    except (OperationalError, RedisError, OSError) as error:
        where = services.settings.broker
        reason = str(error).rstrip(".")
        raise Unreachable(
            f"the broker at {where} does not answer: {reason}",
            remedy="start it, or check GENMILL_REDIS_URL",
        ) from error

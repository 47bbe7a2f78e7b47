"""The commit of what shards made: many in one transaction, each under its own fence."""

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

from sqlalchemy.orm import Session

from db import shards
from db.errors import GenmillError, Unreachable
from db.shards import Result
from worker.shards.context import ShardResult
from worker.shards.heartbeat import Heartbeat
from worker.shards.lease import Lease
from worker.shared_memory import SharedState

log = logging.getLogger(__name__)

PAUSE_S = 1.0
DRAIN_PATIENCE_S = 20.0  # how long a worker that shuts down waits for the database

Outcomes = dict[str, GenmillError | None]  # by shard id; why the result was not recorded


def commit(
    heartbeat: Heartbeat, made: Mapping[Lease, ShardResult], shared: SharedState
) -> Outcomes:
    """Record results, after which their shards have succeeded; the leases end.

    Waits while the database is away; raises `Unreachable` if the worker shuts down meanwhile.
    """
    with ExitStack() as paused:
        for lease in made:
            paused.enter_context(lease.hang_check_paused())
        heartbeat.services.store.flush()
        outcomes = _until_answered(heartbeat, made, shared)
    for lease in made:
        lease.held.ended = True
    return outcomes


def _until_answered(
    heartbeat: Heartbeat, made: Mapping[Lease, ShardResult], shared: SharedState
) -> Outcomes:
    began = time.monotonic()
    while True:
        try:
            with heartbeat.writing:
                return heartbeat.services.database.transact(partial(_record, made=made))
        except Unreachable as error:  # it may have been recorded or not: try again
            if shared.draining and time.monotonic() - began > DRAIN_PATIENCE_S:
                raise
            log.warning("the commit waits: %s", error)
            time.sleep(PAUSE_S)


def _record(session: Session, made: Mapping[Lease, ShardResult]) -> Outcomes:
    results = [
        Result(lease.claim, result.artifacts, lease.held.report) for lease, result in made.items()
    ]
    outcomes = shards.commit_many(session, results)
    for lease, result in made.items():
        if outcomes[lease.claim.shard_id] is None:
            for write in [*lease.held.pending, *result.writes]:
                write(session)
    lost = [lease.claim for lease in made if outcomes[lease.claim.shard_id] is not None]
    # an earlier try, whose reply was lost
    return outcomes | dict.fromkeys(shards.succeeded(session, lost))

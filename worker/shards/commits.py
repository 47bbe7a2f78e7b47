"""The commit of what shards made: many in one transaction, each under its own fence."""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial

from sqlalchemy.orm import Session

from db import shards
from db.commits import NewManifest
from db.errors import GenmillError, Unreachable
from db.shards import Result
from worker.failpoints import reach
from worker.services import Services
from worker.services.finalize import log_succeeded, store_manifests
from worker.shards.context import ShardResult
from worker.shards.heartbeat import Heartbeat
from worker.shards.lease import Lease, hang_checks_paused
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
    with hang_checks_paused(made):
        manifests = _store_manifests(heartbeat.services, made)
        heartbeat.services.store.flush()
        reach(heartbeat.services.settings, "flushed")
        record = partial(_record, made=made, manifests=manifests)
        outcomes = _until_answered(heartbeat, record, shared)
    ended = [lease.claim for lease in made if outcomes[lease.claim.shard_id] is None]
    log_succeeded([claim.job_id for claim in ended if claim.job_id in manifests])
    for lease in made:
        lease.held.ended = True
    return outcomes


def _store_manifests(
    services: Services, made: Mapping[Lease, ShardResult]
) -> dict[str, NewManifest]:
    """Store the manifests of the jobs that end with this; none if the store is away."""
    manifests = {lease.claim.job_id: each.manifest for lease, each in made.items() if each.manifest}
    try:
        return store_manifests(services, manifests) if manifests else {}
    except Unreachable as error:
        log.warning("manifests are left to the scheduler: %s", error)
        return {}


def _until_answered(
    heartbeat: Heartbeat, record: Callable[[Session], Outcomes], shared: SharedState
) -> Outcomes:
    began = time.monotonic()
    while True:
        try:
            with heartbeat.writing:
                return heartbeat.services.database.transact(record)
        except Unreachable as error:  # it may have been recorded or not: try again
            if shared.draining and time.monotonic() - began > DRAIN_PATIENCE_S:
                raise
            log.warning("the commit waits: %s", error)
            time.sleep(PAUSE_S)


def _record(
    session: Session, made: Mapping[Lease, ShardResult], manifests: Mapping[str, NewManifest]
) -> Outcomes:
    results = [
        Result(lease.claim, each.artifacts, lease.held.report, manifests.get(lease.claim.job_id))
        for lease, each in made.items()
    ]
    outcomes = shards.commit_many(session, results)
    for lease, result in made.items():
        if outcomes[lease.claim.shard_id] is None:
            for write in [*lease.held.pending, *result.writes]:
                write(session)
    lost = [lease.claim for lease in made if outcomes[lease.claim.shard_id] is not None]
    # an earlier try, whose reply was lost
    return outcomes | dict.fromkeys(shards.succeeded(session, lost))

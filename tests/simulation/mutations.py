"""The protocol with one rule left out, by the rule's name: each must be found by the simulation."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from hashlib import sha256
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from sqlalchemy import Integer, bindparam, null, select, text, update

from db import attempts, chains, checkpoints, due, jobs, leases, moves, reaping, renewals, shards
from db.columns import Id, UtcDateTime
from db.errors import Unreachable
from db.session import Now, clock
from db.states import JobState, ShardState
from db.tables import SHARDS, Job
from scheduler.dispatch import garbage, rounds
from tests.simulation.database import SimulatedDatabase
from tests.simulation.processes import Client
from tests.simulation.store import SimulatedStore
from worker.services import dead_workers, finalize
from worker.shards import train
from worker.store.base import Blob

Mutation = Callable[[], AbstractContextManager[object]]
_shard = SHARDS.c


def _succeeding(*conditions: Any) -> dict[bool, Any]:
    """The statement that ends shards as succeeded, under other conditions."""
    new = {"status": ShardState.SUCCEEDED.value, "ended_at": Now()}
    new |= {"lease_until": null(), "dispatched_at": null()}
    used = (bindparam("held_fence", type_=Integer) >= 0, bindparam("holder", type_=Id) != "")
    ids = _shard.id.in_(bindparam("ids", expanding=True))
    statement = update(SHARDS).where(ids, *used, *conditions).values(new)
    return dict.fromkeys((True, False), statement.returning(_shard.id, _shard.ended_at))


def commit_without_a_fence() -> AbstractContextManager[object]:
    running = _shard.status == ShardState.RUNNING.value
    return patch.object(attempts, "_SUCCEED", _succeeding(running))


@contextmanager
def commit_without_reading_the_job_again() -> Iterator[None]:
    def remembered(_: Any, ids: Any, **__: Any) -> dict[str, Any]:
        return {each: SimpleNamespace(id=each, status=JobState.RUNNING) for each in ids}

    by_fence = _succeeding(_shard.fence == bindparam("held_fence"))
    with (
        patch.object(attempts, "lock_jobs", remembered),
        patch.object(attempts, "_SUCCEED", by_fence),
    ):
        yield


def failures_reported_without_a_fence() -> AbstractContextManager[object]:
    def hold(session: Any, claim: Any, *, exclusive: bool = False) -> Any:
        job = moves.lock_job(session, claim.job_id, shared=not exclusive)
        return job, moves.lock_shard(session, claim.shard_id)

    return patch.object(attempts, "hold", hold)


def heartbeat_renews_anybodys_lease() -> AbstractContextManager[object]:
    broken = renewals._SQLITE.text.replace(
        "AND shards.fence = json_extract(beat.value, '$[1]')", ""
    ).replace("AND shards.owner = :owner", "AND :owner IS NOT NULL")
    parameters = (bindparam("until", type_=UtcDateTime), bindparam("owner", type_=Id))
    statement = text(broken).bindparams(*parameters).columns(id=Id)
    return patch.object(renewals, "_RENEW_SQLITE", statement)


def claim_takes_live_leases() -> AbstractContextManager[object]:
    return patch.object(leases, "has_expired", lambda shard, _: shard.status == "running")


@contextmanager
def reaper_reads_a_wrong_clock() -> Iterator[None]:
    def ahead(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(session: Any, **options: Any) -> Any:
            with patch.object(reaping, "clock", lambda each: clock(each) + timedelta(minutes=2)):
                return step(session, **options)

        return run

    with (
        patch.object(shards, "expired", ahead(shards.expired)),
        patch.object(shards, "reap", ahead(shards.reap)),
    ):
        yield


def claims_are_not_counted() -> AbstractContextManager[object]:
    return patch.object(leases, "_TAKE", leases._TAKE.values(claims=_shard.claims))


@contextmanager
def losses_have_no_limit() -> Iterator[None]:
    with ExitStack() as stack:
        for name in ("reap", "reap_worker", "claim"):
            unlimited = _always(getattr(shards, name), max_claims=1_000_000)
            stack.enter_context(patch.object(shards, name, unlimited))
        yield


def failures_have_no_limit() -> AbstractContextManager[object]:
    return patch.object(shards, "fail", _always(shards.fail, max_failures=1_000_000))


@contextmanager
def attempts_are_not_recorded() -> Iterator[None]:
    with (
        patch.object(leases, "end_attempts", lambda *_, **__: None),
        patch.object(reaping, "end_attempts", lambda *_, **__: None),
    ):
        yield


def nobody_rings_again() -> AbstractContextManager[object]:
    never = update(SHARDS).where(
        _shard.fence < 0, _shard.dispatched_at <= bindparam("before", type_=UtcDateTime)
    )
    return patch.object(due, "_FORGET_OVERDUE", never.values(dispatched_at=None))


def no_dispatcher() -> AbstractContextManager[object]:
    return patch.object(rounds, "ring_due", lambda _: 0)


@contextmanager
def nobody_reaps() -> Iterator[None]:
    with (
        patch.object(rounds, "reap", lambda _: 0),
        patch.object(dead_workers, "_reap", lambda *_: 0),
    ):
        yield


def nobody_settles_what_a_crash_left() -> AbstractContextManager[object]:
    def only_settled(session: Any, limit: int, **_: Any) -> list[str]:
        ready = select(Job.id).where(Job.status == JobState.FINALIZING).order_by(Job.id)
        return list(session.scalars(ready.limit(limit)))

    return patch.object(finalize.jobs, "next_to_finalize", only_settled)


@contextmanager
def finished_before_all_shards_are() -> Iterator[None]:
    def settle(session: Any, job: Any) -> JobState:
        if job.status == JobState.RUNNING:
            moves.move_job(session, job, JobState.FINALIZING, at=clock(session))
            return JobState.FINALIZING
        return JobState(job.status)

    with (
        patch.object(jobs, "settle_job", settle),
        patch.object(finalize.jobs, "complete", lambda _, ids: list(ids)),
    ):
        yield


def manifests_are_recorded_and_not_stored() -> AbstractContextManager[object]:
    return patch.object(SimulatedStore, "put_as", lambda _, key, data, **__: _blob(key, data))


def commit_without_a_flush() -> AbstractContextManager[object]:
    return patch.object(SimulatedStore, "flush", lambda _: None)


def keys_can_be_overwritten() -> AbstractContextManager[object]:
    def put(store: SimulatedStore, prefix: str, data: bytes, *, durable: bool = True) -> Blob:
        place = sha256(data.partition(b" as ")[0]).hexdigest()
        return store._store(f"{prefix}/{place}", data, sha256(data).hexdigest(), durable=durable)

    return patch.object(SimulatedStore, "put_bytes", put)


def collected_while_it_runs() -> AbstractContextManager[object]:
    def any_job(session: Any, _: float, limit: int, **__: Any) -> list[str]:
        return list(session.scalars(select(Job.id).where(Job.collected_at.is_(None)).limit(limit)))

    return patch.object(garbage.jobs, "collectable", any_job)


def checkpoints_without_a_fence() -> AbstractContextManager[object]:
    return patch.object(checkpoints, "hold", lambda *_: None)


def checkpoints_are_marked_in_an_outage() -> AbstractContextManager[object]:
    fetch = train._fetch

    def condemn(services: Any, found: Any, lease: Any, folder: Any) -> Any:
        try:
            return fetch(services, found, lease, folder)
        except Unreachable:
            mark = partial(shards.mark_bad, shard_id=found.shard_id, step=found.step)
            services.database.transact(mark)
            return None

    return patch.object(train, "_fetch", condemn)


def retries_begin_anew() -> AbstractContextManager[object]:
    find = shards.checkpoints_of_line

    def own(session: Any, job_id: str) -> list[Any]:
        ids = [each.id for each in jobs.shards_of(session, job_id)]
        return [each for each in find(session, job_id) if each.shard_id in ids]

    return patch.object(shards, "checkpoints_of_line", own)


def orders_end_without_a_selection() -> AbstractContextManager[object]:
    return patch.object(finalize, "settle_orders", lambda _, job_ids: job_ids)


def cancel_leaves_the_shards() -> AbstractContextManager[object]:
    def end(session: Any, job: Any, new: JobState, *, reason: str) -> None:
        error = reason if new is JobState.FAILED else None
        moves.move_job(session, job, new, at=clock(session), reason=reason, error=error)

    return patch.object(jobs, "end_job", end)


@contextmanager
def nobody_moves_chains_on() -> Iterator[None]:
    with (
        patch.object(rounds, "move_chains_on", lambda _: 0),
        patch.object(chains, "cancel_after", lambda *_: 0),
    ):
        yield


def a_lost_answer_counts_as_success() -> AbstractContextManager[object]:
    answer = SimulatedDatabase._answer

    def assumed(database: SimulatedDatabase, fate: str | None) -> None:
        if fate != "commit_lost":
            answer(database, fate)

    return patch.object(SimulatedDatabase, "_answer", assumed)


def a_lost_answer_counts_as_refused() -> AbstractContextManager[object]:
    return patch.object(Client, "refuses_unknown", True)


def _always(step: Callable[..., Any], **fixed: Any) -> Callable[..., Any]:
    """The step with options that its callers cannot change."""
    return lambda *arguments, **options: step(*arguments, **options | fixed)


def _blob(key: str, data: bytes) -> Blob:
    return Blob(key, sha256(data).hexdigest(), len(data))


MUTATIONS: dict[str, Mutation] = {
    each.__name__.replace("_", " "): each
    for each in (
        commit_without_a_fence,
        commit_without_reading_the_job_again,
        failures_reported_without_a_fence,
        heartbeat_renews_anybodys_lease,
        claim_takes_live_leases,
        reaper_reads_a_wrong_clock,
        claims_are_not_counted,
        losses_have_no_limit,
        failures_have_no_limit,
        attempts_are_not_recorded,
        nobody_rings_again,
        no_dispatcher,
        nobody_reaps,
        nobody_settles_what_a_crash_left,
        finished_before_all_shards_are,
        manifests_are_recorded_and_not_stored,
        commit_without_a_flush,
        keys_can_be_overwritten,
        collected_while_it_runs,
        checkpoints_without_a_fence,
        checkpoints_are_marked_in_an_outage,
        retries_begin_anew,
        orders_end_without_a_selection,
        cancel_leaves_the_shards,
        nobody_moves_chains_on,
        a_lost_answer_counts_as_success,
        a_lost_answer_counts_as_refused,
    )
}

"""Attempts at shards: claim, engine, commit; and the report if one fails.

A doorbell wakes a worker: it claims what is due, several small shards at once, until nothing is.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from db import jobs
from db.errors import Draining, NotSupportedHere, Panic, WrongKey, contained
from db.jobs import JobBrief
from db.shards import Claim
from worker.failpoints import reach
from worker.services.pinned import (
    PinnedEvaluation,
    PinnedGeneration,
    PinnedPromotion,
    PinnedPublication,
    PinnedTraining,
)
from worker.shards.claiming import Claimer
from worker.shards.commits import commit
from worker.shards.context import ShardResult, WorkerContext
from worker.shards.evaluate import evaluate_job
from worker.shards.finishing import Finisher
from worker.shards.generate import generate_shards
from worker.shards.heartbeat import Heartbeat
from worker.shards.lease import Lease, hang_checks_paused
from worker.shards.promote import promote_job
from worker.shards.publish import publish_job
from worker.shards.reports import log_claims, report_error, report_release
from worker.shards.scratch import scratch
from worker.shards.storing import Part
from worker.shards.train import train_job
from worker.shared_memory import SharedState

log = logging.getLogger(__name__)

COMMITTED_AT_ONCE = 512  # shards
COMMIT_EVERY_S = 2.0


def work(context: WorkerContext, shard_id: str, *, owner: str, shared: SharedState) -> None:
    """Answer one doorbell as the worker boot `owner`, then go on until nothing is due.

    Raises `Draining` if the worker shut down before it could claim anything. Ends the process where
    native code has left it in a state that nobody knows.
    """
    claimer = Claimer(context, owner, shared)
    with (
        Heartbeat(
            context.services, owner, pause_s=context.beat_pause_s, on_hang=_end_process
        ) as heartbeat,
        Finisher(context.services) as finisher,
    ):
        for claims in claimer.claims(shard_id):
            began, loading_s = time.monotonic(), context.loading_s
            attempt = Attempt(context, heartbeat, claims, shared, finisher, more=claimer.more)
            attempt.run()
            if attempt.broken:
                break
            if shared.draining:
                return
            if attempt.lacks_key:
                claimer.give_way()
            elif attempt.done:
                context.gave_way = 0
            if len(attempt.done) == len(attempt.claims):
                loading_s = context.loading_s - loading_s
                claimer.learn(attempt.claims, time.monotonic() - began - loading_s)
        else:
            return
    _end_process()


class Attempt:
    """One attempt at each of these claims: at a training, or at shards that run together."""

    def __init__(
        self,
        context: WorkerContext,
        heartbeat: Heartbeat,
        claims: Sequence[Claim],
        shared: SharedState,
        finisher: Finisher,
        *,
        more: Callable[[int], list[Claim]] = lambda _: [],
    ) -> None:
        """`more` claims shards that can join those of a work key."""
        self.context = context
        self.services = context.services
        self.claims, self.leases = list[Claim](), list[Lease]()
        self._more = more
        self.done: list[Claim] = []  # those that succeeded
        self.broken = False  # the process cannot be trusted any more
        self.lacks_key = False  # and another worker may have the installation key
        self._heartbeat = heartbeat
        self._shared = shared
        self._finisher = finisher
        self._reports = True
        self._made: dict[Lease, ShardResult] = {}
        self._commit_at = time.monotonic() + COMMIT_EVERY_S
        self._begin(claims)

    def run(self) -> None:
        """Run the claims to their end, and report whatever happens to each."""
        home = self.services.settings.home
        try:
            with self._heartbeat.renewing(self.leases), scratch(home / "work") as folder:
                reach(self.services.settings, "claimed")
                self._run_in(folder)
        except Draining:
            reason = "the worker shut down"
            for lease in self._open():
                self._tell(partial(report_release, reason=reason, backoff_s=0), lease)
        except BaseException as error:
            self._report_all(contained(error))

    def _begin(self, claims: Sequence[Claim]) -> list[Lease]:
        log_claims("claimed", claims)
        begun = [Lease(self.services, claim, shared=self._shared) for claim in claims]
        self.claims += claims
        self.leases[:] = self._open() + begun  # the heartbeat renews what this list holds
        return begun

    def _run_in(self, folder: Path) -> None:
        if self.claims[0].kind == "generate":
            self._generate(folder)
        else:
            self._run_alone(folder)

    def _briefs_of(self, leases: Sequence[Lease]) -> Mapping[str, JobBrief]:
        with self.services.database.read() as session:
            return jobs.briefs(session, {lease.claim.job_id for lease in leases})

    def _run_alone(self, folder: Path) -> None:
        [lease] = self.leases
        job = self._briefs_of([lease])[lease.claim.job_id]
        self._commit({lease: _run_job(self.context, job, lease, folder)})

    def _generate(self, folder: Path) -> None:
        parts = self._parts(self.leases)
        results = generate_shards(self.context, parts, folder, more=self._more_parts)
        try:
            for part, made in results if parts else ():
                if isinstance(made, Exception):
                    self._report(part.lease, made)
                    continue
                self._made[part.lease] = made
                due = time.monotonic() >= self._commit_at
                if due or len(self._made) >= COMMITTED_AT_ONCE:
                    self._commit_made()
        finally:  # what was made counts, whatever ended the rest
            self._commit_made()

    def _more_parts(self) -> list[Part]:
        """Parts that can join those that run."""
        key = self.claims[0].work_key
        claims = [] if key is None or self._shared.draining else self._more(key)
        return self._parts(self._begin(claims)) if claims else []

    def _parts(self, leases: Sequence[Lease]) -> list[Part]:
        found = self._briefs_of(leases)
        return [part for lease in leases for part in self._part(found[lease.claim.job_id], lease)]

    def _part(self, job: JobBrief, lease: Lease) -> list[Part]:
        """The claim's part of the work; none if its spec is refused, which is reported."""
        try:
            pinned = self.context.pinned(job, lease.claim.work_key)
        except BaseException as error:
            self._report(lease, contained(error))
            return []
        assert isinstance(pinned, PinnedGeneration)  # noqa: S101 - for mypy: of this kind
        return [Part(job, pinned, lease)]

    def _commit_made(self) -> None:
        made, self._made = self._made, {}
        self._commit_at = time.monotonic() + COMMIT_EVERY_S
        if made:
            self._commit(made)

    def _commit(self, made: Mapping[Lease, ShardResult]) -> None:
        """Record results in one transaction, after which their shards have succeeded."""
        reach(self.services.settings, "put_after")
        with hang_checks_paused(self._open()):
            outcomes = commit(self._heartbeat, made, self._shared)
        reach(self.services.settings, "committed")
        done = [lease.claim for lease in made if outcomes[lease.claim.shard_id] is None]
        self.done += done
        log_claims("succeeded", done)
        # the others have succeeded with the commit
        unfinished = [lease.claim for lease, each in made.items() if each.manifest is None]
        self._finisher.finish([claim for claim in unfinished if outcomes[claim.shard_id] is None])
        for lease in made:
            error = outcomes[lease.claim.shard_id]
            if error is not None:
                self._report(lease, error)

    def _open(self) -> list[Lease]:
        return [lease for lease in self.leases if lease.held.open]

    def _report(self, lease: Lease, error: Exception) -> None:
        lease.held.ended = True
        # after a CUDA error, every later call of this process fails too
        self.broken |= isinstance(error, Panic | torch.AcceleratorError)
        self.lacks_key |= isinstance(error, WrongKey)
        self._tell(partial(report_error, error=error), lease)

    def _tell(self, report: Callable[..., bool], lease: Lease) -> None:
        """Report; once one has waited for the database in vain, the rest is left to the reaper."""
        self._reports = self._reports and report(self.services, lease.claim)

    def _report_all(self, error: Exception) -> None:
        for lease in self._open():
            self._report(lease, error)


def _run_job(context: WorkerContext, job: JobBrief, lease: Lease, folder: Path) -> ShardResult:
    """Run a job that is one shard, by its kind."""
    pinned = context.pinned(job, None)
    if isinstance(pinned, PinnedTraining):
        return train_job(context, job, pinned, lease, folder)
    if isinstance(pinned, PinnedEvaluation):
        return evaluate_job(context, job, pinned, lease, folder)
    if isinstance(pinned, PinnedPromotion):
        return promote_job(context, job, pinned, lease, folder)
    if isinstance(pinned, PinnedPublication):
        return publish_job(context, job, pinned, lease, folder)
    raise NotSupportedHere(
        f"this worker cannot run {pinned.spec.kind} jobs", remedy="upgrade its Genmill"
    )


def _end_process() -> None:
    os._exit(os.EX_SOFTWARE)

"""Attempts at shards: claim, engine, commit; and the report if one fails.

A doorbell wakes a worker: it claims that shard, then whatever is due, several small shards at once,
until nothing is.
"""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from db import jobs
from db.errors import Draining, GenmillError
from db.shards import Claim, Result
from db.tables import Job
from worker.failpoints import crash_at
from worker.services.finalize import finalize, settle_complete
from worker.services.pinned import PinnedGeneration, PinnedTraining
from worker.shards.claiming import Claimer
from worker.shards.context import ShardResult, WorkerContext
from worker.shards.generate import Part, generate_shards
from worker.shards.heartbeat import Heartbeat
from worker.shards.lease import Lease
from worker.shards.reports import log_fields, report_error, report_release
from worker.shards.scratch import scratch
from worker.shards.train import train_job
from worker.shared_memory import SharedState

log = logging.getLogger(__name__)

COMMITTED_AT_ONCE = 512  # shards
COMMIT_EVERY_S = 2.0


def work(context: WorkerContext, shard_id: str, *, owner: str, shared: SharedState) -> None:
    """Answer one doorbell as the worker boot `owner`, then go on until nothing is due.

    Raises `Draining` if the worker shut down before it could claim anything.
    """
    claimer = Claimer(context, owner, shared)
    with Heartbeat(context.services, owner) as heartbeat:
        claims = claimer.answer(shard_id)
        while claims:
            began = time.monotonic()
            lease = Lease(heartbeat, claims, shared=shared, on_hang=_end_process)
            Attempt(context, lease).run()
            if shared.draining:
                return
            claimer.learn(claims, time.monotonic() - began)
            claims = claimer.next()


class Attempt:
    """One attempt at each claim of a lease: at a training, or at shards that run together."""

    def __init__(self, context: WorkerContext, lease: Lease) -> None:
        self.context = context
        self.services = context.services
        self.lease = lease
        self._made: list[Result] = []
        self._commit_at = time.monotonic() + COMMIT_EVERY_S

    def run(self) -> None:
        """Run the claims to their end, and report whatever happens to each."""
        for claim in self.lease.open_claims():
            log.info("shard claimed", extra=log_fields(claim))
        try:
            with self.lease, scratch(self.services.settings.home / "work") as folder:
                crash_at(self.services.settings, "claimed")
                self._run_in(folder)
        except Draining:
            for claim in self.lease.open_claims():
                report_release(self.services, claim, "the worker shut down", backoff_s=0)
        except torch.AcceleratorError as error:  # every later CUDA call of this process fails too
            self._report_all(error)
            _end_process()
        except Exception as error:
            self._report_all(error)

    def _run_in(self, folder: Path) -> None:
        claims = self.lease.open_claims()
        with self.services.database.read() as session:
            found = jobs.by_ids(session, {claim.job_id for claim in claims})
        if claims[0].kind == "generate":
            self._generate([(found[claim.job_id], claim) for claim in claims], folder)
        else:
            self._train(found[claims[0].job_id], folder)

    def _train(self, job: Job, folder: Path) -> None:
        pinned = self.context.pinned(job, None)
        assert isinstance(pinned, PinnedTraining)  # noqa: S101 - for mypy: of this kind
        made = train_job(self.context, job, pinned, self.lease, folder)
        self._commit([self._result(self.lease.claim, made)], made)

    def _generate(self, claimed: Sequence[tuple[Job, Claim]], folder: Path) -> None:
        parts = [part for job, claim in claimed for part in self._parts(job, claim)]
        try:
            for part, made in generate_shards(self.context, parts, self.lease, folder):
                if isinstance(made, Exception):
                    self._report(part.claim, made)
                    continue
                self._made.append(self._result(part.claim, made))
                due = time.monotonic() >= self._commit_at
                if due or len(self._made) >= COMMITTED_AT_ONCE:
                    self._commit_made()
        finally:  # what was made counts, whatever ended the rest
            self._commit_made()

    def _parts(self, job: Job, claim: Claim) -> list[Part]:
        """The claim's part of the work; none if its spec is refused, which is reported."""
        try:
            pinned = self.context.pinned(job, claim.work_key)
        except GenmillError as error:
            self._report(claim, error)
            return []
        assert isinstance(pinned, PinnedGeneration)  # noqa: S101 - for mypy: of this kind
        return [Part(job, pinned, claim)]

    def _result(self, claim: Claim, made: ShardResult) -> Result:
        report = self.lease.held[0].report if claim.kind != "generate" else None
        return Result(claim, made.artifacts, report)

    def _commit_made(self) -> None:
        made, self._made = self._made, []
        self._commit_at = time.monotonic() + COMMIT_EVERY_S
        if made:
            self._commit(made)

    def _commit(self, results: Sequence[Result], made: ShardResult | None = None) -> None:
        crash_at(self.services.settings, "put_after")
        outcomes = self.lease.commit(results, made.writes if made else [])
        crash_at(self.services.settings, "committed")
        done = [r.claim for r in results if outcomes[r.claim.shard_id] is None]
        for claim in done:
            log.info("shard succeeded", extra=log_fields(claim))
        self._finish(done)
        for result in results:
            error = outcomes[result.claim.shard_id]
            if error is not None:
                self._report(result.claim, error)

    def _finish(self, done: Sequence[Claim]) -> None:
        """Finish the jobs whose last shards these were. Best effort."""
        whole = [claim.job_id for claim in done if claim.alone]
        others = {claim.job_id for claim in done if not claim.alone}
        try:
            ready = settle_complete(self.services, sorted(others)) if others else []
            finalize(self.services, [*whole, *ready])
        except GenmillError as error:
            log.warning("left to the scheduler: %s", error)

    def _report(self, claim: Claim, error: Exception) -> None:
        self.lease.end(claim)
        report_error(self.services, claim, error)

    def _report_all(self, error: Exception) -> None:
        for claim in self.lease.open_claims():
            self._report(claim, error)


def _end_process() -> None:
    os._exit(os.EX_SOFTWARE)

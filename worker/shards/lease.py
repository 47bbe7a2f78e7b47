"""Work on claimed shards: what the engine reports, and the commit of what it made.

The heartbeat renews the claims, writes what is reported and learns when the work must stop; the
engine's next call raises that. Every write is fenced: it is refused once a shard is another's.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from sqlalchemy.orm import Session

from db import jobs, shards
from db.columns import new_id
from db.errors import Draining, GenmillError, Stopped, Unreachable
from db.shards import Claim, NewArtifact, Result
from worker.failpoints import wait_while_held
from worker.services import Services
from worker.shards.heartbeat import Heartbeat, Held, Report, Write
from worker.shared_memory import SharedState
from worker.store.base import Blob

log = logging.getLogger(__name__)

COMMIT_PAUSE_S = 1.0
DRAIN_PATIENCE_S = 20.0  # how long a worker that shuts down waits for the database
FAILURE_BACKOFF_S = 2.0  # before the second try; doubled before each further one

Outcomes = dict[str, GenmillError | None]


class Lease:
    """Holds claims while the `with` block runs; implements `worker.engine.monitor.Monitor`.

    Several claims are shards that run together; what is logged then goes to the log of each job.
    `on_hang` ends the process: nothing else stops a computation that does not return.
    """

    def __init__(
        self,
        heartbeat: Heartbeat,
        claims: Sequence[Claim],
        *,
        shared: SharedState,
        on_hang: Callable[[], None],
    ) -> None:
        self.services = heartbeat.services
        self.held = [Held(claim) for claim in claims]
        self._heartbeat = heartbeat
        self._shared = shared
        self._on_hang = on_hang
        self._hang_s = self.services.settings.hang_s
        self._progress_at = time.monotonic()
        self._hang_check_pauses = 0

    def __enter__(self) -> "Lease":
        self._heartbeat.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._heartbeat.remove(self)

    @property
    def claim(self) -> Claim:
        """The only claim, or the first of several."""
        return self.held[0].claim

    def open_claims(self) -> list[Claim]:
        """The claims that have neither ended nor been lost, as far as this worker knows."""
        return [each.claim for each in self.held if not each.ended and each.order is None]

    def end(self, claim: Claim) -> None:
        """Hold this claim no longer."""
        for each in self.held:
            each.ended = each.ended or each.claim is claim

    def progress(
        self, done: float, total: float, unit: str, *, eta_s: float | None = None, note: str = ""
    ) -> None:
        """Report progress. Raises `Cancelled`, `LeaseLost` or, unless all is done, `Draining`."""
        self._progress_at = time.monotonic()
        report: Report = {"done": done, "total": total, "unit": unit, "eta_s": eta_s, "note": note}
        for each in self.held:
            each.seq += 1
            each.report = report if len(self.held) == 1 else None
        wait_while_held(
            self.services.settings, until=lambda: self._must_stop() or self._shared.draining
        )
        self.raise_if_stopped()
        if self._shared.draining and done < total:
            raise Draining

    def log(self, message: str, *, level: str = "info") -> None:
        """Write a line of the jobs' logs with the next heartbeat."""
        self.raise_if_stopped()
        for each in self.held:
            each.pending.append(_log_line(each.claim.job_id, message, level))

    def points(self, step: int, values: Mapping[str, float]) -> None:
        """Add points to the job's curves with the next heartbeat."""
        self.raise_if_stopped()
        kept = dict(values)
        self.held[0].pending.append(
            lambda session: jobs.add_points(session, self.claim.job_id, step, kept)
        )

    def preview(self, name: str, path: Path, media_type: str) -> None:
        """Store a preview now; without the store or the database, only log that it failed."""
        with self._warn_if_unreachable(f"preview {name}"):
            artifact = self.put("preview", name, path, media_type)
            self.raise_if_stopped()
            self.services.database.transact(
                lambda session: shards.put_artifact(session, self.claim, artifact)
            )

    def checkpoint(self, step: int, path: Path) -> None:
        """Store a checkpoint; without the store or the database, only log that it failed."""
        with self._warn_if_unreachable(f"the checkpoint of step {step}"):
            blob = self._store(path, self.claim)
            self.raise_if_stopped()
            self.services.database.transact(
                lambda session: shards.add_checkpoint(
                    session, self.claim, step=step, key=blob.key, sha256=blob.sha256, size=blob.size
                )
            )

    def put(
        self, kind: str, name: str, path: Path, media_type: str, *, claim: Claim | None = None
    ) -> NewArtifact:
        """Store a file among the blobs of the claim's job; the caller records it."""
        blob = self._store(path, claim or self.claim)
        return NewArtifact(kind, name, blob.key, blob.sha256, blob.size, media_type)

    def raise_if_stopped(self) -> None:
        """Raise the order to stop that a heartbeat has received, if it has for every claim."""
        order = self._must_stop()
        if order is not None:
            raise order

    def commit(
        self, results: Sequence[Result], writes: Sequence[Callable[[Session], object]] = ()
    ) -> Outcomes:
        """Record results in one transaction, after which their shards have succeeded.

        `writes` belong to the only result. Waits while the database is away. Returns by shard id
        None, or why its result was not recorded.
        """
        ours = {each.claim.shard_id: each for each in self.held}
        held = [ours[result.claim.shard_id] for result in results]

        def record(session: Session) -> Outcomes:
            outcomes = shards.commit_many(session, results)
            for each in held:
                if outcomes[each.claim.shard_id] is None:
                    for write in [*each.pending, *writes]:
                        write(session)
            lost = [each.claim for each in held if outcomes[each.claim.shard_id] is not None]
            # an earlier try, whose reply was lost
            return outcomes | dict.fromkeys(shards.succeeded(session, lost))

        with self.hang_check_paused():
            outcomes = self._until_answered(record)
        for each in held:
            each.ended = True
        return outcomes

    def _until_answered(self, record: Callable[[Session], Outcomes]) -> Outcomes:
        began = time.monotonic()
        while True:
            try:
                with self._heartbeat.writing:
                    return self.services.database.transact(record)
            except Unreachable as error:  # it may have been recorded or not: try again
                if self._shared.draining and time.monotonic() - began > DRAIN_PATIENCE_S:
                    raise
                log.warning("the commit waits: %s", error, extra={"shard": self.claim.shard_id})
                time.sleep(COMMIT_PAUSE_S)

    @contextmanager
    def hang_check_paused(self) -> Iterator[None]:
        """For transfers, which report no progress and have timeouts of their own."""
        self._hang_check_pauses += 1
        try:
            yield
        finally:
            self._progress_at = time.monotonic()
            self._hang_check_pauses -= 1

    def give_up_if_hung(self) -> bool:
        """See `Work.give_up_if_hung`; fails the shards and ends the process."""
        if self._hang_check_pauses or time.monotonic() - self._progress_at <= self._hang_s:
            return False
        reason = f"no progress for {self._hang_s:g} s: the worker was killed"
        for claim in self.open_claims():
            log.error(reason, extra={"shard": claim.shard_id, "job": claim.job_id})
            try:
                fail(self.services, claim, reason, final=False)
            except GenmillError as error:
                log.warning("the failure was not recorded: %s", error)
        self._on_hang()
        return True

    def _must_stop(self) -> Stopped | None:
        orders = [each.order for each in self.held if not each.ended]
        return orders[0] if orders and all(orders) else None

    def _store(self, path: Path, claim: Claim) -> Blob:
        with self.hang_check_paused():
            return self.services.store.put(f"jobs/{claim.job_id}/blobs", path)

    @contextmanager
    def _warn_if_unreachable(self, what: str) -> Iterator[None]:
        try:
            yield
        except Unreachable as error:
            log.warning("%s was not stored: %s", what, error, extra={"job": self.claim.job_id})
            self.log(f"{what} was not stored: {error}", level="warning")


def _log_line(job_id: str, message: str, level: str) -> Write:
    line_id = new_id()  # written again, it is still one line
    return lambda session: jobs.log(session, job_id, message, level, line_id=line_id)


def fail(
    services: Services, claim: Claim, error: str, *, final: bool, also: Write = lambda _: None
) -> None:
    """Record a failure of the work, and `also`. Raises `Cancelled` or `LeaseLost`."""

    def work(session: Session) -> None:
        shards.fail(
            session,
            claim,
            error,
            final=final,
            max_failures=services.settings.max_failures,
            backoff_s=FAILURE_BACKOFF_S,
        )
        also(session)

    services.database.transact(work)

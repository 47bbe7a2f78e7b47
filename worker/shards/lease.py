"""A worker's hold on a claimed shard: what the engine reports, and the commit of what it made.

The heartbeat renews the claim, writes what is reported and learns when the work must stop; the
engine's next call raises that. Every write is fenced: it is refused once the shard is another's.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.orm import Session

from db import jobs, shards
from db.columns import new_id
from db.errors import Cancelled, Draining, GenmillError, Unreachable
from db.shards import Claim, NewArtifact
from worker.failpoints import reach, wait_while_held
from worker.services import Services
from worker.shards.heartbeat import Held, Report, Write
from worker.shared_memory import SharedState
from worker.store.base import Blob

log = logging.getLogger(__name__)

FAILURE_BACKOFF_S = 2.0  # before the second try; doubled before each further one


class Lease:
    """Holds one claim while `Heartbeat.renewing` it; implements `worker.engine.monitor.Monitor`."""

    def __init__(self, services: Services, claim: Claim, *, shared: SharedState) -> None:
        self.services = services
        self.claim = claim
        self.held = Held(claim)
        self._shared = shared
        self._thread = threading.current_thread()  # where the work goes on
        self._hang_s = self.services.settings.hang_s
        self._progress_at = time.monotonic()
        self._hang_check_pauses = 0
        self._shown: Report = {}  # beside the progress: stages and warnings

    def progress(
        self, done: float, total: float, unit: str, *, eta_s: float | None = None, note: str = ""
    ) -> None:
        """Report progress. Raises `Cancelled`, `LeaseLost` or, unless all is done, `Draining`."""
        self._progress_at = time.monotonic()
        report: Report = {"done": done, "total": total, "unit": unit, "eta_s": eta_s, "note": note}
        self.held.seq += 1
        self.held.report = report | self._shown if self._shown else report
        reach(self.services.settings, "step")
        wait_while_held(
            self.services.settings, until=lambda: self.held.order or self._shared.draining
        )
        self.raise_if_stopped()
        if self._shared.draining and done < total:
            raise Draining

    def stages(self, under_way: Sequence[Mapping[str, Any]]) -> None:
        """Tell which stages are under way, with the next heartbeat; see `Monitor.stages`."""
        self._show("stages", list(under_way))

    def warn(self, message: str) -> None:
        """Write a warning into the job's log, and show it beside its progress from now on."""
        self.log(message, level="warning")
        self._show("warnings", [*self._shown.get("warnings", ()), message])

    def count(self, name: str, number: int) -> None:
        """Show a number beside the progress, from now on; the shard keeps its last one."""
        self._show(name, number)

    def _show(self, name: str, what: object) -> None:
        shown = {key: value for key, value in self._shown.items() if key != name}
        self._shown = shown | {name: what} if what else shown
        report = {key: value for key, value in (self.held.report or {}).items() if key != name}
        self.held.report = report | self._shown or None

    def log(self, message: str, *, level: str = "info") -> None:
        """Write a line of the job's log with the next heartbeat."""
        self.raise_if_stopped()
        self._note(message, level)

    def _note(self, message: str, level: str = "info") -> None:
        job_id, line_id = self.claim.job_id, new_id()  # written again, it is still one line
        self.held.pending.append(
            lambda session: jobs.log(session, job_id, message, level, line_id=line_id)
        )

    def points(self, step: int, values: Mapping[str, float]) -> None:
        """Add points to the job's curves with the next heartbeat."""
        self.raise_if_stopped()
        kept = dict(values)
        self.held.pending.append(
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
        """Store a checkpoint; without the store or the database, only log that it failed.

        That of a job which has been cancelled is stored too, and `Cancelled` raised then.
        """
        self._note_heard()
        with self._warn_if_unreachable(f"the checkpoint of step {step}"):
            blob = self._store(path)
            reach(self.services.settings, "checkpoint_stored")
            if not isinstance(self.held.order, Cancelled):
                self.raise_if_stopped()
            row: dict[str, Any] = {
                "step": step,
                "key": blob.key,
                "sha256": blob.sha256,
                "size": blob.size,
            }
            transact = self.services.database.transact
            try:
                transact(lambda session: shards.add_checkpoint(session, self.claim, **row))
            except Cancelled:  # a retry resumes from it
                transact(lambda session: shards.leave_checkpoint(session, self.claim, **row))
                raise
            # even after an order to stop: it tells from where the training can go on
            self._note(f"checkpoint of step {step} stored, {blob.size / 2**20:.1f} MiB")

    def put(self, kind: str, name: str, path: Path, media_type: str) -> NewArtifact:
        """Store a file among the job's blobs; the caller records it."""
        blob = self._store(path)
        return NewArtifact(kind, name, blob.key, blob.sha256, blob.size, media_type)

    def raise_if_stopped(self) -> None:
        """Raise the order to stop that a heartbeat has received, if any."""
        if self.held.order is not None:
            self._note_heard()
            raise self.held.order

    def _note_heard(self) -> None:
        """Note that the work knows of the order to stop, if any."""
        if self.held.order is not None and threading.current_thread() is self._thread:
            self.held.heard = True

    def pause_hang_check(self) -> None:
        """Before a transfer, which reports no progress and has timeouts of its own."""
        self._hang_check_pauses += 1

    def resume_hang_check(self) -> None:
        """After it: once for each pause."""
        self._progress_at = time.monotonic()
        self._hang_check_pauses -= 1

    @property
    def hangs(self) -> bool:
        """Whether the work has reported no progress for too long."""
        silent_s = time.monotonic() - self._progress_at
        return self.held.open and not self._hang_check_pauses and silent_s > self._hang_s

    def fail_as_hung(self) -> None:
        """Report that the work hangs. The process must end then: nothing else stops the work."""
        reason = f"no progress for {self._hang_s:g} s: the worker was killed"
        log.error(reason, extra={"shard": self.claim.shard_id, "job": self.claim.job_id})
        try:
            fail(self.services, self.claim, reason, final=False)
        except GenmillError as error:
            log.warning("the failure was not recorded: %s", error)

    def _store(self, path: Path) -> Blob:
        with hang_checks_paused([self]):
            return self.services.store.put(f"jobs/{self.claim.job_id}/blobs", path)

    @contextmanager
    def _warn_if_unreachable(self, what: str) -> Iterator[None]:
        try:
            yield
        except Unreachable as error:
            log.warning("%s was not stored: %s", what, error, extra={"job": self.claim.job_id})
            self.log(f"{what} was not stored: {error}", level="warning")


class Pausable(Protocol):
    """What has a hang check that can be paused."""

    def pause_hang_check(self) -> None:
        """Pause it once more."""

    def resume_hang_check(self) -> None:
        """Undo one pause."""


@contextmanager
def hang_checks_paused(leases: Iterable[Pausable]) -> Iterator[None]:
    """Pause the hang checks of many leases during the block."""
    paused = list(leases)
    for lease in paused:
        lease.pause_hang_check()
    try:
        yield
    finally:
        for lease in paused:
            lease.resume_hang_check()


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

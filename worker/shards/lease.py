"""A worker's hold on a claimed shard: the heartbeat, and what the engine reports.

The heartbeat has a thread of its own. It renews the lease while the work makes progress, writes
progress, curves and log lines, and learns when the work must stop; the engine's next call raises
that. Every write is fenced: it is refused once the shard is another worker's.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from sqlalchemy.orm import Session

from db import jobs, shards
from db.columns import new_id
from db.errors import Draining, GenmillError, Stopped, Unreachable
from db.shards import Claim, NewArtifact
from worker.failpoints import wait_while_held
from worker.services import Services
from worker.shared_memory import SharedState
from worker.store.base import Blob

log = logging.getLogger(__name__)

COMMIT_PAUSE_S = 1.0
DRAIN_PATIENCE_S = 20.0  # how long a worker that shuts down waits for the database
MAX_BEAT_S = 2.0  # a cancellation is noticed within this time
FAILURE_BACKOFF_S = 2.0  # before the second try; doubled before each further one

Write = Callable[[Session], None]


class Lease:
    """Holds a claim while the `with` block runs; implements `worker.engine.monitor.Monitor`.

    `on_hang` ends the process: nothing else stops a computation that does not return.
    """

    def __init__(
        self, services: Services, claim: Claim, *, shared: SharedState, on_hang: Callable[[], None]
    ) -> None:
        self.services = services
        self.claim = claim
        self._shared = shared
        self._on_hang = on_hang
        self._lease_s = services.settings.lease_s
        self._hang_s = services.settings.hang_s
        self._stop_order: Stopped | None = None
        self._seq = 0
        self._progress_at = time.monotonic()
        self._hang_check_pauses = 0
        self._committed = False
        self._report: dict[str, float | str | None] | None = None
        self._pending: list[Write] = []  # log lines and points for the next write
        self._writing = threading.Lock()  # or the heartbeat and the commit would both write them
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._stop_order is None and not self._committed:
            with suppress(GenmillError):  # the last lines of a log often tell why
                self._renew()

    def progress(
        self, done: float, total: float, unit: str, *, eta_s: float | None = None, note: str = ""
    ) -> None:
        """Report progress. Raises `Cancelled`, `LeaseLost` or, unless all is done, `Draining`."""
        self._seq += 1
        self._progress_at = time.monotonic()
        self._report = {"done": done, "total": total, "unit": unit, "eta_s": eta_s, "note": note}
        wait_while_held(
            self.services.settings, until=lambda: self._stop_order or self._shared.draining
        )
        self.raise_if_stopped()
        if self._shared.draining and done < total:
            raise Draining

    def log(self, message: str, *, level: str = "info") -> None:
        """Write a line of the job's log with the next heartbeat."""
        self.raise_if_stopped()
        job_id, line_id = self.claim.job_id, new_id()  # written again, it is still one line
        self._pending.append(
            lambda session: jobs.log(session, job_id, message, level, line_id=line_id)
        )

    def points(self, step: int, values: Mapping[str, float]) -> None:
        """Add points to the job's curves with the next heartbeat."""
        self.raise_if_stopped()
        kept = dict(values)
        self._pending.append(
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
            blob = self._store(path)
            self.raise_if_stopped()
            self.services.database.transact(
                lambda session: shards.add_checkpoint(
                    session, self.claim, step=step, key=blob.key, sha256=blob.sha256, size=blob.size
                )
            )

    def put(self, kind: str, name: str, path: Path, media_type: str) -> NewArtifact:
        """Store a file among the job's blobs; the caller records it."""
        blob = self._store(path)
        return NewArtifact(kind, name, blob.key, blob.sha256, blob.size, media_type)

    def raise_if_stopped(self) -> None:
        """Raise the order to stop that a heartbeat has received, if any."""
        if self._stop_order is not None:
            raise self._stop_order

    def commit(
        self, artifacts: Sequence[NewArtifact], writes: Sequence[Callable[[Session], object]] = ()
    ) -> None:
        """Record the artifacts and `writes` in one transaction, after which the shard succeeded.

        Waits while the database is away. If it raises `Cancelled` or `LeaseLost`, nothing was
        recorded.
        """

        def record(session: Session) -> None:
            shards.commit(session, self.claim, artifacts, report=self._report)
            for write in writes:
                write(session)

        began = time.monotonic()
        with self.hang_check_paused():
            while not self._committed:
                self.raise_if_stopped()
                try:
                    self._write(record)
                    self._committed = True
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

    def _beat(self) -> None:
        while not self._ended.wait(min(self._lease_s / 4, MAX_BEAT_S)):
            silent_s = time.monotonic() - self._progress_at
            if silent_s > self._hang_s and not self._hang_check_pauses:
                self._fail_hung_shard()
                return
            try:
                self._renew()
            except Stopped as order:
                self._stop_order = order
                return
            except Unreachable as error:
                log.warning("no heartbeat: %s", error, extra={"shard": self.claim.shard_id})
            except Exception:  # without a heartbeat the work would be lost with its lease
                log.exception("no heartbeat", extra={"shard": self.claim.shard_id})

    def _renew(self) -> None:
        report, seq = self._report, self._seq
        self._write(
            lambda session: shards.renew(
                session, self.claim, lease_s=self._lease_s, seq=seq, progress=report
            )
        )

    def _write(self, write: Write) -> None:
        """Run `write` and all pending writes in one transaction, one thread at a time.

        After a commit it does nothing, even if the reply to the commit was lost.
        """
        with self._writing:
            if self._committed:
                return
            pending = self._pending[:]

            def work(session: Session) -> None:
                for each in [write, *pending]:
                    each(session)

            try:
                self.services.database.transact(work)
            except Stopped:
                with self.services.database.read() as session:
                    if shards.outcome(session, self.claim) != "succeeded":
                        raise
                self._committed = True  # only our own commit ends our claim like this
            del self._pending[: len(pending)]

    def _store(self, path: Path) -> Blob:
        with self.hang_check_paused():
            return self.services.store.put(f"jobs/{self.claim.job_id}/blobs", path)

    def _fail_hung_shard(self) -> None:
        reason = f"no progress for {self._hang_s:g} s: the worker was killed"
        log.error(reason, extra={"shard": self.claim.shard_id, "job": self.claim.job_id})
        try:
            fail(self.services, self.claim, reason, final=False)
        except GenmillError as error:
            log.warning("the failure was not recorded: %s", error)
        self._on_hang()

    @contextmanager
    def _warn_if_unreachable(self, what: str) -> Iterator[None]:
        try:
            yield
        except Unreachable as error:
            log.warning("%s was not stored: %s", what, error, extra={"job": self.claim.job_id})
            self.log(f"{what} was not stored: {error}", level="warning")


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

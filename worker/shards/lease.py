"""A claimed shard in a worker's hands: its heartbeat, and the engine's way to the record.

The heartbeat has a thread of its own. It renews the lease while the work makes progress, carries
progress, curves and log lines along, and brings orders to stop, which the engine meets at its next
call. Everything written here is fenced: once the shard is someone else's, nothing of this counts.
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
from db.errors import Draining, GenmillError, Stopped, Unreachable
from db.shards import Claim, NewArtifact
from worker.failpoints import wait_while_held
from worker.services import Services
from worker.shared_memory import SharedState

log = logging.getLogger(__name__)

COMMIT_PAUSE_S = 1.0
DRAIN_PATIENCE_S = 20.0  # how long a worker that shuts down waits for the database
MAX_BEAT_S = 2.0  # a cancellation is noticed within it
FAILURE_BACKOFF_S = 2.0  # before the second try; doubled before each further one

Note = Callable[[Session], None]


class Lease:
    """Holds a claim while the `with` block runs; implements `worker.engine.monitor.Monitor`.

    `on_hang` ends the process: a computation that does not come back cannot be stopped otherwise.
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
        self._notes: list[Note] = []
        self._notes_lock = threading.Lock()
        self._renewing = threading.Lock()
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
        """Note how far the work is. Raises `Cancelled`, `LeaseLost` or, unless done, `Draining`."""
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
        """Write a line into the job's log, with the next heartbeat."""
        self._note(lambda session: jobs.log(session, self.claim.job_id, message, level))

    def points(self, step: int, values: Mapping[str, float]) -> None:
        """Add points to the job's curves, with the next heartbeat."""
        kept = dict(values)
        self._note(lambda session: jobs.add_points(session, self.claim.job_id, step, kept))

    def preview(self, name: str, path: Path, media_type: str) -> None:
        """Store a preview now. One that cannot be stored is left out: it is for looking at only."""
        with self._warn_if_unreachable(f"preview {name}"):
            artifact = self.put("preview", name, path, media_type)
            self._transact(lambda session: shards.put_artifact(session, self.claim, artifact))

    def checkpoint(self, step: int, path: Path) -> None:
        """Store a checkpoint; while the store is away, the training goes on without."""
        with self._warn_if_unreachable(f"the checkpoint of step {step}"):
            with self.hang_check_paused():
                blob = self.services.store.put(f"jobs/{self.claim.job_id}/blobs", path)
            self._transact(
                lambda session: shards.add_checkpoint(
                    session, self.claim, step=step, key=blob.key, sha256=blob.sha256, size=blob.size
                )
            )

    def put(self, kind: str, name: str, path: Path, media_type: str) -> NewArtifact:
        """Store a file among the job's blobs; recording it is left to the caller."""
        with self.hang_check_paused():
            blob = self.services.store.put(f"jobs/{self.claim.job_id}/blobs", path)
        return NewArtifact(kind, name, blob.key, blob.sha256, blob.size, media_type)

    def raise_if_stopped(self) -> None:
        """Raise the order to stop that a heartbeat has brought, if any."""
        if self._stop_order is not None:
            raise self._stop_order

    def commit(
        self, artifacts: Sequence[NewArtifact], also: Sequence[Callable[[Session], object]] = ()
    ) -> None:
        """Record what was made, with `also`, in one transaction; the shard has then succeeded.

        Waits while the database is away. Raises `Cancelled` or `LeaseLost`, and then recorded
        nothing.
        """

        def work(session: Session) -> None:
            shards.commit(session, self.claim, artifacts, report=self._report)
            for note in [*self._notes, *also]:
                note(session)

        began = time.monotonic()
        while not self._committed:
            self.raise_if_stopped()
            try:
                if not self._is_on_record():
                    self.services.database.transact(work)
                self._committed = True
            except Unreachable as error:  # whether it was committed is unknown: look again
                if self._shared.draining and time.monotonic() - began > DRAIN_PATIENCE_S:
                    raise
                log.warning("the commit waits: %s", error, extra={"shard": self.claim.shard_id})
                time.sleep(COMMIT_PAUSE_S)

    def _is_on_record(self) -> bool:
        with self.services.database.read() as session:
            return shards.outcome(session, self.claim) == "succeeded"

    @contextmanager
    def hang_check_paused(self) -> Iterator[None]:
        """A time without progress that is no hang: transfers, whose own timeouts bound them."""
        self._hang_check_pauses += 1
        try:
            yield
        finally:
            self._progress_at = time.monotonic()
            self._hang_check_pauses -= 1

    def _beat(self) -> None:
        while not self._ended.wait(min(self._lease_s / 4, MAX_BEAT_S)):
            if self._hangs():
                self._give_up()
                return
            try:
                self._renew()
            except Stopped as order:
                self._stop_order = order
                return
            except Unreachable as error:
                log.warning("no heartbeat: %s", error, extra={"shard": self.claim.shard_id})
            except GenmillError:
                log.exception("no heartbeat", extra={"shard": self.claim.shard_id})

    def _renew(self) -> None:
        with self._renewing:  # else two threads would write the same notes
            with self._notes_lock:
                notes, report, seq = self._notes[:], self._report, self._seq

            def work(session: Session) -> None:
                shards.renew(session, self.claim, lease_s=self._lease_s, seq=seq, progress=report)
                for note in notes:
                    note(session)

            self.services.database.transact(work)
            with self._notes_lock:
                del self._notes[: len(notes)]

    def _hangs(self) -> bool:
        return not self._hang_check_pauses and time.monotonic() - self._progress_at > self._hang_s

    def _give_up(self) -> None:
        reason = f"no progress for {self._hang_s:g} s: the worker was killed"
        log.error(reason, extra={"shard": self.claim.shard_id, "job": self.claim.job_id})
        try:
            fail(self.services, self.claim, reason, final=False)
        except GenmillError as error:
            log.warning("the hang was not recorded: %s", error)
        self._on_hang()

    def _note(self, note: Note) -> None:
        self.raise_if_stopped()
        with self._notes_lock:
            self._notes.append(note)

    def _transact(self, work: Note) -> None:
        self.raise_if_stopped()
        self.services.database.transact(work)

    @contextmanager
    def _warn_if_unreachable(self, what: str) -> Iterator[None]:
        try:
            yield
        except Unreachable as error:
            log.warning("%s was not stored: %s", what, error, extra={"job": self.claim.job_id})
            self.log(f"{what} was not stored: {error}", level="warning")


def fail(
    services: Services, claim: Claim, error: str, *, final: bool, also: Note = lambda _: None
) -> None:
    """Record a failure that is the work's own, and `also`. Raises `Cancelled` or `LeaseLost`."""

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

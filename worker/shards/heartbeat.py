"""The heartbeat of a worker process: one thread that renews all of its leases, in one transaction.

With it go the log lines and points that wait to be written. A lease whose work makes no progress is
not renewed: that work hangs.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

from sqlalchemy.orm import Session

from db import shards
from db.errors import Stopped, Unreachable
from db.interventions import TRAININGS, ending_early
from db.shards import Beat, Claim
from worker.failpoints import reach
from worker.isolation import Isolated, described
from worker.log import surviving
from worker.services import Services

log = logging.getLogger(__name__)

MAX_BEAT_S = 1.0  # a cancellation is noticed within this time, with up to 100 workers
# for work to stop after an order; with a beat, device work ends within 2 s of a cancellation
STOP_S = 0.75
LEAVE_S = 30.0  # for work that has heard the order, to store what a retry resumes from

Report = dict[str, Any]  # done, total, unit, eta_s, note; stages and warnings where there are any
Write = Callable[[Session], None]


@dataclass
class Held:
    """One claim in a worker's hands; `order` is why it must stop, once it must.

    The order is `heard` once it was raised where the work goes on. `ends_early`: the training is to
    end now, and to keep its best weights.
    """

    claim: Claim
    seq: int = 0
    report: Report | None = None
    pending: list[Write] = field(default_factory=list)  # log lines and points for the next write
    order: Stopped | None = None
    heard: bool = False
    ends_early: bool = False
    ended: bool = False

    @property
    def open(self) -> bool:
        """Whether the claim has neither ended nor been lost, as far as this worker knows."""
        return not self.ended and self.order is None


class Work(Protocol):
    """What holds a claim while it works."""

    held: Held

    @property
    def hangs(self) -> bool:
        """Whether it makes no progress; its claim is not renewed then."""

    def fail_as_hung(self) -> None:
        """Report that it hangs."""


class Heartbeat:
    """Renews the claims of the work in hand; its thread runs in the `with` block.

    `pause_s` turns the shortest pause into that of a fleet of this size. `on_hang` ends the
    process: nothing else stops a computation that does not return, or not soon enough.
    """

    def __init__(
        self,
        services: Services,
        owner: str,
        *,
        pause_s: Callable[[float], float],
        on_hang: Callable[[], None],
    ) -> None:
        self.services = services
        self._pause_s = pause_s
        self.owner = owner
        self._on_hang = on_hang
        # renewing and committing lock the same rows in different orders: one at a time
        self.writing = threading.Lock()
        self._work: Sequence[Work] = ()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
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

    @contextmanager
    def renewing(self, work: Sequence[Work]) -> Iterator[None]:
        """Renew their claims during the block, and a last time to write what is still pending."""
        self._work = work
        try:
            yield
        finally:
            self._work = ()
            with Isolated():  # the last lines of a log often tell why
                self.renew(work)

    def renew(self, work: Sequence[Work]) -> None:
        """Renew the claims now, and write what is pending for them. Raises `Unreachable`.

        What cannot be written for one claim is dropped, and keeps none from being renewed.
        """
        with self.writing:
            held = [each.held for each in work if each.held.open]
            if not held:
                return
            reach(self.services.settings, "beat")
            with Isolated() as together:
                self._write(held, [(each, each.pending[:]) for each in held])
            if together.error is None:
                return
            if isinstance(together.error, Unreachable) or not any(each.pending for each in held):
                raise together.error
            self._write(held, [(each, []) for each in held])
            for each in held:
                self._write_pending(each)

    def _write_pending(self, held: Held) -> None:
        """Write what is pending for one claim, one by one."""
        for write in held.pending[:] if held.open else ():
            with Isolated() as attempt:
                self._write([held], [(held, [write])])
            if isinstance(attempt.error, Unreachable):
                return  # next time
            if attempt.error is not None:
                del held.pending[:1]
                told = "a line or point of the job was not written: %s"
                log.warning(told, described(attempt.error), extra={"job": held.claim.job_id})

    def _write(self, held: Sequence[Held], pending: Sequence[tuple[Held, list[Write]]]) -> None:
        orders = self.services.database.transact(
            lambda session: self._renew(session, held, pending)
        )
        _note(pending, orders)
        self._pass_on_early_ends(held)
        if any(orders.values()):
            self._see_that_it_stops(self._work)

    def _pass_on_early_ends(self, held: Sequence[Held]) -> None:
        """Tell trainings that are to end early."""
        trainings = [each for each in held if each.open and each.claim.kind in TRAININGS]
        if trainings:
            with self.services.database.read() as session:
                early = ending_early(session, {each.claim.job_id for each in trainings})
            for each in trainings:
                each.ends_early |= each.claim.job_id in early

    def _see_that_it_stops(self, work: Sequence[Work], *, patience_s: float = LEAVE_S) -> None:
        """End the process if all of the work was told to stop and goes on after `STOP_S`.

        It may be in one long computation, which nothing else stops. Work that has heard the order
        has `patience_s` to leave.
        """

        def check() -> None:
            if self._work is not work or not _must_stop(work):
                return
            if _is_leaving(work) and patience_s > 0:
                self._see_that_it_stops(work, patience_s=patience_s - STOP_S)
                return
            log.warning("work that was told to stop goes on: the process ends")
            self._on_hang()

        timer = threading.Timer(STOP_S, check)
        timer.daemon = True
        timer.start()

    def _renew(
        self, session: Session, held: Sequence[Held], pending: Sequence[tuple[Held, list[Write]]]
    ) -> dict[str, Stopped | None]:
        """Renew in a transaction; by shard id, why those are over that were not renewed."""
        beats = {
            each.claim.shard_id: Beat(each.claim.fence, each.seq, each.report) for each in held
        }
        lease_s = self.services.settings.lease_s
        renewed = shards.renew_all(session, self.owner, beats, lease_s=lease_s)
        for each, writes in pending:
            if each.claim.shard_id in renewed:  # locked by the renewal, so they are fenced
                for write in writes:
                    write(session)
        lost = [each.claim for each in held if each.claim.shard_id not in renewed]
        won = shards.succeeded(session, lost)  # only our own commit ends a claim like this
        return {
            claim.shard_id: None if claim.shard_id in won else shards.over(session, claim)
            for claim in lost
        }

    def _run(self) -> None:
        pause_s = self._pause_s(MAX_BEAT_S)
        while not self._ended.wait(pause_s):
            # without a heartbeat the work would be lost with its lease
            with surviving(log, "no heartbeat"):
                self._beat()
                pause_s = self._pause_s(MAX_BEAT_S)

    def _beat(self) -> None:
        work = self._work
        hung = [each for each in work if each.hangs]
        if not hung:
            self.renew(work)
            return
        for each in hung:
            with surviving(log, "the failure was not recorded"):
                each.fail_as_hung()
        self._ended.set()
        self._on_hang()


def _note(pending: Sequence[tuple[Held, list[Write]]], orders: dict[str, Stopped | None]) -> None:
    for each, written in pending:
        if each.claim.shard_id not in orders:
            del each.pending[: len(written)]
        else:
            each.order = orders[each.claim.shard_id]


def _must_stop(work: Sequence[Work]) -> bool:
    """Whether an order to stop was given, and nothing is left to work on."""
    held = [each.held for each in work]
    return any(each.order for each in held) and not any(each.open for each in held)


def _is_leaving(work: Sequence[Work]) -> bool:
    """Whether all that was told to stop has heard it, so that no computation goes on."""
    return all(each.held.heard for each in work if each.held.order)

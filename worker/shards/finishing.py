"""Finishing jobs beside the next claim's work: settling, manifests, success.

A job that is not finished here, because the worker dies or a service is away, is finished by the
scheduler.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from db.errors import GenmillError
from db.shards import Claim
from worker.services import Services
from worker.services.finalize import finalize, settle_complete

log = logging.getLogger(__name__)


class Finisher:
    """A thread that finishes jobs; the end of the `with` block waits for it."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._thread = ThreadPoolExecutor(1, "finisher")
        self._last: Future[None] | None = None

    def __enter__(self) -> "Finisher":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True)

    def finish(self, done: Sequence[Claim]) -> None:
        """Finish the jobs whose last shards these were; waits for those of the call before."""
        if self._last is not None:
            self._last.result()
        if done:
            self._last = self._thread.submit(self._finish, done)

    def _finish(self, done: Sequence[Claim]) -> None:
        whole = [claim.job_id for claim in done if claim.alone]
        others = {claim.job_id for claim in done if not claim.alone}
        try:
            ready = settle_complete(self._services, sorted(others)) if others else []
            finalize(self._services, [*whole, *ready])
        except GenmillError as error:
            log.warning("left to the scheduler: %s", error)
        except BaseException:  # the shards have succeeded: not even a panic is their failure
            log.exception("left to the scheduler")

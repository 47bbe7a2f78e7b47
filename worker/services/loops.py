"""Loops over jobs, schedules and the like, of which none that fails stops the others.

What fails, in whatever way, is recorded as a setback (`db.setbacks`) and in its job's log, and is
left alone for a pause that doubles each time. Where that can be done, a job is given up that fails
too often, or in a way that will be the same tomorrow.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from db import setbacks
from db.causes import Cause, cause_of, is_outage
from db.errors import GenmillError
from db.setbacks import Failure
from db.tables import Setback
from worker.isolation import PATIENCE_S, Isolated, described
from worker.services.connections import Services

R = TypeVar("R")
log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 300.0
LONGEST_OUTAGE_PAUSE_S = 30.0  # for a service that is away: it works for all again once it is back
MAX_TRIES = 10
SHOWN = 3  # items in a line of the log, and lines

GiveUp = Callable[[str, str], object]  # takes the item and the reason


class Loop:
    """One pass over items, each known by a text; the end of the `with` block records what failed.

    With `give_up`, an item that fails in a way that will be the same tomorrow, or `max_tries` times
    for reasons of its own, is given up. With `first_time`, no item has been tried before, and no
    setback is looked for. Once `within_s` have passed, the rest is left to the next pass.
    """

    def __init__(
        self,
        services: Services,
        name: str,
        *,
        give_up: GiveUp | None = None,
        max_tries: int | None = None,
        first_time: bool = False,
        within_s: float = PATIENCE_S,
    ) -> None:
        self.services = services
        self._name = name
        self._give_up = give_up
        self._max_tries = max_tries or MAX_TRIES
        self._first_time = first_time
        self._deadline = time.monotonic() + within_s
        self._failed: dict[str, BaseException] = {}
        self._given_up: Collection[str] = ()
        self._done: set[str] = set()
        # no `cached_property`: on Python 3.11, passes in other threads would wait for its lock
        self._setbacks: dict[str, Setback] | None = None
        self._paused: frozenset[str] | None = None

    @property
    def _known(self) -> dict[str, Setback]:
        if self._setbacks is None:
            with self.services.database.read() as session:
                self._setbacks = setbacks.known(session, self._name)
        return self._setbacks

    @property
    def paused(self) -> frozenset[str]:
        """The items that are not to be tried yet."""
        if self._first_time or not self._known:
            return frozenset()
        if self._paused is None:
            with self.services.database.read() as session:
                self._paused = setbacks.paused(session, self._name)
        return self._paused

    @property
    def is_over(self) -> bool:
        """Whether the time of this pass has passed."""
        return time.monotonic() > self._deadline

    def each(self, items: Iterable[str], act: Callable[[str], R]) -> list[R]:
        """The results of `act` on each item, but for those that are paused or fail."""
        results: list[R] = []

        def keep_result(item: str) -> None:
            results.append(act(item))

        for item in items:
            if self.is_over:
                break
            if item not in self.paused:
                self.attempt(item, partial(keep_result, item))
        return results

    def together(self, items: Sequence[str], act: Callable[[list[str]], list[R]]) -> list[R]:
        """The results of `act` on all items at once or, if that fails, on each alone."""
        todo = [item for item in items if item not in self.paused]
        if len(todo) > 1:
            with Isolated():
                results = act(todo)
                self._done.update(todo)
                return results
        return [result for found in self.each(todo, lambda item: act([item])) for result in found]

    def attempt(self, item: str, act: Callable[[], object]) -> None:
        """Do `act` for an item, even if it is paused."""
        with Isolated() as attempt:
            act()
            self._done.add(item)
        if attempt.error is not None:
            self._failed[item] = attempt.error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with Isolated() as attempt:
            if self._failed or (self._done and not self._first_time):
                self._leave_out_told()
                self._record()
        self._log()
        if attempt.error is not None and self._failed:
            log.warning("setbacks were not recorded: %s", described(attempt.error))

    def _leave_out_told(self) -> None:
        """What was tried during its pause, and failed as before, is neither recorded nor logged."""
        for item in self._failed.keys() & self.paused:
            if self._known[item].error == described(self._failed[item]):
                del self._failed[item]

    def _record(self) -> None:
        failures = {
            item: self._failure(error)
            for item, error in self._failed.items()
            if not self._is_given_up(item, error)
        }
        self._given_up = self._failed.keys() - failures.keys()
        transact = self.services.database.transact
        if failures:
            transact(partial(setbacks.note, loop=self._name, failures=failures))
        ended = (self._done | self._failed.keys()) - failures.keys()
        if mended := ended & self._known.keys():
            transact(partial(setbacks.clear, loop=self._name, items=mended))

    def _failure(self, error: BaseException) -> Failure:
        away = is_outage(error)
        longest_s = LONGEST_OUTAGE_PAUSE_S if away else LONGEST_PAUSE_S
        return Failure(described(error), not away, self.services.settings.loop_s, longest_s)

    def _is_given_up(self, item: str, error: BaseException) -> bool:
        tries = self._known[item].times + 1 if item in self._known else 1
        is_lasting = isinstance(error, GenmillError) and error.lasting
        is_final = cause_of(error) is Cause.WORK and is_lasting
        is_last = tries >= self._max_tries and not is_outage(error)
        if self._give_up is None or not (is_final or is_last):
            return False
        with Isolated() as attempt:
            self._give_up(item, described(error))
        return attempt.error is None

    def _log(self) -> None:
        """Write a line for each reason, with the traceback of an unexpected error that is new."""
        reasons = defaultdict(list)
        for item, error in self._failed.items():
            fate = "given up" if item in self._given_up else "tried again"
            reasons[described(error), fate].append(item)
        before = self._setbacks or {}  # empty without a database
        for (reason, fate), items in [*reasons.items()][:SHOWN]:
            error, last = self._failed[items[0]], before.get(items[0])
            is_known = isinstance(error, GenmillError) or (last and last.error == reason)
            shown = ", ".join(items[:SHOWN]) + (", ..." if len(items) > SHOWN else "")
            text = "%s failed for %s, and is %s: %s"
            log.warning(text, self._name, shown, fate, reason, exc_info=None if is_known else error)
        if len(reasons) > SHOWN:
            log.warning("%s failed for %d other reasons", self._name, len(reasons) - SHOWN)

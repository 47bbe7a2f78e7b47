"""Deliveries: items on their way to a target, a few at once, each through the same steps.

begin (record) -> read and verify -> put -> fetch back and compare -> record. An item that fails a
check is refused: it is taken down if it may be at the target, and recorded with its reason. A
published item whose repair the target refuses stays published if its own file is as it was. An
error of the target or of a service stops none of the others; it is raised once they are recorded.

An item that another job has published is compared with what is at the target, and takes these steps
only if it is missing or altered there. One that cannot be compared stays as it is.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from db import publications
from db.errors import BadInput, GenmillError, NotFound
from db.lineage import Descent
from db.publications import ALTERED, BEGUN, MISSING, PUBLISHED, Begun, Outcome
from db.published import UNCHANGED
from db.tables import Target as Row
from worker.failpoints import reach
from worker.publishing.base import (
    AnyTarget,
    Delivery,
    Item,
    ItemRefused,
    NotTaken,
    Obstructed,
    Presence,
    Record,
    TargetAway,
)
from worker.services import Services
from worker.services.publishable import Publishable, Source
from worker.shards.lease import Lease
from worker.shards.transfers import in_threads, never_missing, tried, wait_for_turn

T = TypeVar("T")

_REASONS = {Presence.MISSING: MISSING, Presence.ALTERED: ALTERED}  # to put an item again


@dataclass(eq=False)
class _Work:
    """An item on its way, and how far it has come."""

    each: Publishable
    item: Item
    was: str | None  # as in `Begun`
    repairs: bool = False  # as there, and once a published item is begun again
    data: bytes = b""
    record: Record = field(default_factory=dict)
    found: Presence | None = None  # at the target, if it was compared
    remote_id: str | None = None
    verified: bool | None = None
    refused: str | None = None
    unrepaired: str | None = None  # why, of a published item that stays
    error: Exception | None = None

    @property
    def is_open(self) -> bool:
        return self.refused is None and self.error is None

    @property
    def delivery(self) -> Delivery:
        return Delivery(self.item, self.data, self.record)


class Deliveries:
    """Puts items of a source at a target, for one claim."""

    def __init__(
        self,
        services: Services,
        lease: Lease,
        row: Row,
        target: AnyTarget,
        source: Source,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._services, self._lease, self._row = services, lease, row
        self._target, self._source, self._pool = target, source, pool
        self.unchanged = 0  # items that other jobs have published and that are there as they should
        self.not_compared = 0  # and those of which that cannot be told

    def publish(
        self, some: Sequence[Publishable], made: Descent, *, expires_after_s: float | None = None
    ) -> None:
        """Publish some items, as far as they are not at the target; `made` is their model.

        Raises the first error that is no single item's fault, once the others are recorded.
        """
        begun = {each.item: each for each in self._begin(some, expires_after_s)}
        works = [_work(each, begun[each.new.item], made) for each in some if each.new.item in begun]
        reach(self._services.settings, "publication_begun")
        before = [work for work in works if work.was == PUBLISHED]
        going = [work for work in works if work.was != PUBLISHED]
        going += self._to_repair(before) if before else []
        self._each(self._read, [work for work in going if work.found is None])
        self._each(self._look, going)
        self._put_all(going) if self._target.batched else self._each(self._put, going)
        self._each(self._verify, going)
        self._each(self._withdraw, going, refused=True)
        self._undo(going, self._record(going, expires_after_s))
        reach(self._services.settings, "publication_recorded")
        for work in works:
            if work.error is not None:
                raise work.error

    def _begin(self, some: Sequence[Publishable], expires_after_s: float | None) -> list[Begun]:
        begin = partial(
            publications.begin,
            claim=self._lease.claim,
            target=self._row,
            items=[each.new for each in some],
            expires_after_s=expires_after_s,
        )
        return self._services.database.transact(begin)

    def _to_repair(self, before: Sequence[_Work]) -> list[_Work]:
        """Those of the items, published before, that are missing or altered, recorded as begun."""
        if not self._target.gives_back:
            self.not_compared += len(before)
            return []
        self._each(self._read, before)
        self._each(self._compare, before)
        for work in before:
            if work.refused is not None:
                self.not_compared += 1
                told = f"{work.item.key} was published before, and cannot be compared"
                self._lease.log(f"{told}: {work.refused}", level="warning")
        self.unchanged += sum(work.found is Presence.UNCHANGED for work in before)
        self._lease.count(UNCHANGED, self.unchanged)
        reasons = {w.item.key: _REASONS[w.found] for w in before if w.found in _REASONS}
        if not reasons:
            return []
        repair = partial(
            publications.begin_repair, claim=self._lease.claim, target=self._row, reasons=reasons
        )
        begun = self._services.database.transact(repair)
        repaired = [work for work in before if work.item.key in begun]
        for work in repaired:
            work.repairs = True
        return repaired

    def _each(
        self, step: Callable[[_Work], None], works: Sequence[_Work], *, refused: bool = False
    ) -> None:
        """Take a step with each item that is still open, or was refused; errors stay with it."""

        def guarded(work: _Work) -> None:
            try:
                self._lease.raise_if_stopped()
                step(work)
            except (ItemRefused, BadInput) as error:
                work.refused = str(error)
            except Exception as error:
                work.error = error

        wanted = [w for w in works if (w.refused is not None if refused else w.is_open)]
        in_threads(self._pool, self._lease, guarded, wanted)

    def _read(self, work: _Work) -> None:
        work.data, work.record = self._source.read(work.each)

    def _compare(self, work: _Work) -> None:
        work.found = self._tried(partial(self._target.compare, work.delivery))

    def _look(self, work: _Work) -> None:
        """See where an item is that an attempt has put, whole, before it was broken off."""
        if work.was == BEGUN and self._target.gives_back:
            self._compare(work)
            if work.found is Presence.UNCHANGED:
                work.remote_id = self._target.locate(work.item)

    def _put(self, work: _Work) -> None:
        if work.remote_id is not None:
            return
        self._wait_for_turn(1)
        put = never_missing(partial(self._put_once, work), self._target)
        work.remote_id = self._tried(put)
        reach(self._services.settings, "publication_put")

    def _put_once(self, work: _Work) -> str:
        try:
            return self._target.put(work.item, work.data, work.record)
        except NotTaken:
            raise
        except GenmillError as error:
            work.remote_id = self._target.locate(work.item)  # some of it may be there
            if isinstance(error, Obstructed):
                raise ItemRefused(error.message, remedy=error.remedy) from error
            raise

    def _put_all(self, works: Sequence[_Work]) -> None:
        wanted = [work for work in works if work.is_open and work.remote_id is None]
        if not wanted:
            return
        self._wait_for_turn(len(wanted))
        deliveries = [work.delivery for work in wanted]
        for work in wanted:
            work.remote_id = self._target.locate(work.item)
        try:
            results = self._tried(partial(self._target.put_all, deliveries))
        except GenmillError as error:
            results = [error] * len(wanted)
        for work, result in zip(wanted, results, strict=True):
            if isinstance(result, ItemRefused):
                work.refused = str(result)
            elif isinstance(result, Exception):
                work.error = result
            else:
                work.remote_id = result
        reach(self._services.settings, "publication_put")

    def _verify(self, work: _Work) -> None:
        """Fetch the item back: it must have the digest of the sample whose marks were verified."""
        if not self._target.gives_back:
            return
        fetch = never_missing(partial(self._target.fetch, str(work.remote_id)), self._target)
        found = hashlib.sha256(self._tried(fetch)).hexdigest()
        reach(self._services.settings, "publication_fetched")
        if found != work.item.sha256:
            raise ItemRefused(f"the target gives back other bytes, with SHA-256 {found}")
        work.verified = True

    def _withdraw(self, work: _Work) -> None:
        """Take down a refused item that may be at the target; it stays begun until then."""
        if work.repairs and self._is_whole(work):
            work.unrepaired, work.refused = f"it was not repaired: {work.refused}", None
            work.remote_id, work.verified = self._target.locate(work.item), True
            told = f"{work.item.key} stays published, though {work.unrepaired}"
            self._lease.log(told, level="warning")
        elif work.was is not None or work.remote_id is not None:
            place = work.remote_id or self._target.locate(work.item)
            try:
                self._tried(partial(self._target.take_down, place))
            except ItemRefused as error:
                told = f"{work.refused}, and it cannot be taken down: {error.message}"
                raise TargetAway(told, remedy=error.remedy) from error

    def _is_whole(self, work: _Work) -> bool:
        """Whether the item's own file is at the target as it should be, if it passed its checks."""
        if not work.data:  # it was not read: a check of ours refused it
            return False
        try:
            found = self._tried(partial(self._target.fetch, self._target.locate(work.item)))
        except NotFound:
            return False
        return hashlib.sha256(found).hexdigest() == work.item.sha256

    def _record(self, works: Sequence[_Work], expires_after_s: float | None) -> set[str]:
        """Record what became of items that are still this attempt's; their keys."""
        outcomes = [
            Outcome(work.item.key, work.remote_id, work.verified, work.refused, work.unrepaired)
            for work in works
            if work.error is None
        ]
        record = partial(
            publications.record,
            claim=self._lease.claim,
            target=self._row,
            outcomes=outcomes,
            expires_after_s=expires_after_s,
        )
        done = self._services.database.transact(record) if outcomes else []
        return {each.item for each in done}

    def _undo(self, works: Sequence[_Work], recorded: set[str]) -> None:
        """Take down what was put although it had been taken down meanwhile, by the record.

        An attempt does that too whose job was cancelled, or which lost its lease.
        """
        late = [work for work in works if work.refused is None and work.remote_id is not None]
        places = {each.item.key: str(each.remote_id) for each in late}
        items = places.keys() - recorded
        if not items:
            return
        database, claim = self._services.database, self._lease.claim
        reopen = partial(publications.reopen, claim=claim, target=self._row, items=items)
        if rows := database.transact(reopen):
            for row in rows:
                self._tried(partial(self._target.take_down, places[row.item]))
            self._tried(self._target.finish)
            database.transact(partial(publications.take_down, claim=claim, rows=rows))

    def _wait_for_turn(self, items: int) -> None:
        wait_for_turn(self._services, self._lease, self._row, self._target, items)

    def _tried(self, act: Callable[[], T]) -> T:
        return tried(self._target, self._lease, act)


def item_of(row: Any, event: str, made: Descent | None = None) -> Item:
    """The item of a publication, or of one that is about to be."""
    return Item(
        row.item,
        event,
        row.sha256,
        row.media_type,
        job=row.job_id,
        sample=row.sample,
        model=made and made.reference,
        marks=row.marks,
        dataset=made and made.dataset,
    )


def _work(each: Publishable, begun: Begun, made: Descent) -> _Work:
    return _Work(each, item_of(each.new, begun.event, made), begun.was, begun.repairs)

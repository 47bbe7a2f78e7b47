"""Shards of publish jobs: ranges of items that are put at a target, or taken down there.

Items are handled a few at a time. They are on record before they are put (`db.publications`), and
what became of each is recorded as soon as it is there and was given back with the same digest. A
worker that takes the shard over goes on with what is not recorded; put again, an item is one. What
other jobs have published is compared with what is there, and repaired.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from db import audit_trail, lineage, publications, published, targets
from db.errors import Cancelled, NotSupportedHere, Refused, Unreachable
from db.jobs import JobBrief
from db.publications import ALTERED, MISSING, PUBLISHED, REFUSED, TAKEN_DOWN, THERE
from db.tables import Publication
from db.tables import Target as Row
from worker.failpoints import reach
from worker.files import canonical_json
from worker.identity import who
from worker.keys.keyring import public_keyring
from worker.publishing import open_target
from worker.publishing.base import AnyTarget, TargetAway
from worker.services import Services
from worker.services.pinned import PinnedPublication
from worker.services.publishable import open_source
from worker.shards.chosen_items import chosen
from worker.shards.context import ShardResult, WorkerContext
from worker.shards.deliveries import Deliveries, item_of
from worker.shards.lease import Lease, hang_checks_paused
from worker.shards.transfers import in_threads, tried, wait_for_turn

NAMED = 20  # refused items that the job's log names
BYTES_AT_ONCE = 256 << 20  # of items that are held in memory together

T = TypeVar("T")


def publish_job(
    context: WorkerContext, job: JobBrief, pinned: PinnedPublication, lease: Lease, folder: Path
) -> ShardResult:
    """Publish a range of items, or take them down; the caller commits the report.

    Raises `TargetAway` if the target cannot be used: what is there by then is on record.
    """
    services = context.services
    with services.database.read() as session:
        row = targets.get(session, pinned.spec.target)
    with _opened(row) as target:
        _show_keys(services, target)
        shard, compared = _Shard(services, pinned, lease, row, target), (0, 0)
        try:
            if pinned.spec.take_down:
                shard.take_down()
            else:
                compared = shard.publish(context, folder)
        except Cancelled:  # nobody goes on: what is there by now shall be told rightly
            with hang_checks_paused([lease]), suppress(Unreachable):
                _show_keys(services, target)
                target.finish()
            raise
        changed = shard.changed
        if lease.claim.idx == 0 or changed:
            places = [each.remote_id for each in changed if each.remote_id]
            _show_keys(services, target)
            with hang_checks_paused([lease]):
                tried(target, lease, partial(target.finish, places))
        reach(services.settings, "publication_finished")
    report = shard.report(*compared)
    path = folder / f"publication-{lease.claim.idx:06d}.json"
    path.write_bytes(canonical_json(report))
    write = partial(_note, by=job, report=report)
    return ShardResult([lease.put("report", path.name, path, "application/json")], [write])


def _opened(row: Row) -> AnyTarget:
    """The target, opened.

    Raises `NotSupportedHere` for what this worker refuses: its Genmill is another than that which
    took the target's settings, or its secrets are.
    """
    try:
        target = open_target(row.kind, row.settings, row.secrets)
        target.open()
    except Refused as error:
        raise NotSupportedHere(
            f"this worker cannot open target {row.name!r}: {error.message}", remedy=error.remedy
        ) from error
    return target


def _show_keys(services: Services, target: AnyTarget) -> None:
    """Give the target the keys as they are now: one may be revoked while the job runs."""
    if target.shows_keys:
        with services.database.read() as session:
            target.keys = public_keyring(session)


@dataclass(frozen=True)
class _Shard:
    """A range of items, and the target where they go or from which they are taken."""

    services: Services
    pinned: PinnedPublication
    lease: Lease
    row: Row
    target: AnyTarget

    @property
    def part(self) -> range:
        return range(self.lease.claim.start, self.lease.claim.stop)

    def publish(self, context: WorkerContext, folder: Path) -> tuple[int, int]:
        """Publish what is not at the target, of the items that meet the job's rules.

        Returns how many had been published before and are unchanged, and of how many it cannot be
        told how they are.
        """
        self._wait_for_others()
        services, lease, target = self.services, self.lease, self.target
        source, spec = open_source(services, self.pinned, target.settings.marks), self.pinned.spec
        with services.database.read() as session:
            made = lineage.describe(session, self.pinned.version)
        with ThreadPoolExecutor(target.settings.concurrency, "publishing") as pool:
            deliveries = Deliveries(services, lease, self.row, target, source, pool)
            items = chosen(context, self.pinned, source, source.items(self.part), lease, folder)
            for some in self._chunks(items, len(self.part), lambda each: each.new.size):
                with hang_checks_paused([lease]):
                    deliveries.publish(some, made, expires_after_s=spec.expires_after_s)
        return deliveries.unchanged, deliveries.not_compared

    def take_down(self) -> None:
        """Take down what is, or may be, at the target."""
        claim = self.lease.claim
        with ThreadPoolExecutor(self.target.settings.concurrency, "publishing") as pool:
            while found := self._there():
                for some in self._chunks(found, len(found)):
                    with hang_checks_paused([self.lease]):
                        steps = [some] if self.target.batched else [[each] for each in some]
                        in_threads(pool, self.lease, self._remove, steps)
                        reach(self.services.settings, "publication_removed")
                        record = partial(publications.take_down, claim=claim, rows=some)
                        self.services.database.transact(record)

    @property
    def changed(self) -> Sequence[Publication]:
        """What the job has changed of the shard's at the target, in any attempt."""
        mine = self.lease.claim.job_id
        return [each for each in self._on_record() if each.by_job_id == mine]

    def report(self, unchanged: int, not_compared: int) -> dict[str, Any]:
        """What became of the items, by the record; refused ones are named in the job's log."""
        states = defaultdict[str, list[Publication]](list)
        for each in self._on_record():
            if each.by_job_id == self.lease.claim.job_id:
                states[each.state].append(each)
        refused, published = states[REFUSED], states[PUBLISHED]
        self._tell(refused)
        why = Counter(each.reason for each in published)
        again = {"repaired": why[ALTERED], "put_back": why[MISSING]}
        self._tell_compared({"unchanged": unchanged, **again}, not_compared)
        lines = [f"{each.item} {each.sha256}\n" for each in published]
        return {
            "target": self.row.name,
            "job": self.pinned.spec.job,
            "model": self.pinned.spec.model,
            "published": len(lines),
            **again,
            "unchanged": unchanged,
            "not_compared": not_compared,
            "taken_down": len(states[TAKEN_DOWN]),
            "refused": [{"item": each.item, "reason": each.reason} for each in refused],
            "published_sha256": hashlib.sha256("".join(lines).encode()).hexdigest(),
        }

    def _there(self) -> Sequence[Publication]:
        """What is to be taken down, and may be at the target."""
        self._wait_for_others()
        on_record = self._on_record(expired=self.pinned.spec.expired)
        return [each for each in on_record if each.state in THERE]

    def _wait_for_others(self) -> None:
        """Pause while an older job publishes here what this one does, or takes it down.

        A job that takes down waits for none that does so too.
        """
        spec = self.pinned.spec
        with self.services.database.read() as session:
            older = published.going(
                session,
                take_down=False if spec.take_down else None,
                before=self.lease.claim.job_id,
                target=spec.target,
                reference=spec.job or spec.model,
            )
        if older:
            does = "takes it down" if older[0].takes_down else "publishes"
            raise TargetAway(
                f"job {older[0].by_job_id} {does} at {spec.target!r}", remedy="cancel it, or wait"
            )

    def _on_record(self, *, expired: bool = False) -> list[Publication]:
        spec = self.pinned.spec
        version_id = None if spec.job else self.pinned.version.id
        with self.services.database.read() as session:
            return publications.of_part(
                session,
                self.row.id,
                job_id=spec.job,
                version_id=version_id,
                part=self.part,
                expired=expired,
            )

    def _remove(self, some: Sequence[Publication]) -> None:
        target = self.target
        places = [each.remote_id or target.locate(item_of(each, each.event_id)) for each in some]
        wait_for_turn(self.services, self.lease, self.row, target, len(some))
        tried(target, self.lease, partial(target.take_down_all, places))

    def _chunks(
        self, items: Iterable[T], total: int, size_of: Callable[[T], int] = lambda _: 0
    ) -> Iterator[Sequence[T]]:
        """Items, as many as are put at once; reports progress before each chunk."""
        done, most = 0, 2 * self.target.settings.concurrency
        for some in chunks(items, most, size_of):
            self.lease.progress(done, max(total, done + 1), "items")
            yield some
            done += len(some)
        self.lease.progress(total, total, "items")

    def _tell_compared(self, found: Mapping[str, int], not_compared: int) -> None:
        """Tell of items that had been published before."""
        if any(found.values()):
            counted = ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in found.items())
            level = "warning" if found["repaired"] or found["put_back"] else "info"
            self.lease.log(f"of what was published before: {counted}", level=level)
        if not_compared and not self.target.gives_back:
            told = f"{not_compared:,} items were published before: {self.target} cannot tell how "
            self.lease.log(f"{told}they are; to send them again, take them down first")

    def _tell(self, refused: Sequence[Publication]) -> None:
        for each in refused[:NAMED]:
            self.lease.log(f"{each.item} was not published: {each.reason}", level="warning")
        if refused:
            told = f"{len(refused):,} items were not published: see `genmill publications list`"
            self.lease.warn(told)


def chunks(
    items: Iterable[T], most: int, size_of: Callable[[T], int], at_once: int = BYTES_AT_ONCE
) -> Iterator[list[T]]:
    """Items in lists of at most so many, and of so many bytes; larger items each by themselves."""
    some, total = list[T](), 0
    for each in items:
        size = size_of(each)
        if some and (len(some) == most or total + size > at_once):
            yield some
            some, total = [], 0
        some.append(each)
        total += size
    if some:
        yield some


def _note(session: Session, by: JobBrief, report: dict[str, Any]) -> None:
    """Enter into the audit trail what was published, with a digest over its items and theirs.

    It was published by who enqueued the job.
    """
    subject = report["job"] or report["model"]
    kept = ("target", "published", "repaired", "put_back", "taken_down", "published_sha256")
    detail = {"by_job": by.id, "refused": len(report["refused"])}
    detail |= {name: report[name] for name in kept}
    for action in ("published", "taken_down"):
        if report[action]:
            audit_trail.note(session, by.owner or who(), action.replace("_", " "), subject, detail)

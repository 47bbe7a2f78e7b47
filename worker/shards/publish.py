"""Shards of publish jobs: ranges of items that are put at a target, or taken down there.

Items are handled a few at a time. They are on record before they are put (`db.publications`), and
what became of each is recorded as soon as it is there and was given back with the same digest. A
worker that takes the shard over goes on with what is not recorded; put again, an item is one.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from db import audit_trail, lineage, publications, retention, targets
from db.jobs import JobBrief
from db.tables import Publication
from db.tables import Target as Row
from worker.failpoints import reach
from worker.files import canonical_json
from worker.identity import who
from worker.publishing import open_target
from worker.publishing.base import AnyTarget
from worker.services.pinned import PinnedPublication
from worker.services.publishable import open_source
from worker.shards.chosen_items import chosen
from worker.shards.context import ShardResult, WorkerContext
from worker.shards.deliveries import Deliveries, Tally, in_threads, item_of, tried, wait_for_turn
from worker.shards.lease import Lease, hang_checks_paused

NAMED = 20  # refused items that the job's log names

T = TypeVar("T")


def publish_job(
    context: WorkerContext, job: JobBrief, pinned: PinnedPublication, lease: Lease, folder: Path
) -> ShardResult:
    """Publish a range of items, or take them down; the caller commits the report.

    Raises `TargetAway` if the target cannot be used: what is there by then is on record.
    """
    services, spec, tally = context.services, pinned.spec, Tally()
    with services.database.read() as session:
        row = targets.get(session, spec.target)
    with open_target(row.kind, row.settings, row.secrets) as target:
        act = _take_down if spec.take_down else _publish
        act(context, pinned, lease, row, target, tally, folder)
        _tell(lease, tally)
        with hang_checks_paused([lease]):
            tried(target, lease, target.finish)
        reach(services.settings, "publication_finished")
    report = tally.report(target=row.name, job=spec.job, model=spec.model)
    path = folder / f"publication-{lease.claim.idx:06d}.json"
    path.write_bytes(canonical_json(report))
    write = partial(_note, subject=spec.job or spec.model, detail=_brief(report, job.id))
    return ShardResult([lease.put("report", path.name, path, "application/json")], [write])


def _publish(
    context: WorkerContext,
    pinned: PinnedPublication,
    lease: Lease,
    row: Row,
    target: AnyTarget,
    tally: Tally,
    folder: Path,
) -> None:
    source = open_source(context.services, pinned, target.settings.marks)
    with context.services.database.read() as session:
        made = lineage.describe(session, pinned.version)
    part = range(lease.claim.start, lease.claim.stop)
    with ThreadPoolExecutor(target.settings.concurrency, "publishing") as pool:
        deliveries = Deliveries(context.services, lease, row, target, source, pool, tally)
        wanted = chosen(context, pinned, source, source.items(part), lease, folder)
        for some in _chunks(lease, wanted, len(part), target):
            with hang_checks_paused([lease]):
                deliveries.publish(some, made, expires_after_s=pinned.spec.expires_after_s)


def _take_down(
    context: WorkerContext,
    pinned: PinnedPublication,
    lease: Lease,
    row: Row,
    target: AnyTarget,
    tally: Tally,
    _: Path,
) -> None:
    services, version_id = context.services, None if pinned.spec.job else pinned.version.id
    part = range(lease.claim.start, lease.claim.stop)
    with services.database.read() as session:
        found = publications.there(
            session,
            row.id,
            job_id=pinned.spec.job,
            version_id=version_id,
            part=part,
            expired=pinned.spec.expired,
        )

    def record(session: Session, ids: list[str]) -> int:
        if pinned.spec.job:
            retention.look_again(session, [pinned.spec.job])
        return publications.take_down(session, lease.claim, ids)

    def remove(each: Publication) -> None:
        place = each.remote_id or target.locate(item_of(each, each.event_id))
        wait_for_turn(services, lease, row, target, 1)
        tried(target, lease, partial(target.take_down, place))

    with ThreadPoolExecutor(target.settings.concurrency, "publishing") as pool:
        for some in _chunks(lease, found, len(found), target):
            with hang_checks_paused([lease]):
                in_threads(pool, lease, remove, some)
                reach(services.settings, "publication_removed")
                ids = [each.id for each in some]
                tally.taken_down += services.database.transact(partial(record, ids=ids))


def _chunks(
    lease: Lease, items: Iterable[T], total: int, target: AnyTarget
) -> Iterator[Sequence[T]]:
    """Items, as many as are put at once; reports progress before each."""
    done, waiting = 0, iter(items)
    while some := list(islice(waiting, 2 * target.settings.concurrency)):
        lease.progress(done, max(total, done + 1), "items")
        yield some
        done += len(some)
    lease.progress(total, total, "items")


def _tell(lease: Lease, tally: Tally) -> None:
    """Name refused items in the job's log, and say beside the progress that there are some."""
    if not tally.refused:
        return
    for item, reason in islice(tally.refused.items(), NAMED):
        lease.log(f"{item} was not published: {reason}", level="warning")
    lease.warn(f"{len(tally.refused):,} items were not published: see `genmill publications list`")


def _brief(report: dict[str, Any], job_id: str) -> dict[str, Any]:
    """What the audit trail keeps of a shard's report."""
    kept = ("target", "published", "taken_down", "items_sha256")
    refused = len(report["refused"])
    return {"by_job": job_id, "refused": refused} | {name: report[name] for name in kept}


def _note(session: Session, subject: str, detail: dict[str, Any]) -> None:
    action = "taken down" if detail["taken_down"] else "published"
    if detail["taken_down"] or detail["published"]:
        audit_trail.note(session, who(), action, subject, detail)

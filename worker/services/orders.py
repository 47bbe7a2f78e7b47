"""Ending orders of accepted samples: select, or add shards, or fail with the counts."""

import math
from functools import partial

from db import jobs, orders
from db.commits import NewArtifact, blob_prefix
from db.errors import DigestMismatch
from db.orders import Order
from db.tables import Job
from worker.acceptance import TRIES
from worker.services.connections import Services
from worker.services.samples import open_artifact, require_digest
from worker.services.verdicts import Selection, Verdicts, select

SURPLUS = 1.1  # made for each further one that is expected to be needed
SMALLEST = 16  # samples that are added at once, at least
FILE = "selection.jsonl"


def settle_orders(services: Services, job_ids: list[str]) -> list[str]:
    """Those of these finalizing jobs that can be finished now.

    An order with enough accepted samples gets its selection; another one gets further shards, or
    fails if it has made all it may. Raises as the store does.
    """
    with services.database.read() as session:
        found = orders.open_orders(session, job_ids)
    left_out = {order.job_id for order in found if not _settle(services, order)}
    return [job_id for job_id in job_ids if job_id not in left_out]


def read_selection(services: Services, job: Job) -> frozenset[int] | None:
    """The numbers of an order's accepted samples; None if every sample of the job counts.

    Raises as the store does, and `DigestMismatch`.
    """
    if job.wanted is None:
        return None
    with services.database.read() as session:
        artifact = orders.selection(session, job.id)
    if artifact is None:
        return frozenset()
    with open_artifact(services, artifact) as file:
        data = file.read()
    require_digest(f"artifact {artifact.id}", data, artifact.sha256)
    lines = data.decode().splitlines()
    return frozenset(index for index, line in enumerate(lines) if '"accepted": true' in line)


def _settle(services: Services, order: Order) -> bool:
    """Whether the order can be finished."""
    selection = select(_verdicts(services, order), order.wanted)
    have = len(selection.accepted)
    if have == order.wanted:
        _store(services, order, selection)
        return True
    most = order.wanted * int(order.spec["accept"].get("tries") or TRIES)
    if order.made >= most:
        reason = _too_few(selection, order, have)
        services.database.transact(partial(jobs.fail, job_id=order.job_id, reason=reason))
        return False
    ranges = _further(services, order, have, most)
    services.database.transact(
        partial(orders.extend, job_id=order.job_id, made=order.made, ranges=ranges)
    )
    return False


def _verdicts(services: Services, order: Order) -> list[Verdicts]:
    with services.database.read() as session:
        stored = orders.verdicts(session, order.job_id)
    found = []
    for artifact in stored:
        with open_artifact(services, artifact) as file:
            data = file.read()
        require_digest(f"artifact {artifact.id}", data, artifact.sha256)
        found.append(Verdicts.decode(data))
    if sum(len(each.codes) for each in found) != order.made:
        raise DigestMismatch(f"job {order.job_id}: verdicts are missing")
    return found


def _store(services: Services, order: Order, selection: Selection) -> None:
    data = "".join(f"{line}\n" for line in selection.lines()).encode()
    blob = services.store.put_bytes(blob_prefix(order.job_id), data)
    artifact = NewArtifact(
        orders.SELECTION, FILE, blob.key, blob.sha256, blob.size, "application/jsonl"
    )
    services.database.transact(
        partial(orders.record_selection, job_id=order.job_id, artifact=artifact)
    )


def _further(services: Services, order: Order, have: int, most: int) -> list[tuple[int, int]]:
    """Ranges of further samples: as many as are expected to be needed, in shards like the first."""
    share = max(have, 1) / order.made
    expected = math.ceil((order.wanted - have) / share * SURPLUS)
    stop = min(order.made + max(expected, SMALLEST), most)
    with services.database.read() as session:
        first = jobs.shards_of(session, order.job_id)[0]
    size = first.stop - first.start
    return [(start, min(start + size, stop)) for start in range(order.made, stop, size)]


def _too_few(selection: Selection, order: Order, have: int) -> str:
    counts = ", ".join(f"{number:,} by {rule}" for rule, number in selection.rejected.most_common())
    return (
        f"{have:,} of {order.made:,} samples were accepted, and {order.wanted:,} are wanted; "
        f"rejected: {counts or 'none'}; loosen the rules, or allow more with --tries"
    )

"""A promote job: the gate decides, and the alias moves in the transaction that ends the job."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from db import shards
from db.jobs import JobBrief
from db.promotions import Reason
from worker.files import canonical_json, inside
from worker.identity import who
from worker.services.evaluations import AnyEvaluation
from worker.services.evidence import gather
from worker.services.pinned import PinnedPromotion
from worker.services.promotion import judge, record
from worker.shards.context import ShardResult, WorkerContext
from worker.shards.evaluate import measure_again
from worker.shards.lease import Lease, hang_checks_paused
from worker.shards.reports import RefusedByGate


def promote_job(
    context: WorkerContext, job: JobBrief, pinned: PinnedPromotion, lease: Lease, folder: Path
) -> ShardResult:
    """Decide; the caller commits the alias, its history and the report with the job's success.

    What was never measured of the champion is measured first. Raises `RefusedByGate` if the gate
    refuses: the history is written with the job's failure.
    """

    def measure(name: str, protocol: Mapping[str, Any]) -> AnyEvaluation:
        parts = (name, str(protocol["dataset"]))
        inner = inside(folder, "-".join(part.replace(":", "-") for part in parts))
        return measure_again(context, lease, inner, name, protocol)

    found = gather(context.services, pinned, measure)
    with hang_checks_paused([lease]):
        judged = judge(context.services, found)
    lease.log(judged.text)
    path = folder / "verdict.json"
    path.write_bytes(canonical_json(judged.data))
    report = lease.put("report", path.name, path, "application/json")
    reason = Reason(job.owner or who(), pinned.spec.why, judged.data, job.id)
    write = partial(record, judged=judged, reason=reason)
    if judged.accepted:
        return ShardResult([report], [write])
    context.services.database.transact(
        lambda session: shards.put_artifact(session, lease.claim, report)
    )
    raise RefusedByGate(judged.text, write)

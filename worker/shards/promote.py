"""A promote job: the gate decides, and the alias moves in the transaction that ends the job."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import shards
from db.commits import NewArtifact
from db.jobs import JobBrief
from db.promotions import Reason
from worker.evaluation.stages import Stage
from worker.files import canonical_json
from worker.services.evaluations import AnyEvaluation
from worker.services.evidence import gather
from worker.services.pinned import PinnedPromotion
from worker.services.promotion import judge, record, who
from worker.shards.context import ShardResult, WorkerContext
from worker.shards.evaluate import Terms, ensure_evaluated
from worker.shards.lease import Lease, hang_checks_paused
from worker.shards.reports import RefusedByGate

Writes = list[Callable[[Session], object]]


def promote_job(
    context: WorkerContext, job: JobBrief, pinned: PinnedPromotion, lease: Lease, folder: Path
) -> ShardResult:
    """Decide; the caller commits the alias, its history and the report with the job's success.

    What was never measured of the champion is measured first. Raises `RefusedByGate` if the gate
    refuses: the history is written with the job's failure.
    """
    measurer = _Measurer(context, lease, folder)
    found = gather(context.services, pinned, measurer.measure)
    with hang_checks_paused([lease]):
        judged = judge(context.services, found)
    lease.log(judged.text)
    path = folder / "verdict.json"
    path.write_bytes(canonical_json(judged.data))
    report = lease.put("report", path.name, path, "application/json")
    reason = Reason(who(), pinned.spec.why, judged.data, job.id)
    artifacts = [*measurer.artifacts, report]
    writes: Writes = [*measurer.writes, partial(record, judged=judged, reason=reason)]
    if judged.accepted:
        return ShardResult(artifacts, writes)
    context.services.database.transact(partial(_put_all, lease=lease, artifacts=artifacts))
    raise RefusedByGate(judged.text, writes)


class _Measurer:
    """Evaluates versions for the gate, and keeps what the job's end has to record."""

    def __init__(self, context: WorkerContext, lease: Lease, folder: Path) -> None:
        self._context, self._lease, self._folder = context, lease, folder
        self.artifacts: list[NewArtifact] = []
        self.writes: Writes = []
        self._done = 0

    def measure(self, name: str, protocol: Mapping[str, Any]) -> AnyEvaluation:
        """Measure a version by a protocol; see `worker.services.evidence.Measure`."""
        self._done += 1
        ensured = ensure_evaluated(
            self._context,
            self._lease,
            self._folder / f"evaluation-{self._done}",
            name,
            Terms.of(protocol),
            stage=Stage(self._lease, name, 0, 100),
            prefix=f"{name.replace(':', '-')}-{self._done}-",
        )
        self.artifacts += ensured.result.artifacts
        self.writes += ensured.result.writes
        return ensured.evaluation


def _put_all(session: Session, *, lease: Lease, artifacts: list[NewArtifact]) -> None:
    for artifact in artifacts:
        shards.put_artifact(session, lease.claim, artifact)

"""Claims: a worker's hold on a shard, the check that it still counts, and its artifacts."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.orm import Session

from db.columns import new_id
from db.commits import NewArtifact, blob_key
from db.errors import Cancelled, GenmillError, LeaseLost
from db.moves import lock
from db.states import FINAL, JobState, ShardState
from db.tables import Artifact, Job, Shard


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a shard: `owner` is the worker's boot id, `start` to `stop` the range."""

    shard_id: str
    job_id: str
    fence: int
    owner: str
    idx: int
    start: int
    stop: int


def hold(session: Session, claim: Claim) -> tuple[Job, Shard]:
    """Lock the claim's job and shard; raise `Cancelled` or `LeaseLost` if the claim is over."""
    job, shard = lock(session, Job, claim.job_id), lock(session, Shard, claim.shard_id)
    if job is None or shard is None:
        raise LeaseLost(f"shard {claim.shard_id} is no longer on record")
    holder = (shard.status, shard.fence, shard.owner)
    held = holder == (ShardState.RUNNING, claim.fence, claim.owner)
    if held and job.status == JobState.RUNNING:
        return job, shard
    if job.status in FINAL and job.status != JobState.SUCCEEDED:
        raise Cancelled(f"job {job.id} is {job.status}")
    latest = f"the shard is {shard.status}, its latest claim is {shard.fence}"
    raise LeaseLost(f"shard {shard.id}: claim {claim.fence} is over ({latest})")


def check_complete(job: Job, claim: Claim, artifacts: Iterable[NewArtifact]) -> None:
    """Raise unless a generate shard hands over each sample of its range exactly once."""
    if job.kind != "generate":
        return
    made = [artifact.index.samples for artifact in artifacts if artifact.index]
    if made != [range(claim.start, claim.stop)]:
        raise GenmillError(
            f"shard {claim.shard_id} needs each of the samples {claim.start} to {claim.stop - 1} "
            f"once, but other samples were committed ({sum(map(len, made))} in all)"
        )


def record_artifact(session: Session, claim: Claim, artifact: NewArtifact, *, at: datetime) -> None:
    """Record an object under a claim that `hold` has checked; it replaces one of the same name."""
    session.execute(
        delete(Artifact).where(Artifact.shard_id == claim.shard_id, Artifact.name == artifact.name)
    )
    derived = blob_key(claim.job_id, artifact.sha256)
    row = Artifact(
        id=new_id(),
        job_id=claim.job_id,
        shard_id=claim.shard_id,
        kind=artifact.kind,
        name=artifact.name,
        other_key=None if artifact.key == derived else artifact.key,
        sha256=artifact.sha256,
        size=artifact.size,
        media_type=artifact.media_type,
        created_at=at,
    )
    if artifact.index is not None:
        row.members_sha256 = artifact.index.members_sha256
        row.index_sha256 = artifact.index.sha256
        row.index_data = artifact.index.data
    session.add(row)
    session.flush()

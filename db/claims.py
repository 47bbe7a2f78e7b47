"""What a worker holds, and the check that it still holds it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.orm import Session

from db.commits import NewArtifact
from db.errors import Cancelled, GenmillError, LeaseLost
from db.moves import lock_job, lock_shard
from db.session import insert_rows
from db.states import FINAL, JobState, ShardState
from db.tables import Artifact, Job, Member, Shard, new_id


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a shard: `owner` is its boot id, `start` to `stop` the shard's range."""

    shard_id: str
    job_id: str
    fence: int
    owner: str
    idx: int
    start: int
    stop: int


def hold(session: Session, claim: Claim) -> tuple[Job, Shard]:
    """Lock the claim's job and shard; raise `Cancelled` or `LeaseLost` if it holds no longer."""
    job = lock_job(session, claim.job_id)
    shard = lock_shard(session, claim.shard_id)
    if job is None or shard is None:
        raise LeaseLost(f"shard {claim.shard_id} is not on record any more")
    if _is_held(shard, claim) and job.status == JobState.RUNNING:
        return job, shard
    if job.status in FINAL and job.status != JobState.SUCCEEDED:
        raise Cancelled(f"job {job.id} is {job.status}")
    raise LeaseLost(f"shard {shard.id}: claim {claim.fence} is over, claim {shard.fence} counts")


def check_complete(job: Job, claim: Claim, artifacts: Iterable[NewArtifact]) -> None:
    """Raise unless a generate shard hands over each sample of its range once."""
    if job.kind != "generate":
        return
    made = sorted(member.sample for artifact in artifacts for member in artifact.members)
    if made != list(range(claim.start, claim.stop)):
        raise GenmillError(
            f"shard {claim.shard_id} must hold samples {claim.start} to {claim.stop - 1} once "
            f"each, but {len(made)} samples were handed over"
        )


def store_artifact(session: Session, claim: Claim, artifact: NewArtifact, *, at: datetime) -> None:
    """Record an object under a claim that holds; one of the same name is replaced."""
    session.execute(
        delete(Artifact).where(Artifact.shard_id == claim.shard_id, Artifact.name == artifact.name)
    )
    row = Artifact(
        id=new_id(),
        job_id=claim.job_id,
        shard_id=claim.shard_id,
        kind=artifact.kind,
        name=artifact.name,
        key=artifact.key,
        sha256=artifact.sha256,
        size=artifact.size,
        media_type=artifact.media_type,
        created_at=at,
    )
    session.add(row)
    session.flush()
    common = {"shard_id": claim.shard_id, "artifact_id": row.id}
    members = [vars(member) | common for member in artifact.members]
    insert_rows(session, Member, members)


def _is_held(shard: Shard, claim: Claim) -> bool:
    held = shard.status == ShardState.RUNNING
    return held and shard.fence == claim.fence and shard.owner == claim.owner

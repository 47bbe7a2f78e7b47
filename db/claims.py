"""Claims: a worker's hold on a shard, the check that it still counts, and its artifacts."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, func, select, text
from sqlalchemy.orm import Session

from db.columns import fresh_ids
from db.commits import NewArtifact, blob_key
from db.errors import Cancelled, GenmillError, LeaseLost
from db.moves import lock_job, lock_shard
from db.states import FINAL, JobState, ShardState
from db.tables import IN_ORDER, SHARDS, Artifact, Shard
from db.tuples import Tuple, insert_tuples


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a shard: `owner` is the worker's boot id, `start` to `stop` the range.

    `alone`: it is its job's only shard. Shards of one `work_key` can run in one forward pass;
    `group_id` is the batch, or else the job.
    """

    shard_id: str
    job_id: str
    fence: int
    owner: str
    idx: int
    start: int
    stop: int
    kind: str
    alone: bool
    work_key: int | None
    group_id: str


def hold(session: Session, claim: Claim, *, exclusive: bool = False) -> tuple[Any, Shard]:
    """Lock the claim's job and shard; raise `Cancelled` or `LeaseLost` if the claim is over.

    The job's lock is shared, unless the caller is going to move the job.
    """
    job = lock_job(session, claim.job_id, shared=not exclusive)
    shard = lock_shard(session, claim.shard_id)
    if job is None or shard is None:
        raise LeaseLost(f"shard {claim.shard_id} is no longer on record")
    over = ending(claim, job.status, shard)
    if over is not None:
        raise over
    return job, shard


def ending(claim: Claim, job_status: str, shard: Any) -> Cancelled | LeaseLost | None:
    """Why the claim is over, given its job's and its shard's state; None while it is held."""
    holder = (shard.status, shard.fence, shard.owner)
    held = holder == (ShardState.RUNNING, claim.fence, claim.owner)
    if held and job_status == JobState.RUNNING:
        return None
    if job_status in FINAL and job_status != JobState.SUCCEEDED:
        return Cancelled(f"job {claim.job_id} is {job_status}")
    latest = f"the shard is {shard.status}, its latest claim is {shard.fence}"
    return LeaseLost(f"shard {claim.shard_id}: claim {claim.fence} is over ({latest})")


def unclaimed_samples(session: Session, *, at_most: int) -> int | None:
    """The samples of the shards that were never claimed; None if there are `at_most` shards."""
    count, samples = session.execute(_UNCLAIMED, {"at_most": at_most}).one()
    return None if count == at_most else int(samples or 0)


_SIZES = (
    select((SHARDS.c.stop - SHARDS.c.start).label("size"))
    .where(text("status = 'queued' AND fence = 0"))  # literals, so that the partial index is used
    .order_by(*(SHARDS.c[name] for name in IN_ORDER))
    .limit(bindparam("at_most"))
    .subquery()
)
_UNCLAIMED = select(func.count(), func.sum(_SIZES.c.size))


def check_complete(claim: Claim, artifacts: Iterable[NewArtifact]) -> None:
    """Raise unless a generate shard hands over each sample of its range exactly once."""
    if claim.kind != "generate":
        return
    made = [artifact.index.samples for artifact in artifacts if artifact.index]
    if made != [range(claim.start, claim.stop)]:
        raise GenmillError(
            f"shard {claim.shard_id} needs each of the samples {claim.start} to {claim.stop - 1} "
            f"once, but other samples were committed ({sum(map(len, made))} in all)"
        )


def replace_artifact(
    session: Session, claim: Claim, artifact: NewArtifact, *, at: datetime
) -> None:
    """Record an object under a claim that is held, in place of any of the same name."""
    session.execute(
        delete(Artifact).where(Artifact.shard_id == claim.shard_id, Artifact.name == artifact.name)
    )
    record_artifacts(session, [(claim, artifact)], at=at)


def record_artifacts(
    session: Session, made: Sequence[tuple[Claim, NewArtifact]], *, at: datetime
) -> None:
    """Record objects under claims that are held."""
    rows = [
        _artifact_row(each_id, claim, artifact)
        for each_id, (claim, artifact) in zip(fresh_ids(), made, strict=False)
    ]
    insert_tuples(session, Artifact, ARTIFACT, rows, created_at=at)


ARTIFACT = (
    "id",
    "job_id",
    "shard_id",
    "kind",
    "name",
    "key",
    "sha256",
    "size",
    "media_type",
    "pack",
    "pack_offset",
    "members_sha256",
    "index_sha256",
    "index_data",
    "marks",
)


def _artifact_row(row_id: str, claim: Claim, artifact: NewArtifact) -> Tuple:
    index, packed = artifact.index, artifact.packed
    derived = packed is not None or artifact.key == blob_key(claim.job_id, artifact.sha256)
    return (
        row_id,
        claim.job_id,
        claim.shard_id,
        artifact.kind,
        artifact.name,
        None if derived else artifact.key,
        artifact.sha256,
        artifact.size,
        artifact.media_type,
        packed.pack if packed else None,
        packed.offset if packed else None,
        index.members_sha256 if index else None,
        index.sha256 if index else None,
        index.data if index else None,
        json.dumps(artifact.marks, sort_keys=True) if artifact.marks else None,
    )

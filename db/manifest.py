"""A job's manifest: what it made, as canonical content that two readers derive alike."""

import hashlib
from collections import defaultdict
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.errors import NotFound
from db.tables import Artifact, Job, Member, Shard

Rollup = tuple[int, Any]  # how many samples, and the running SHA-256 of their digests


def manifest(session: Session, job_id: str) -> dict[str, Any]:
    r"""Job id, spec hash, and the artifacts by shard and name; no times, so it never changes.

    An artifact with members has their number and the SHA-256 over its lines `index digest\n`, so
    that a manifest stays small when there are a million samples. Raises `NotFound`.
    """
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"no job {job_id!r}")
    rollups = _rollups(session, job_id)
    statement = select(Artifact, Shard.idx).join(Shard, Shard.id == Artifact.shard_id)
    statement = statement.where(Artifact.job_id == job_id).order_by(Shard.idx, Artifact.name)
    return {
        "job": job.id,
        "kind": job.kind,
        "spec_sha256": job.spec_hash,
        "artifacts": [
            _described(artifact, idx, rollups.get(artifact.id))
            for artifact, idx in session.execute(statement)
        ],
    }


def _described(artifact: Artifact, idx: int, rollup: Rollup | None) -> dict[str, Any]:
    names = ("kind", "name", "key", "sha256", "size", "media_type")
    described = {name: getattr(artifact, name) for name in names} | {"shard": idx}
    if rollup is not None:
        described["members"] = {"count": rollup[0], "sha256": rollup[1].hexdigest()}
    return described


def _rollups(session: Session, job_id: str) -> dict[str, Rollup]:
    rollups: dict[str, Rollup] = defaultdict(lambda: (0, hashlib.sha256()))
    statement = (
        select(Member.artifact_id, Member.sample, Member.sha256)
        .join(Shard, Shard.id == Member.shard_id)
        .where(Shard.job_id == job_id)
        .order_by(Shard.idx, Member.sample)
        .execution_options(yield_per=1000)
    )
    for artifact_id, sample, sha256 in session.execute(statement):
        count, digest = rollups[artifact_id]
        digest.update(f"{sample} {sha256}\n".encode())
        rollups[artifact_id] = (count + 1, digest)
    return rollups

"""A job's manifest: what it made, in a form that depends on nothing but the record."""

import hashlib
from collections import defaultdict
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.errors import NotFound
from db.tables import Artifact, Job, Member, Shard

FIELDS = ("kind", "name", "key", "sha256", "size", "media_type")


def manifest(session: Session, job_id: str) -> dict[str, Any]:
    r"""Job id, spec hash, and the artifacts by shard and name; no times, so it never changes.

    An artifact with members has their count and the SHA-256 over its lines `index digest\n`, so
    that the manifest of a million samples stays small. Raises `NotFound`.
    """
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"no job {job_id!r}")
    members = _member_digests(session, job_id)
    statement = select(Artifact, Shard.idx).join(Shard, Shard.id == Artifact.shard_id)
    statement = statement.where(Artifact.job_id == job_id).order_by(Shard.idx, Artifact.name)
    artifacts = []
    for artifact, idx in session.execute(statement):
        entry = {name: getattr(artifact, name) for name in FIELDS} | {"shard": idx}
        if artifact.id in members:
            count, digest = members[artifact.id]
            entry["members"] = {"count": count, "sha256": digest.hexdigest()}
        artifacts.append(entry)
    return {
        "job": job.id,
        "kind": job.kind,
        "spec_sha256": job.spec_hash,
        "artifacts": artifacts,
    }


def _member_digests(session: Session, job_id: str) -> dict[str, tuple[int, Any]]:
    """By artifact id, how many members it has and the running SHA-256 over them."""
    found: dict[str, tuple[int, Any]] = defaultdict(lambda: (0, hashlib.sha256()))
    statement = (
        select(Member.artifact_id, Member.sample, Member.sha256)
        .join(Shard, Shard.id == Member.shard_id)
        .where(Shard.job_id == job_id)
        .order_by(Shard.idx, Member.sample)
        .execution_options(yield_per=1000)
    )
    for artifact_id, sample, sha256 in session.execute(statement):
        count, digest = found[artifact_id]
        digest.update(f"{sample} {sha256}\n".encode())
        found[artifact_id] = (count + 1, digest)
    return found

"""A job's manifest: what it made, in a form that depends on nothing but the record."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.errors import NotFound
from db.tables import Artifact, Job, Shard

FIELDS = ("kind", "name", "key", "sha256", "size", "media_type")


def manifest(session: Session, job_id: str) -> dict[str, Any]:
    r"""Job id, spec hash, and the artifacts by shard and name; no times, so it never changes.

    An artifact with samples has their count and the SHA-256 over the lines `index digest\n`, so
    that the manifest of a million samples stays small. Raises `NotFound`.
    """
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"no job {job_id!r}")
    statement = select(Artifact, Shard).join(Shard, Shard.id == Artifact.shard_id)
    statement = statement.where(Shard.job_id == job_id).order_by(Shard.idx, Artifact.name)
    artifacts = []
    for artifact, shard in session.execute(statement):
        entry = {name: getattr(artifact, name) for name in FIELDS} | {"shard": shard.idx}
        if artifact.members_sha256:
            count = shard.stop - shard.start
            entry["members"] = {"count": count, "sha256": artifact.members_sha256}
        artifacts.append(entry)
    return {
        "job": job.id,
        "kind": job.kind,
        "spec_sha256": job.spec_hash,
        "artifacts": artifacts,
    }

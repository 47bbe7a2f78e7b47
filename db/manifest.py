"""A job's manifest: what it made, in a form that depends on nothing but the record."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.claims import Claim
from db.commits import NewArtifact
from db.errors import NotFound
from db.tables import Artifact, Job, Shard

FIELDS = ("kind", "name", "key", "sha256", "size", "media_type")


def manifest(session: Session, job_id: str) -> dict[str, Any]:
    r"""Job id, spec hash, and the artifacts by shard and name; no times, so it never changes.

    Of marked samples, an artifact says how many have each mark, and why others do not.

    An artifact with samples has their count and the SHA-256 over the lines `index digest\n`, so
    that the manifest of a million samples stays small. Raises `NotFound`.
    """
    found = manifests(session, [job_id])
    if job_id not in found:
        raise NotFound(f"no job {job_id!r}")
    return found[job_id]


def manifests(session: Session, job_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """The manifests of those jobs that are on record."""
    columns = (Job.id, Job.kind, Job.spec_hash)
    found = {
        job.id: _manifest(job.id, job.kind, job.spec_hash, [])
        for job in session.execute(select(*columns).where(Job.id.in_(job_ids)))
    }
    shard = (Shard.job_id, Shard.idx, Shard.stop - Shard.start)
    statement = select(Artifact, *shard).join(Shard, Shard.id == Artifact.shard_id)
    statement = statement.where(Shard.job_id.in_(job_ids)).order_by(Shard.idx, Artifact.name)
    for artifact, job_id, idx, count in session.execute(statement):
        entry = _entry(artifact, idx, count, artifact.members_sha256)
        found[job_id]["artifacts"].append(entry)
    return found


def manifest_to_be(claim: Claim, spec_hash: str, made: NewArtifact) -> dict[str, Any]:
    """The manifest of a job whose only shard is about to commit these samples, and nothing else."""
    members = made.index.members_sha256 if made.index else None
    entry = _entry(made, claim.idx, claim.stop - claim.start, members)
    return _manifest(claim.job_id, claim.kind, spec_hash, [entry])


def _manifest(job_id: str, kind: str, spec_hash: str, entries: list[Any]) -> dict[str, Any]:
    return {"job": job_id, "kind": kind, "spec_sha256": spec_hash, "artifacts": entries}


def _entry(
    artifact: Artifact | NewArtifact, shard: int, count: int, members_sha256: str | None
) -> dict[str, Any]:
    entry = {name: getattr(artifact, name) for name in FIELDS} | {"shard": shard}
    if artifact.packed is not None:
        entry["offset"] = artifact.packed.offset
    if artifact.marks:
        entry["marks"] = dict(artifact.marks)
    if members_sha256:
        entry["members"] = {"count": count, "sha256": members_sha256}
    return entry

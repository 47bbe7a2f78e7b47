"""A job's manifest: what it made, in a form that depends on nothing but the record."""

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.claims import Claim
from db.commits import NewArtifact, Range, blob_key
from db.errors import NotFound
from db.tables import Artifact, Job, Shard

FIELDS = ("kind", "name", "key", "sha256", "size", "media_type")
ROWS_AT_ONCE = 1000
# not whole rows: a job of a million samples has tens of thousands of them
_STORED = (
    *(Artifact.kind, Artifact.name, Artifact.other_key, Artifact.sha256, Artifact.size),
    *(Artifact.media_type, Artifact.pack, Artifact.pack_offset, Artifact.members_sha256),
    Artifact.marks,
)


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
    shard = (Shard.job_id, Shard.idx, (Shard.stop - Shard.start).label("samples"))
    statement = select(*_STORED, *shard).join(Shard, Shard.id == Artifact.shard_id)
    statement = statement.where(Shard.job_id.in_(job_ids)).order_by(Shard.idx, Artifact.name)
    for row in session.execute(statement.execution_options(yield_per=ROWS_AT_ONCE)):
        place = None if row.pack is None else Range(row.pack, row.pack_offset or 0, row.size)
        own = row.other_key or blob_key(row.job_id, row.sha256)
        made = {name: getattr(row, name) for name in FIELDS if name != "key"}
        made |= {"key": place.key if place else own, "packed": place, "marks": row.marks}
        entry = _entry(NewArtifact(**made), row.idx, row.samples, row.members_sha256)
        found[row.job_id]["artifacts"].append(entry)
    return found


def manifest_to_be(claim: Claim, spec_hash: str, made: Iterable[NewArtifact]) -> dict[str, Any]:
    """The manifest of a job whose only shard is about to commit these, and nothing else."""
    count = claim.stop - claim.start
    entries = [
        _entry(each, claim.idx, count, each.index.members_sha256 if each.index else None)
        for each in sorted(made, key=lambda each: each.name)
    ]
    return _manifest(claim.job_id, claim.kind, spec_hash, entries)


def _manifest(job_id: str, kind: str, spec_hash: str, entries: list[Any]) -> dict[str, Any]:
    return {"job": job_id, "kind": kind, "spec_sha256": spec_hash, "artifacts": entries}


def _entry(
    artifact: NewArtifact, shard: int, count: int, members_sha256: str | None
) -> dict[str, Any]:
    entry = {name: getattr(artifact, name) for name in FIELDS} | {"shard": shard}
    if artifact.packed is not None:
        entry["offset"] = artifact.packed.offset
    if artifact.marks:
        entry["marks"] = dict(artifact.marks)
    if members_sha256:
        entry["members"] = {"count": count, "sha256": members_sha256}
    return entry

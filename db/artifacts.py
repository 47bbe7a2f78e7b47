"""Artifacts, the stored objects that shards committed, and the samples inside them."""

from sqlalchemy import String, cast, select
from sqlalchemy.orm import Session

from db.errors import NotFound
from db.lookup import by_prefix
from db.tables import Artifact, Checkpoint, Job, Member, ModelVersion, Shard


def of_job(session: Session, job_id: str, kind: str | None = None) -> list[Artifact]:
    """A job's artifacts in the order of its shards, then by name; only those of `kind` if given."""
    statement = select(Artifact).join(Shard, Shard.id == Artifact.shard_id)
    statement = statement.where(Artifact.job_id == job_id)
    if kind is not None:
        statement = statement.where(Artifact.kind == kind)
    return list(session.scalars(statement.order_by(Shard.idx, Artifact.name)))


def get(session: Session, id_or_prefix: str) -> Artifact:
    """The artifact with this id or unambiguous prefix. Raises `NotFound` or `Refused`."""
    return by_prefix(session, Artifact, id_or_prefix, noun="artifact")


def members(session: Session, job_id: str, *, after: int = -1, limit: int = 1000) -> list[Member]:
    """Up to `limit` of a job's samples with an index above `after`, by index."""
    statement = select(Member).join(Shard, Shard.id == Member.shard_id)
    statement = statement.where(Shard.job_id == job_id, Member.sample > after)
    return list(session.scalars(statement.order_by(Member.sample).limit(limit)))


def member(session: Session, job_id: str, index: int) -> tuple[Member, Artifact]:
    """Sample `index` of a job and the artifact that holds it. Raises `NotFound`."""
    statement = (
        select(Member, Artifact)
        .join(Artifact, Artifact.id == Member.artifact_id)
        .where(Artifact.job_id == job_id, Member.sample == index)
    )
    row = session.execute(statement).one_or_none()
    if row is None:
        raise NotFound(f"job {job_id} has no sample {index} yet")
    return row.Member, row.Artifact


def referenced_keys(session: Session, job_id: str) -> set[str]:
    """Every store key under a job that the record refers to; other objects there are garbage."""
    keys = set(session.scalars(select(Artifact.key).where(Artifact.job_id == job_id)))
    checkpoints = select(Checkpoint.key).join(Shard, Shard.id == Checkpoint.shard_id)
    keys.update(session.scalars(checkpoints.where(Shard.job_id == job_id)))
    # a later model version may refer to files that this job stored
    files = cast(ModelVersion.files, String).contains(f"jobs/{job_id}/", autoescape=True)
    for by_name in session.scalars(select(ModelVersion.files).where(files)):
        keys.update(file["key"] for file in by_name.values())
    manifest = session.scalar(select(Job.manifest_key).where(Job.id == job_id))
    return keys | ({manifest} if manifest else set())

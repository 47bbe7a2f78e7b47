"""What the record knows about who owns which objects, and how large the database itself is."""

from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from db import datasets
from db.tables import (
    Artifact,
    Checkpoint,
    Dataset,
    DatasetVersion,
    Job,
    Model,
    ModelVersion,
    Shard,
)

Owner = tuple[str, str, str]  # what it counts as, and the kind and name of its owner
Owners = dict[str, Owner]  # by the key of the object
AT_ONCE = 500


def owners(session: Session) -> Owners:
    """The owners of models' files and of checkpoints; a shared file is its first version's."""
    found: Owners = {}
    versions = select(Model.name, ModelVersion.number, ModelVersion.files)
    versions = versions.join(ModelVersion, ModelVersion.model_id == Model.id)
    for name, number, files in session.execute(versions.order_by(ModelVersion.id)):
        for file in files.values():
            found.setdefault(file["key"], ("models", "model", f"{name}:{number}"))
    saved = select(Checkpoint.key, Shard.job_id).join(Shard, Shard.id == Checkpoint.shard_id)
    for key, job_id in session.execute(saved):
        found[key] = ("checkpoints", "job", job_id)
    return found


def manifests(session: Session) -> Iterator[tuple[str, str]]:
    """The name of each dataset version whose content is kept, and its manifest's key."""
    versions = select(Dataset.name, DatasetVersion.number, DatasetVersion.manifest_key)
    versions = versions.join(Dataset, Dataset.id == DatasetVersion.dataset_id)
    versions = versions.where(datasets.content_is_kept())
    for name, number, key in session.execute(versions.order_by(DatasetVersion.id)).all():
        yield f"{name}:{number}", key


def packed_by_job(session: Session) -> dict[str, int]:
    """The bytes of each job's artifacts that lie in packs, together with others."""
    packed = select(Shard.job_id, func.sum(Artifact.size))
    packed = packed.join(Artifact, Artifact.shard_id == Shard.id)
    kept = (Artifact.pack.is_not(None), Artifact.removed_at.is_(None))
    rows = session.execute(packed.where(*kept).group_by(Shard.job_id))
    return {job_id: int(size) for job_id, size in rows}


def known_jobs(session: Session, ids: Sequence[str]) -> Collection[str]:
    """Those of the ids that are jobs' on record."""
    found: set[str] = set()
    for start in range(0, len(ids), AT_ONCE):
        some = select(Job.id).where(Job.id.in_(ids[start : start + AT_ONCE]))
        found.update(session.scalars(some))
    return found


def database_bytes(session: Session) -> int:
    """The size of the database on its disk."""
    if session.get_bind().dialect.name == "sqlite":
        pages, size = (session.scalar(text(f"PRAGMA {of}")) for of in ("page_count", "page_size"))
        return int(pages or 0) * int(size or 0)
    return int(session.scalar(text("SELECT pg_database_size(current_database())")) or 0)

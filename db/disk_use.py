"""What the record knows about who owns which objects, and how large the database itself is."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import and_, func, select, text
from sqlalchemy.orm import Session

from db import datasets
from db.ended_jobs import ended_jobs
from db.retention import WHAT
from db.session import clock
from db.tables import (
    Artifact,
    Checkpoint,
    Dataset,
    DatasetVersion,
    Job,
    Judge,
    Model,
    ModelVersion,
    Retention,
    Shard,
)

Owner = tuple[str, str, str]  # what it counts as, and the kind and name of its owner
Owners = dict[str, Owner]  # by the key of the object
AT_ONCE = 500
CHECKPOINTS = "checkpoints"  # as retention calls them


def owners(session: Session) -> Owners:
    """The owners of models' files, checkpoints and judges; a shared file is its first version's."""
    found: Owners = {}
    versions = select(Model.name, ModelVersion.number, ModelVersion.files)
    versions = versions.join(ModelVersion, ModelVersion.model_id == Model.id)
    for name, number, files in session.execute(versions.order_by(ModelVersion.id)):
        for file in files.values():
            found.setdefault(file["key"], ("models", "model", f"{name}:{number}"))
    saved = select(Checkpoint.key, Shard.job_id).join(Shard, Shard.id == Checkpoint.shard_id)
    for key, job_id in session.execute(saved):
        found[key] = ("checkpoints", "job", job_id)
    judges = select(Judge.key, Dataset.name, DatasetVersion.number)
    judges = judges.join(DatasetVersion, DatasetVersion.id == Judge.dataset_version_id)
    judges = judges.join(Dataset, Dataset.id == DatasetVersion.dataset_id)
    for key, name, number in session.execute(judges):
        found[key] = ("judges", "dataset", f"{name}:{number}")
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


def uncollected_jobs(session: Session) -> frozenset[str]:
    """Ended jobs whose unreferenced objects have not been deleted yet."""
    ended = (Job.finished_at.is_not(None), Job.collected_at.is_(None))
    return frozenset(session.scalars(select(Job.id).where(*ended)))


def prunable_checkpoint_bytes(session: Session) -> int:
    """The bytes of checkpoints that retention may delete now: those of ended jobs, but for some."""
    place = session.get(Retention, CHECKPOINTS)
    jobs = ended_jobs(place, clock(session)).subquery()
    ids: Any = select(jobs.c.id)
    unused = WHAT[CHECKPOINTS][Checkpoint](ids).subquery()
    mine = and_(Checkpoint.shard_id == unused.c.shard_id, Checkpoint.step == unused.c.step)
    return int(session.scalar(select(func.sum(Checkpoint.size)).join(unused, mine)) or 0)


def database_bytes(session: Session) -> int:
    """The size of the database on its disk."""
    if session.get_bind().dialect.name == "sqlite":
        pages, size = (session.scalar(text(f"PRAGMA {of}")) for of in ("page_count", "page_size"))
        return int(pages or 0) * int(size or 0)
    return int(session.scalar(text("SELECT pg_database_size(current_database())")) or 0)

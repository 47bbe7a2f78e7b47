"""The rows of the record as plain data: what `--json` prints, and what tables show columns of.

Scripts depend on the keys: they may be added to, but never renamed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from db import progress
from db.tables import (
    Artifact,
    Dataset,
    DatasetVersion,
    Job,
    Model,
    ModelVersion,
    Promotion,
    Schedule,
    ScheduleRun,
    Shard,
)

Document = dict[str, Any]


def job_document(job: Job, done: Document) -> Document:
    """A job without its shards; `done` is its progress."""
    return {
        "id": job.id,
        "kind": job.kind,
        "status": job.status,
        "model": job.model,
        "priority": job.priority,
        "progress": done,
        "error": job.error,
        "spec": job.spec,
        "spec_hash": job.spec_hash,
        "batch": job.batch_id,
        "custom_id": job.custom_id,
        "schedule": job.schedule_id,
        "retry_of": job.retry_of,
        "idempotency_key": job.idempotency_key,
        "manifest_sha256": job.manifest_sha256,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }


def job_documents(session: Session, jobs: Sequence[Job]) -> list[Document]:
    """Jobs with their progress as it is now."""
    done = progress.of(session, jobs)
    return [job_document(job, done[job.id]) for job in jobs]


def shard_document(shard: Shard) -> Document:
    """A shard: its range of samples, its state and its failures."""
    return {
        "id": shard.id,
        "index": shard.idx,
        "start": shard.start,
        "stop": shard.stop,
        "status": shard.status,
        "claims": shard.claims,
        "failures": shard.failures,
        "releases": shard.releases,
        "owner": shard.owner,
        "last_error": shard.last_error,
    }


def artifact_document(artifact: Artifact) -> Document:
    """An artifact: what it is and where its bytes are stored."""
    return {
        "id": artifact.id,
        "job": artifact.job_id,
        "kind": artifact.kind,
        "name": artifact.name,
        "size": artifact.size,
        "media_type": artifact.media_type,
        "sha256": artifact.sha256,
        "key": artifact.key,
        "offset": artifact.pack_offset or 0,
        "created_at": artifact.created_at,
    }


def dataset_document(dataset: Dataset, version: DatasetVersion) -> Document:
    """One version of a dataset, with its counts, labels and shape."""
    return {
        "name": dataset.name,
        "version": version.number,
        "kind": version.kind,
        **version.summary,
        "manifest_sha256": version.manifest_sha256,
        "created_at": version.created_at,
        "removed_at": version.removed_at,
    }


def model_document(model: Model, version: ModelVersion) -> Document:
    """One version of a model, with its parameters, files and metrics."""
    return {
        "name": model.name,
        "version": version.number,
        "family": model.family,
        "metrics": version.metrics,
        "params": version.params,
        "files": version.files,
        "weights_sha256": version.weights_sha256,
        "job": version.job_id,
        "created_at": version.created_at,
    }


def promotion_document(model: Model, entry: Promotion, numbers: Mapping[str, int]) -> Document:
    """A change of an alias, or a refusal; `numbers` are those of the model's versions, by id."""
    return {
        "model": model.name,
        "alias": entry.alias,
        "outcome": entry.outcome,
        "version": numbers[entry.version_id] if entry.version_id else None,
        "previous": numbers[entry.previous_id] if entry.previous_id else None,
        "who": entry.who,
        "why": entry.why,
        "job": entry.job_id,
        "verdict": entry.verdict,
        "at": entry.at,
    }


def schedule_document(schedule: Schedule) -> Document:
    """A schedule and the command that it repeats."""
    return {
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "missed": schedule.missed,
        "overlap": schedule.overlap,
        "paused": schedule.paused,
        "next_due": schedule.next_due,
        "command": schedule.command,
        "created_at": schedule.created_at,
        "id": schedule.id,
    }


def run_document(run: ScheduleRun) -> Document:
    """One due time of a schedule and its outcome."""
    return {"due": run.due, "outcome": run.outcome, "job": run.job_id, "reason": run.reason}

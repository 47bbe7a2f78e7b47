"""The rows of the record as plain data: what `--json` prints, and what tables show columns of.

Scripts depend on the keys: they may be added to, but never renamed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from db import (
    chains,
    lineage,
    models,
    outcomes,
    progress,
    promotions,
    publications,
    published,
    targets,
    tombstones,
)
from db.errors import NotFound
from db.readable import one_of
from db.states import JobState, ShardState
from db.tables import (
    Artifact,
    AuditEntry,
    Dataset,
    DatasetVersion,
    Evaluation,
    Job,
    Model,
    ModelVersion,
    Promotion,
    Publication,
    Schedule,
    ScheduleRun,
    Shard,
    Target,
    Tombstone,
)

Document = dict[str, Any]
REASONS = 20  # items that a document of a publish job names
BEFORE = "before"  # as in a spec: the job is not known yet


def job_document(job: Job, done: Document) -> Document:
    """A job without its shards; `done` is its progress."""
    return {
        "id": job.id,
        "kind": job.kind,
        "status": JobState(job.status).value,
        "model": job.model,
        "priority": job.priority,
        "owner": job.owner,
        "note": job.note,
        "progress": done,
        "error": job.error,
        "spec": job.spec,
        "spec_hash": job.spec_hash,
        "batch": job.batch_id,
        "custom_id": job.custom_id,
        "schedule": job.schedule_id,
        "retry_of": job.retry_of,
        "after": job.after_id,
        "idempotency_key": job.idempotency_key,
        "manifest_sha256": job.manifest_sha256,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "stop_asked_at": job.stop_asked_at,
        "finished_at": job.finished_at,
    }


def job_documents(session: Session, jobs: Sequence[Job]) -> list[Document]:
    """Jobs with their progress as it is now."""
    done = progress.of(session, jobs)
    return [job_document(job, done[job.id]) for job in jobs]


def chain_documents(session: Session, job_id: str) -> list[Document]:
    """The jobs of a job's chain in brief, the first one first; none for a job on its own."""
    found = chains.whole(session, job_id)
    return [_brief(job) for job in found] if len(found) > 1 else []


def _brief(job: Job) -> Document:
    keys = ("id", "kind", "model", "status", "error", "retry_of")
    return {"after": job.after_id} | {key: getattr(job, key) for key in keys}


def mark_documents(marks: Mapping[str, Any]) -> list[Document]:
    """What each mark of a job's samples did, from what `artifacts.marks_of` found."""
    return [
        {
            "mark": name,
            "applied": found["applied"],
            "not_applied": sum(found["not_applied"].values()),
            "why": dict(found["not_applied"]),
        }
        for name, found in sorted(marks.items())
    ]


def shard_document(shard: Shard) -> Document:
    """A shard: its range of samples, its state and its failures."""
    return {
        "id": shard.id,
        "index": shard.idx,
        "start": shard.start,
        "stop": shard.stop,
        "status": ShardState(shard.status).value,
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
        "format": version.format,
        "made_by": version.made_by,
        "files": version.files,
        "weights_sha256": version.weights_sha256,
        "job": version.job_id,
        "card": version.card,
        "created_at": version.created_at,
    }


def promotion_document(model: Model, entry: Promotion, numbers: Mapping[str, int]) -> Document:
    """A change of an alias, or a refusal; `numbers` are those of the model's versions, by id."""
    return {
        "model": model.name,
        "alias": entry.alias,
        "outcome": one_of(entry.outcome, promotions.OUTCOMES, "an outcome"),
        "version": numbers[entry.version_id] if entry.version_id else None,
        "previous": numbers[entry.previous_id] if entry.previous_id else None,
        "who": entry.who,
        "why": entry.why,
        "job": entry.job_id,
        "verdict": entry.verdict,
        "at": entry.at,
    }


def lineage_document(session: Session, reference: str) -> Document:
    """What a model version was made from, back to the first, and what was made from it."""
    version = models.resolve(session, reference)[1]
    return {
        "ancestors": _descents(session, lineage.ancestors(session, version)[1:]),
        "descendants": _descents(session, lineage.descendants(session, [version.id])),
    }


def used_by_document(session: Session, versions: Sequence[DatasetVersion]) -> Document:
    """The model versions that some data went into, and unfinished jobs that will use them."""
    ids = [each.id for each in versions]
    references = [lineage.dataset_reference(session, each) for each in versions]
    return {
        "models": _descents(session, lineage.trained_on(session, ids)),
        "unfinished_jobs": [job.id for job in lineage.unfinished_with(session, references)],
    }


def _descents(session: Session, found: Sequence[lineage.Descent]) -> list[Document]:
    counts = lineage.count_generated(session, [each.reference for each in found])
    return [
        {
            "version": each.reference,
            "parent": each.parent,
            "dataset": each.dataset,
            "job": each.version.job_id,
            "generate_jobs": counts.get(each.reference, (0, 0))[0],
            "samples": counts.get(each.reference, (0, 0))[1],
        }
        for each in found
    ]


def evaluation_document(evaluation: Evaluation) -> Document:
    """The numbers of a version, and the protocol by which they were measured."""
    return {
        "job": evaluation.job_id,
        "protocol": evaluation.protocol,
        "protocol_sha256": evaluation.protocol_sha256,
        "numbers": evaluation.numbers,
        "created_at": evaluation.created_at,
    }


def tombstone_document(removed: Tombstone) -> Document:
    """What was removed, when and by whom; `name` is its id where it had no other."""
    return {
        "id": removed.id,
        "kind": removed.kind,
        "name": tombstones.label(removed),
        "about": removed.about,
        "who": removed.who,
        "at": removed.at,
        "size_bytes": removed.size_bytes,
        "kept": removed.kept,
    }


def audit_document(entry: AuditEntry) -> Document:
    """Something that a user did on purpose."""
    return {
        "id": entry.id,
        "at": entry.at,
        "who": entry.who,
        "action": entry.action,
        "subject": entry.subject,
        "detail": entry.detail,
    }


def target_document(target: Target, settings: Mapping[str, Any]) -> Document:
    """A target with all of its `settings`, and where its secrets are."""
    return {
        "name": target.name,
        "kind": target.kind,
        "settings": dict(settings),
        "secrets": target.secrets,
        "expires_after_s": target.expires_after_s,
        "who": target.who,
        "created_at": target.created_at,
    }


def publication_document(publication: Publication, target: str) -> Document:
    """An item at a target: what it is, whether it is there, and whether it was verified there."""
    return {
        "item": publication.item,
        "target": target,
        "state": one_of(publication.state, publications.STATES, "the state of a publication"),
        "remote_id": publication.remote_id,
        "job": publication.job_id,
        "sample": publication.sample,
        "version": publication.version_id,
        "sha256": publication.sha256,
        "size": publication.size,
        "media_type": publication.media_type,
        "marks": publication.marks,
        "marks_verified": publication.marks_verified,
        "reason": publication.reason,
        "by_job": publication.by_job_id,
        "published_at": publication.published_at,
        "taken_down_at": publication.taken_down_at,
        "expires_at": publication.expires_at,
    }


def published_counts(session: Session, job: Job) -> Document:
    """Of a publish job, how many of its items are in which state at its target."""
    spec = job.spec
    if job.kind != "publish" or spec["job"] == BEFORE:
        return {}
    try:
        target = targets.get(session, spec["target"])
        made: Document = {"job_id": spec["job"]}
        if spec["job"] is None:
            made = {"version_id": models.resolve_removed(session, spec["model"])[1].id}
    except NotFound:
        return {}
    return published.counts(session, target.id, by_job_id=job.id, **made)


def not_published_documents(session: Session, job: Job) -> list[Document]:
    """Of a publish job, the first items that it could not publish, or not repair, and why."""
    found = published.not_published(session, job.id, limit=REASONS)
    return [{"item": each.item, "reason": each.reason} for each in found]


def schedule_document(schedule: Schedule) -> Document:
    """A schedule and the command that it repeats."""
    return {
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "missed": schedule.missed,
        "overlap": schedule.overlap,
        "only_if_new_data": schedule.only_if_new_data,
        "new_data_wait_s": schedule.new_data_wait_s,
        "paused": schedule.paused,
        "next_due": None if schedule.paused else schedule.next_due,
        "command": schedule.command,
        "created_at": schedule.created_at,
        "id": schedule.id,
    }


def run_document(session: Session, run: ScheduleRun) -> Document:
    """One due time of a schedule, its outcome, and what its jobs came to."""
    document = {"due": run.due, "outcome": run.outcome, "job": run.job_id, "reason": run.reason}
    found = chains.whole(session, run.job_id) if run.job_id else []
    came = outcomes.of_jobs(session, [job.id for job in found])
    return document | {
        "jobs": [_brief(job) for job in found],
        "versions": came.versions,
        "numbers": came.numbers,
        "verdict": _verdict(came.verdict) if came.verdict else None,
    }


def _verdict(entry: Promotion) -> Document:
    """What the gate decided."""
    reasons = (entry.verdict or {}).get("reasons", [])
    return {"outcome": entry.outcome, "alias": entry.alias, "reasons": reasons}

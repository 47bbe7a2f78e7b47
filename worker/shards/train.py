"""A train or finetune job: the engine makes a new model version, whose files are stored."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import jobs, models, shards
from db.errors import DigestMismatch, GenmillError, NotFound
from db.jobs import JobBrief
from db.tables import Checkpoint, DatasetVersion, ModelVersion
from worker.engine.checkpoints import BadCheckpoint
from worker.engine.train import Trained, Training, train
from worker.files import digest_of, weights_digest
from worker.networks.version_folder import WEIGHTS_SUFFIX, made_by, read_record
from worker.services import Services
from worker.services.pinned import PinnedTraining
from worker.shards.context import ShardResult, WorkerContext
from worker.shards.lease import Lease, hang_checks_paused

MEDIA_TYPES = {".json": "application/json", ".safetensors": "application/octet-stream"}


def train_job(
    context: WorkerContext, job: JobBrief, pinned: PinnedTraining, lease: Lease, folder: Path
) -> ShardResult:
    """Train in `folder` and store the version's files; the caller commits the result."""
    spec, parent = pinned.spec, pinned.version
    with hang_checks_paused([lease]):
        dataset, local = context.dataset(spec.dataset)
        parent_files = context.files(parent) if parent else None
    training = Training(
        pinned.family,
        pinned.params,
        local,
        folder,
        seed=spec.seed,
        max_steps=spec.max_steps,
        max_seconds=spec.max_seconds,
        device=context.device,
        precision=context.services.settings.precision,
        parent=parent_files.path if parent_files else None,
    )
    trained = train_from_newest(context, job, lease, training)
    return _store(job, training, trained, lease, dataset=dataset, parent=parent)


def _store(
    job: JobBrief,
    training: Training,
    trained: Trained,
    lease: Lease,
    *,
    dataset: DatasetVersion,
    parent: ModelVersion | None,
) -> ShardResult:
    files: dict[str, Any] = dict(parent.files) if parent else {}
    stored = []
    for path in trained.files:
        if path.name in files and files[path.name]["sha256"] == digest_of(path):
            continue  # unchanged since the parent
        put = lease.put("weights", path.name, path, MEDIA_TYPES.get(path.suffix, "text/plain"))
        files[path.name] = {"key": put.key, "sha256": put.sha256, "size": put.size}
        stored.append(put)
    digests = {name: f["sha256"] for name, f in files.items() if name.endswith(WEIGHTS_SUFFIX)}
    record = read_record(trained.folder)
    reports = [lease.put("report", path.name, path, media) for _, path, media in trained.reports]

    def add_version(session: Session) -> None:
        models.add_version(
            session,
            name=str(job.model),
            family=training.family.name,
            params=training.params.model_dump(mode="json"),
            format=training.family.format,
            files=files,
            weights_sha256=weights_digest(digests),
            metrics=trained.metrics,
            shape=record["shape"],
            parent_id=parent.id if parent else None,
            dataset_version_id=dataset.id,
            job_id=job.id,
            made_by=made_by(record),
        )

    return ShardResult([*stored, *reports], [add_version])


def train_from_newest(
    context: WorkerContext, job: JobBrief, lease: Lease, training: Training
) -> Trained:
    """Train from the newest checkpoint that can be used; without one from the beginning."""
    with context.services.database.read() as session:
        found = shards.checkpoints_of_line(session, job.id)
    for number, checkpoint in enumerate(found):
        path = _fetch(context.services, checkpoint, lease, training.folder)
        if path is None:
            continue
        inner = replace(training, folder=training.folder / f"run-{number}", resume=path)
        context.services.database.transact(
            partial(jobs.drop_points_after, job_id=job.id, step=checkpoint.step)
        )
        lease.log(f"resuming from the checkpoint of step {checkpoint.step}")
        try:
            return _run(context, inner, lease)
        except BadCheckpoint as error:  # perhaps another version of Genmill can use it
            _leave_out(checkpoint, error, lease)
    return _run(context, replace(training, folder=training.folder / "run"), lease)


def _run(context: WorkerContext, training: Training, lease: Lease) -> Trained:
    training.folder.mkdir()
    return context.networks.make_room(lambda: train(training, lease))


def _fetch(services: Services, found: Checkpoint, lease: Lease, folder: Path) -> Path | None:
    """Download a checkpoint; if its object is lost or damaged, mark it as bad and return None."""
    path = folder / "resume.safetensors"
    path.unlink(missing_ok=True)
    try:
        with hang_checks_paused([lease]):
            services.store.fetch(found.key, path, sha256=found.sha256)
    except (DigestMismatch, NotFound) as error:
        _leave_out(found, error, lease)
        services.database.transact(
            partial(shards.mark_bad, shard_id=found.shard_id, step=found.step)
        )
        return None
    return path


def _leave_out(checkpoint: Checkpoint, error: GenmillError, lease: Lease) -> None:
    text = f"the checkpoint of step {checkpoint.step} cannot be used: {error}"
    lease.log(text, level="warning")

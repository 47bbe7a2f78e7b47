"""A train or finetune job: the engine makes a new model version, whose files are stored."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import jobs, models, shards
from db.errors import DigestMismatch, GenmillError, NotFound, NothingToKeep
from db.interventions import cancel_unkept
from db.jobs import JobBrief
from db.tables import Checkpoint, DatasetVersion, ModelVersion, Shard
from worker.engine.checkpoints import BadCheckpoint
from worker.engine.stages import LOADING, STORING, Laps, Stages
from worker.engine.train import Trained, Training, train
from worker.files import digest_of, weights_digest
from worker.networks.version_folder import WEIGHTS_SUFFIX, made_by, read_record
from worker.services import Services
from worker.services.estimates import STAGES, describe_stages, training_estimate
from worker.services.pinned import PinnedTraining
from worker.shards.context import ShardResult, WorkerContext
from worker.shards.lease import Lease, hang_checks_paused

POLL_S = 0.1
MEDIA_TYPES = {".json": "application/json", ".safetensors": "application/octet-stream"}


def train_job(
    context: WorkerContext, job: JobBrief, pinned: PinnedTraining, lease: Lease, folder: Path
) -> ShardResult:
    """Train in `folder` and store the version's files; the caller commits the result."""
    spec, parent, laps = pinned.spec, pinned.version, Laps()
    with hang_checks_paused([lease]), Stages(lease.stages).under_way(LOADING):
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
        # after a worker that died, it ends where that one was told to
        ends_early=lambda done: lease.held.ends_early and done >= (job.stop_after or 0),
    )
    _log_request(context.services, pinned, training, lease, data=dataset)
    laps.end(LOADING)
    lease.held.ends_early |= job.stop_asked_at is not None
    try:
        trained = train_from_newest(context, job, lease, training)
    except NothingToKeep as order:
        cancel = partial(cancel_unkept, claim=lease.claim, reason=order.message)
        context.services.database.transact(cancel)
        raise
    for warning in trained.warnings:
        lease.warn(warning)
    made = _Made(job, training, trained, laps, dataset=dataset, parent=parent)
    return _store(made, lease)


def _log_request(
    services: Services,
    pinned: PinnedTraining,
    training: Training,
    lease: Lease,
    *,
    data: DatasetVersion,
) -> None:
    """Begin the log with what is asked for, and how long it can be expected to take."""
    spec, counts = pinned.spec, training.dataset.manifest["counts"]
    items = ", ".join(f"{counts[split]:,} {split}" for split in ("train", "validation", "test"))
    begun = f"from {spec.model}" if pinned.version else "from nothing"
    lease.log(f"training {training.family.name} {begun} on {spec.dataset} ({items})")
    given = training.params.model_dump(mode="json")
    lease.log("parameters: " + ", ".join(f"{key}={value}" for key, value in given.items()))
    limits = [f"{spec.max_steps:,} steps"] if spec.max_steps else []
    limits += [f"{spec.max_seconds:g} s"] if spec.max_seconds else []
    budget = " or ".join(limits) or f"{training.family.default_seconds:g} s"
    where = f"on {training.device} in {training.precision}"
    lease.log(f"budget: {budget}, seed {spec.seed}, {where}")
    with services.database.read() as session:
        expected = training_estimate(session, pinned, data=data)
    if expected.trainings:
        lease.log(
            f"outside the budget about {expected.outside_s:.0f} s more: {expected.stages} "
            f"({expected.trainings} earlier trainings)"
        )


@dataclass(frozen=True)
class _Made:
    """A version that was trained, and from what."""

    job: JobBrief
    training: Training
    trained: Trained
    laps: Laps  # of what goes on around the training
    dataset: DatasetVersion
    parent: ModelVersion | None

    def metrics(self) -> dict[str, Any]:
        """The training's numbers, with the seconds outside its budget and what is wrong with it."""
        inside, around = self.trained.stage_seconds, self.laps.seconds
        outside = {name: inside.get(name, 0.0) + around.get(name, 0.0) for name in STAGES}
        metrics = self.trained.metrics | {"stage_seconds": _rounded(outside)}
        warnings = self.trained.warnings
        return metrics | ({"warnings": warnings} if warnings else {})


def _store(made: _Made, lease: Lease) -> ShardResult:
    """Store the files that differ from the parent's, and the reports."""
    trained, parent = made.trained, made.parent
    files: dict[str, Any] = dict(parent.files) if parent else {}
    stored = []
    made.laps.skip()
    paths = [path for path in trained.files if not _unchanged(path, files)]
    count = len(paths) + len(trained.reports)
    with Stages(lease.stages).under_way(STORING, count, "files") as advance:
        for path in paths:
            media_type = MEDIA_TYPES.get(path.suffix, "text/plain")
            put = lease.put("weights", path.name, path, media_type)
            files[path.name] = {"key": put.key, "sha256": put.sha256, "size": put.size}
            stored.append(put)
            advance()
        for _, path, media in trained.reports:
            stored.append(lease.put("report", path.name, path, media))
            advance()
    made.laps.end(STORING)
    metrics = made.metrics()
    lease.log(f"outside the budget: {describe_stages(metrics['stage_seconds'])}")
    record = read_record(trained.folder)
    add = partial(_add_version, made=made, files=files, metrics=metrics, record=record)
    return ShardResult(stored, [add])


def _unchanged(path: Path, files: Mapping[str, Any]) -> bool:
    """Whether the parent has the same file."""
    return path.name in files and bool(files[path.name]["sha256"] == digest_of(path))


def _add_version(
    session: Session,
    *,
    made: _Made,
    files: dict[str, Any],
    metrics: dict[str, Any],
    record: Mapping[str, Any],
) -> None:
    job, training, parent = made.job, made.training, made.parent
    digests = {name: f["sha256"] for name, f in files.items() if name.endswith(WEIGHTS_SUFFIX)}
    version = models.add_version(
        session,
        name=str(job.model),
        family=training.family.name,
        params=training.params.model_dump(mode="json"),
        format=training.family.format,
        files=files,
        weights_sha256=weights_digest(digests),
        metrics=metrics,
        shape=record["shape"],
        parent_id=parent.id if parent else None,
        dataset_version_id=made.dataset.id,
        job_id=job.id,
        made_by=made_by(record),
    )
    size = sum(file["size"] for file in files.values())
    stored = f"stored as {job.model}:{version.number}, {size / 2**20:.1f} MiB"
    jobs.log(session, job.id, stored)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(took, 3) for name, took in seconds.items()}


def train_from_newest(
    context: WorkerContext, job: JobBrief, lease: Lease, training: Training
) -> Trained:
    """Train from the newest checkpoint that can be used; without one from the beginning."""
    _await_the_last(context.services, lease)
    with context.services.database.read() as session:
        found = [
            (each, session.get_one(Shard, each.shard_id).job_id)
            for each in shards.checkpoints_of_line(session, job.id)
        ]
    for number, (checkpoint, owner) in enumerate(found):
        path = _fetch(context.services, checkpoint, lease, training.folder)
        if path is None:
            continue
        inner = replace(training, folder=training.folder / f"run-{number}", resume=path)
        context.services.database.transact(partial(_resume_curves, job.id, checkpoint))
        whose = "" if owner == job.id else f" of job {owner}"
        lease.log(f"resuming from the checkpoint of step {checkpoint.step}{whose}")
        try:
            return _run(context, inner, lease)
        except BadCheckpoint as error:  # perhaps another version of Genmill can use it
            _leave_out(checkpoint, error, lease)
    return _run(context, replace(training, folder=training.folder / "run"), lease)


def _await_the_last(services: Services, lease: Lease) -> None:
    """Wait for the checkpoint of a training that was cancelled just now, and is retried by this."""
    while True:
        with services.database.read() as session:
            if not shards.is_being_left(session, lease.claim.job_id):
                return
        lease.raise_if_stopped()
        time.sleep(POLL_S)


def _resume_curves(job_id: str, found: Checkpoint, session: Session) -> None:
    """Let the job's curves end at a checkpoint of its own, or of the training that it retries."""
    jobs.drop_points_after(session, job_id, found.step)
    jobs.inherit_points(session, job_id, shard_id=found.shard_id, step=found.step)


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

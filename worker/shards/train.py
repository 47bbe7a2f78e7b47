"""A train or finetune job: the engine makes a new model version, whose files are stored."""

from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import jobs, models, shards
from db.claims import Claim
from db.errors import BadInput, DigestMismatch, NotFound
from db.jobs import JobBrief
from db.tables import Checkpoint, DatasetVersion, ModelVersion
from worker.engine import checkpoints
from worker.engine.train import Trained, Training, train
from worker.files import digest_of, weights_digest
from worker.networks.version_folder import WEIGHTS_SUFFIX, read_record
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
        resume = _resume_point(context.services, job, lease, folder / "resume.safetensors")
    (folder / "run").mkdir()
    training = Training(
        pinned.family,
        pinned.params,
        local,
        folder / "run",
        seed=spec.seed,
        max_steps=spec.max_steps,
        max_seconds=spec.max_seconds,
        device=context.device,
        precision=context.services.settings.precision,
        parent=parent_files.path if parent_files else None,
        resume=resume,
    )
    trained = context.networks.make_room(lambda: train(training, lease))
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
    shape = read_record(trained.folder)["shape"]
    reports = [lease.put("report", path.name, path, media) for _, path, media in trained.reports]

    def add_version(session: Session) -> None:
        models.add_version(
            session,
            name=str(job.model),
            family=training.family.name,
            params=training.params.model_dump(mode="json"),
            files=files,
            weights_sha256=weights_digest(digests),
            metrics=trained.metrics,
            shape=shape,
            parent_id=parent.id if parent else None,
            dataset_version_id=dataset.id,
            job_id=job.id,
        )

    return ShardResult([*stored, *reports], [add_version])


def _resume_point(services: Services, job: JobBrief, lease: Lease, path: Path) -> Path | None:
    """Download the newest usable checkpoint to `path`; mark the newer ones as bad."""
    while (found := _newest(services, job, lease.claim)) is not None:
        try:
            services.store.fetch(found.key, path, sha256=found.sha256)
            checkpoints.check(path)
        except (BadInput, DigestMismatch, NotFound) as error:
            text = f"the checkpoint of step {found.step} cannot be used: {error}"
            lease.log(text, level="warning")
            services.database.transact(
                partial(shards.mark_bad, shard_id=found.shard_id, step=found.step)
            )
        else:
            services.database.transact(
                partial(jobs.drop_points_after, job_id=job.id, step=found.step)
            )
            lease.log(f"resuming from the checkpoint of step {found.step}")
            return path
    return None


def _newest(services: Services, job: JobBrief, claim: Claim) -> Checkpoint | None:
    """The newest good checkpoint of the shard, else of the job that this one retries."""
    with services.database.read() as session:
        found = shards.latest_checkpoint(session, claim.shard_id)
        if found is None and job.retry_of is not None:
            earlier = jobs.shards_of(session, job.retry_of)[0]
            found = shards.latest_checkpoint(session, earlier.id)
        return found

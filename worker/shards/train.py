"""A train or finetune job: a new model version from the engine, its files stored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import jobs, models, shards
from db.claims import Claim
from db.errors import BadInput, DigestMismatch, NotFound
from db.tables import Checkpoint, DatasetVersion, Job, ModelVersion
from worker.engine import checkpoints
from worker.engine.train import Trained, Training, train
from worker.engine.weights import WEIGHTS_SUFFIX
from worker.families import find_family
from worker.files import digest_of, weights_digest
from worker.services import Services
from worker.shards.context import Made, WorkerContext
from worker.shards.lease import Lease
from worker.specs import Finetune, Train, parse_params

MEDIA_TYPES = {".json": "application/json", ".safetensors": "application/octet-stream"}


def train_job(
    bench: WorkerContext, job: Job, spec: Train | Finetune, lease: Lease, folder: Path
) -> Made:
    """Train in `folder` and store the version's files; the caller commits what is returned."""
    parent = bench.version(spec.model) if isinstance(spec, Finetune) else None
    with lease.excused():
        dataset, local = bench.dataset(spec.dataset)
        parent_files = bench.files(parent) if parent else None
        resume = _resume_point(bench.services, job, lease, folder / "resume.safetensors")
    (folder / "run").mkdir()
    family = find_family(spec.family if isinstance(spec, Train) else _family_of(bench, job))
    training = Training(
        family,
        parse_params(family.params, spec.params, what=family.name),
        local,
        folder / "run",
        seed=spec.seed,
        max_steps=spec.max_steps,
        max_seconds=spec.max_seconds,
        device=bench.device,
        precision=bench.services.settings.precision,
        parent=parent_files.path if parent_files else None,
        resume=resume,
    )
    trained = bench.networks.make_room(lambda: train(training, lease))
    return _store(job, training, trained, lease, dataset=dataset, parent=parent)


def _store(
    job: Job,
    training: Training,
    trained: Trained,
    lease: Lease,
    *,
    dataset: DatasetVersion,
    parent: ModelVersion | None,
) -> Made:
    inherited = parent.files if parent else {}
    own = [path for path in trained.files if not _is_there(path, inherited)]
    files = [
        lease.put("weights", path.name, path, MEDIA_TYPES.get(path.suffix, "text/plain"))
        for path in own
    ]
    stored = {f.name: {"key": f.key, "sha256": f.sha256, "size": f.size} for f in files}
    reports = [lease.put("report", path.name, path, media) for _, path, media in trained.reports]

    def add_version(session: Session) -> None:
        models.add_version(
            session,
            name=str(job.model),
            family=training.family.name,
            params=training.params.model_dump(mode="json"),
            files=inherited | stored,
            weights_sha256=_weights_of(inherited | stored),
            metrics=trained.metrics,
            parent_id=parent.id if parent else None,
            dataset_version_id=dataset.id,
            job_id=job.id,
        )

    return Made([*files, *reports], [add_version])


def _family_of(bench: WorkerContext, job: Job) -> str:
    with bench.services.database.read() as session:
        return models.get(session, str(job.model)).family


def _is_there(path: Path, files: Mapping[str, Any]) -> bool:
    """Whether a parent's files hold this one already, so that it needs no second copy."""
    return path.name in files and files[path.name]["sha256"] == digest_of(path)


def _weights_of(files: Mapping[str, Any]) -> str:
    return weights_digest(
        {name: file["sha256"] for name, file in files.items() if name.endswith(WEIGHTS_SUFFIX)}
    )


def _resume_point(services: Services, job: Job, lease: Lease, path: Path) -> Path | None:
    """Fetch the newest usable checkpoint into `path`, marking those that are not usable."""
    while (found := _newest(services, job, lease.claim)) is not None:
        try:
            services.store.fetch(found.key, path, sha256=found.sha256)
            checkpoints.check(path)
        except (BadInput, DigestMismatch, NotFound) as error:
            _mark_bad(services, found, lease, str(error))
        else:
            _forget_later_points(services, job, found.step)
            lease.log(f"going on from the checkpoint of step {found.step}")
            return path
    return None


def _newest(services: Services, job: Job, claim: Claim) -> Checkpoint | None:
    """The shard's newest good checkpoint, or else that of the job that this one retries."""
    with services.database.read() as session:
        found = shards.latest_checkpoint(session, claim.shard_id)
        if found is None and job.retry_of is not None:
            earlier = jobs.shards_of(session, job.retry_of)[0]
            found = shards.latest_checkpoint(session, earlier.id)
        return found


def _mark_bad(services: Services, found: Checkpoint, lease: Lease, error: str) -> None:
    lease.log(f"the checkpoint of step {found.step} cannot be used: {error}", level="warning")
    services.database.transact(lambda s: shards.mark_bad(s, found.shard_id, found.step))


def _forget_later_points(services: Services, job: Job, step: int) -> None:
    services.database.transact(lambda s: jobs.drop_points_after(s, job.id, step))

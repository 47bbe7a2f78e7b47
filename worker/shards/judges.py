"""The judge of a dataset version: found in the record, else trained and recorded.

Two workers may train one at once: the first that is recorded counts, and the other is read again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from db import evaluations
from db.tables import DatasetVersion, Judge
from worker.data.dataset import LocalDataset
from worker.evaluation import judge
from worker.evaluation.judge import JudgeNetwork
from worker.evaluation.judging import recipe_of, train_judge
from worker.evaluation.stages import Stage
from worker.shards.context import WorkerContext
from worker.shards.lease import Lease, hang_checks_paused

FILE = "judge.safetensors"


@dataclass(frozen=True)
class FoundJudge:
    """A judge, its name `RECIPE:SHA256`, and how well it does its own task."""

    network: JudgeNetwork
    name: str
    metrics: Mapping[str, Any]


def find_judge(
    context: WorkerContext,
    lease: Lease,
    folder: Path,
    stage: Stage,
    *,
    version: DatasetVersion,
    dataset: LocalDataset,
) -> FoundJudge:
    """The judge of a dataset version, trained in `folder` if there is none."""
    recipe = recipe_of(dataset)
    with context.services.database.read() as session:
        found = evaluations.find_judge(session, version.id, recipe)
    if found is None:
        found = _train(context, lease, folder, stage, version=version, dataset=dataset)
    path = folder / FILE
    with hang_checks_paused([lease]):
        context.services.store.fetch(found.key, path, sha256=found.sha256)
    stage.tick(1, 1)
    network = judge.load(path, context.device)
    return FoundJudge(network, f"{recipe}:{found.sha256}", found.metrics)


def _train(
    context: WorkerContext,
    lease: Lease,
    folder: Path,
    stage: Stage,
    *,
    version: DatasetVersion,
    dataset: LocalDataset,
) -> Judge:
    lease.log(f"training a judge on {version.summary['counts']['train']:,} items")
    path = folder / FILE
    train: Callable[[], dict[str, Any]] = partial(
        train_judge, dataset, path, device=context.device, stage=stage.part("", 0, 0.95)
    )
    metrics = context.networks.make_room(train)
    put = lease.put("report", FILE, path, "application/octet-stream")
    context.services.store.flush()
    lease.raise_if_stopped()
    recorded = context.services.database.transact(
        lambda session: evaluations.add_judge(
            session,
            dataset_version_id=version.id,
            recipe=recipe_of(dataset),
            job_id=lease.claim.job_id,
            key=put.key,
            sha256=put.sha256,
            metrics=metrics,
        )
    )
    lease.log(f"judge {recorded.recipe}:{recorded.sha256[:6]}: {metrics}")
    return recorded

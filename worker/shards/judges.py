"""The judge of a dataset version: found in the record, else built and recorded.

Two workers may build one at once: the first that is recorded counts, and the other is read again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from db import evaluations
from db.errors import BadInput, NotSupportedHere
from db.tables import DatasetVersion, Judge
from worker.data.dataset import LocalDataset
from worker.evaluation import judge
from worker.evaluation.judging import fit_judge, load_judge, recipe_of, train_judge
from worker.evaluation.stages import Stage
from worker.networks import image_model
from worker.networks.image_model import ImageModel
from worker.shards.context import WorkerContext
from worker.shards.lease import Lease, hang_checks_paused
from worker.specs import JudgeFolder

FILE = "judge.safetensors"

Train = Callable[..., dict[str, Any]]  # as `train_judge`
Tell = Callable[..., None]  # as `Lease.log`


@dataclass(frozen=True)
class FoundJudge:
    """A judge, its name `RECIPE:SHA256`, and how well it does its own task."""

    network: judge.Judge
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
    asked: JudgeFolder | str | None = None,
) -> FoundJudge:
    """The judge of a dataset version, built in `folder` if there is none.

    `asked` is a folder of an image model to build it on, or the name of a recorded judge.
    """
    if isinstance(asked, str):
        recipe, _, sha256 = asked.partition(":")
        with context.services.database.read() as session:
            found = evaluations.judge_of_digest(session, sha256)
    else:
        with hang_checks_paused([lease]):
            recipe, train = _recipe(dataset, asked, lease.log)
        with context.services.database.read() as session:
            known = evaluations.find_judge(session, version.id, recipe)
        found = known or _build(context, lease, folder, stage, recipe, train, version, dataset)
    path = folder / FILE
    with hang_checks_paused([lease]):
        context.services.store.fetch(found.key, path, sha256=found.sha256)
    stage.tick(1, 1)
    network = load_judge(path, context.device)
    return FoundJudge(network, f"{recipe}:{found.sha256}", found.metrics)


def _recipe(dataset: LocalDataset, asked: JudgeFolder | None, tell: Tell) -> tuple[str, Train]:
    """The name of the judges that are built like this one, and what builds it."""
    if asked is None:
        return recipe_of(dataset), train_judge
    if asked.sha256 is not None:  # perhaps it has been built, and the folder is not needed
        return image_model.recipe_of(asked.folder, asked.sha256), partial(_fit, asked, tell)
    source = _read(asked)
    return image_model.recipe_of(asked.folder, source.sha256), partial(_fit, asked, tell)


def _fit(
    asked: JudgeFolder, tell: Tell, dataset: LocalDataset, path: Path, **how: Any
) -> dict[str, Any]:
    source = _read(asked)
    if source.warning:
        tell(source.warning, level="warning")
    return fit_judge(dataset, source, path, **how)


def _read(asked: JudgeFolder) -> ImageModel:
    """Raise `NotSupportedHere` where the folder is not, `BadInput` where it is another one."""
    folder = Path(asked.folder)
    if not folder.exists():
        raise NotSupportedHere(
            f"this worker's machine has no {folder}, on which the judge is built",
            remedy="put the folder there, or run a worker where it is",
        )
    found = image_model.read_image_model(folder)
    if asked.sha256 not in {None, found.sha256}:
        raise BadInput(
            f"{folder} is not the folder that it was when the job was submitted: its SHA-256 is "
            f"{found.sha256}, not {asked.sha256}",
            remedy="submit the evaluation again",
        )
    return found


def _build(
    context: WorkerContext,
    lease: Lease,
    folder: Path,
    stage: Stage,
    recipe: str,
    train: Train,
    version: DatasetVersion,
    dataset: LocalDataset,
) -> Judge:
    lease.log(f"training a judge on {version.summary['counts']['train']:,} items")
    path = folder / FILE
    work: Callable[[], dict[str, Any]] = partial(
        train, dataset, path, device=context.device, stage=stage.part("", 0, 0.95)
    )
    metrics = context.networks.make_room(work)
    put = lease.put("report", FILE, path, "application/octet-stream")
    context.services.store.flush()
    lease.raise_if_stopped()
    recorded = context.services.database.transact(
        lambda session: evaluations.add_judge(
            session,
            dataset_version_id=version.id,
            recipe=recipe,
            job_id=lease.claim.job_id,
            key=put.key,
            sha256=put.sha256,
            metrics=metrics,
        )
    )
    lease.log(f"judge {recorded.recipe}:{recorded.sha256[:6]}: {metrics}")
    return recorded

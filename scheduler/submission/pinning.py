"""Pinning: every name in a request becomes a version, and every setting is checked.

A pinned spec (`worker.services.pinned`) means the same tomorrow. Everything that can be refused
without running a model is refused here, most of it by `checks`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from db import artifacts, datasets, evaluations, jobs, lineage, models, targets
from db.errors import Refused
from db.states import JobState
from db.tables import Dataset, DatasetVersion, Model, ModelVersion
from scheduler.submission.checks import (
    holds_conversation,
    refuse_conversation,
    refuse_new_labels,
    refuse_other_family,
    refuse_unfit_choice,
    refuse_unfit_data,
    refuse_unfit_images,
    refuse_unfit_label,
    refuse_unfit_prompts,
    refuse_unfit_protocol,
    refuse_unfit_rules,
    shape_of,
)
from worker.media import find_medium
from worker.publishing import find_kind
from worker.services import Services
from worker.services.marking import pin_marks
from worker.services.pinned import (
    Pinned,
    PinnedEvaluation,
    PinnedGeneration,
    PinnedPromotion,
    PinnedPublication,
    PinnedTraining,
    pin_model,
)
from worker.services.publishable import refuse_too_large
from worker.specs import BEFORE, Evaluate, Publish, Spec, Train

R = TypeVar("R", PinnedGeneration, PinnedPublication)


class Names:
    """The versions that names mean: each is looked up once, and means the same afterwards.

    `models` are known from the start; `used` is what the names of datasets stand for, if not for
    the newest version; `generated` is the job whose samples are published `before` the end.
    """

    def __init__(
        self,
        models: Mapping[str, tuple[Model, ModelVersion]] | None = None,
        used: Mapping[str, str] | None = None,
        *,
        generated: str | None = None,
    ) -> None:
        self.generated = generated
        self._models = dict(models or {})
        self._used = dict(used or {})
        self._datasets: dict[str, tuple[Dataset, DatasetVersion]] = {}

    def model(self, session: Session, reference: str) -> tuple[Model, ModelVersion]:
        """What `models.resolve` found first."""
        if reference not in self._models:
            self._models[reference] = models.resolve(session, reference)
        return self._models[reference]

    def dataset(self, session: Session, reference: str) -> tuple[Dataset, DatasetVersion]:
        """What `datasets.resolve` found first."""
        if reference not in self._datasets:
            meant = self._used.get(reference, reference)
            self._datasets[reference] = datasets.resolve(session, meant)
        return self._datasets[reference]


def pin(services: Services, session: Session, spec: Spec, names: Names | None = None) -> Pinned:
    """Resolve the names in a spec and check its settings. Raises `NotFound` or `Refused`."""
    names = names or Names()
    if isinstance(spec, Publish):
        spec = of_job(session, spec, names)
    pinned = pin_model(session, spec, names.model)
    if isinstance(pinned, PinnedPublication):
        return _pin_publication(services, session, pinned)
    if isinstance(pinned, PinnedTraining):
        return _pin_training_data(services, session, pinned, names)
    if isinstance(pinned, PinnedEvaluation | PinnedPromotion):
        return _pin_evaluation_data(services, session, pinned, names)
    refuse_unfit_label(services, pinned)
    refuse_unfit_prompts(pinned.spec, pinned.family)
    if holds_conversation(pinned.spec):
        refuse_conversation(services, pinned)
    pinned = _pin_rules(services, session, pinned)
    pinned = _pin_marks(services, session, pinned)
    if pinned.spec.dataset is None:
        pinned.params.check_images(None)
        return pinned
    return _pin_images(services, pinned, *names.dataset(session, pinned.spec.dataset))


def of_job(session: Session, spec: Publish, names: Names) -> Publish:
    """The spec with the whole id of the job that it names, and the model that made its samples.

    Raises `Refused` for a job without samples.
    """
    named = names.generated if spec.job == BEFORE else spec.job
    if named is None:
        if spec.model and spec.job is None:
            return spec
        none = "no job before it in its chain makes samples" if spec.job else "nothing is named"
        raise Refused(f"{none}, so there is nothing to publish", remedy="give a job or a model")
    job = jobs.get(session, named, kept=spec.take_down)
    if job.kind != "generate":
        raise Refused(
            f"job {job.id} is a {job.kind} job: samples of generate jobs are published, and model "
            "versions by their names"
        )
    if job.status != JobState.SUCCEEDED and not spec.take_down:
        raise Refused(
            f"job {job.id} is {job.status}: only the samples of jobs that succeeded are published",
            remedy="wait for it first; `genmill enqueue generate --publish TARGET` does both",
        )
    return spec.model_copy(update={"job": job.id, "model": str(job.spec["model"])})


def _pin_publication(
    services: Services, session: Session, pinned: PinnedPublication
) -> PinnedPublication:
    """Check the target and the rules, and count the items; what was removed is taken down only."""
    spec = pinned.spec
    kind = find_kind(targets.get(session, spec.target).kind)
    pinned = replace(pinned, lists_all=kind.lists_all)
    if spec.accept is not None:
        refuse_unfit_choice(spec, spec.accept)
        shape_of(services, pinned.version)  # its worker needs it on record
        pinned = _pin_rules(services, session, pinned)
    if spec.job is None:
        if not spec.take_down:
            refuse_too_large(pinned.spec.model, pinned.version)
        return replace(pinned, items=len(pinned.version.files))
    if not spec.take_down:
        artifacts.refuse_removed(session, spec.job)
    job = jobs.get(session, spec.job, kept=spec.take_down)
    return replace(pinned, items=job.samples or 0)


def _pin_training_data(
    services: Services, session: Session, pinned: PinnedTraining, names: Names
) -> PinnedTraining:
    spec, family = pinned.spec, pinned.family
    if isinstance(spec, Train):
        if not family.trains:
            raise Refused(
                f"family {family.name!r} cannot be trained from nothing",
                remedy=f"import a model with `genmill model import DIR --name {spec.model}`, then "
                f"run `genmill enqueue finetune {spec.model} --dataset {spec.dataset}`",
            )
        refuse_other_family(session, spec.model, family)
    dataset, data = names.dataset(session, spec.dataset)
    named = spec.model_copy(update={"dataset": f"{dataset.name}:{data.number}"})
    refuse_unfit_data(family, data, named.dataset)
    refuse_new_labels(services, pinned, data, named.dataset)
    return replace(pinned, spec=named)


def _pin_evaluation_data(
    services: Services, session: Session, pinned: PinnedEvaluation | PinnedPromotion, names: Names
) -> PinnedEvaluation | PinnedPromotion:
    """Pin the data, and the version to compare with."""
    spec, update = pinned.spec, dict[str, str]()
    if spec.dataset is not None:
        dataset, data = names.dataset(session, spec.dataset)
        update["dataset"] = f"{dataset.name}:{data.number}"
        refuse_unfit_data(pinned.family, data, update["dataset"])
        if isinstance(pinned, PinnedEvaluation):
            refuse_unfit_protocol(services, pinned, data, update["dataset"])
    if isinstance(spec, Evaluate) and spec.against is not None:
        model, version = names.model(session, spec.against)
        if model.family != pinned.family.name:
            raise Refused(
                f"{spec.against} is of family {model.family!r}, and {spec.model} of "
                f"{pinned.family.name!r}: they cannot be compared"
            )
        update["against"] = f"{model.name}:{version.number}"
    named: Any = spec.model_copy(update=update)
    return replace(pinned, spec=named)


def _pin_rules(services: Services, session: Session, pinned: R) -> R:
    """Name the judge and the training data that an order's rules need."""
    rules = pinned.spec.accept
    if rules is None:
        return pinned
    medium, trained_on = find_medium(pinned.family.media), pinned.version.dataset_version_id
    refuse_unfit_rules(rules, medium)
    if not rules.looks:
        return pinned
    if trained_on is None:
        raise Refused(
            f"the data that {pinned.spec.model} was trained on are not on record, so its samples "
            "cannot be compared with them",
            remedy="leave confidence, agreement, near_duplicates and copies_of_training out",
        )
    data = datasets.version(session, trained_on)
    name = lineage.dataset_reference(session, data)
    added = {"dataset": name}
    if medium.pictured:
        judge = evaluations.own_judge(session, trained_on)
        if judge is None:
            raise Refused(
                f"no judge has been trained on {name} yet, and the rules need one",
                remedy=f"run `genmill enqueue evaluate {pinned.spec.model} --dataset {name}` first",
            )
        added["judge"] = judge.sha256
        if not data.summary.get("labels") and (rules.agreement or rules.confidence is not None):
            raise Refused(
                f"{name} has no labels, so no judge can tell classes apart",
                remedy="leave confidence and agreement out",
            )
        if rules.agreement and not shape_of(services, pinned.version)["labels"]:
            raise Refused(
                f"samples of {pinned.spec.model} are asked for no class that a judge could see",
                remedy="write confidence>=P in place of agreement=yes: of the likeliest class",
            )
    named: Any = pinned.spec.model_copy(update={"accept": rules.model_copy(update=added)})
    return replace(pinned, spec=named)


def _pin_marks(services: Services, session: Session, pinned: PinnedGeneration) -> PinnedGeneration:
    """Complete the profile of marks, which the job, its model or the installation names."""
    marks = pin_marks(services, session, pinned.spec, find_medium(pinned.family.media))
    if marks is None and pinned.spec.marks is None:
        return pinned
    return replace(pinned, spec=pinned.spec.model_copy(update={"marks": marks}))


def _pin_images(
    services: Services, pinned: PinnedGeneration, dataset: Dataset, images: DatasetVersion
) -> PinnedGeneration:
    """Pin the version of the images; refuse those that the family or the model does not take."""
    name = f"{dataset.name}:{images.number}"
    refuse_unfit_images(services, pinned, images, name)
    pinned.params.check_images(images.summary["shape"]["size"])
    return replace(pinned, spec=pinned.spec.model_copy(update={"dataset": name}))

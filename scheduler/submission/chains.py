"""Jobs that wait for another: what can be refused at once, and what their names come to mean.

What follows a training may name data as `digits@champion`: the version that the champion was
trained on, by which the new version is measured. The new version's own data may be damaged, and
measured by them, a model that has learnt the damage would look good.

The version that such a job names may not exist yet, so its spec is stored as it was asked for, but
for its marks and their keys: those are of its submission. It is pinned when the job before it has
succeeded: a model's bare name then means the version that its chain made, and a dataset's bare name
the version that its chain used.
"""

from collections.abc import Mapping

from sqlalchemy.orm import Session

from db import chains, datasets, models, targets
from db.errors import NotFound, Refused
from db.registry import Reference
from db.tables import DatasetVersion
from scheduler.submission.checks import (
    refuse_small_split,
    refuse_unfit_data,
    refuse_unfit_marks,
    refuse_unfit_prompts,
)
from scheduler.submission.pinning import Names, of_job, pin
from worker.families import find_family
from worker.gate.policy import policy_for
from worker.media import find_medium
from worker.metrics.catalogue import METRICS
from worker.networks.family import Family
from worker.services import Services
from worker.services.pinned import complete
from worker.specs import BEFORE, Evaluate, Finetune, Generate, Promote, Publish, Spec, Train

Families = Mapping[str, Family]  # of the models that a chain makes, by name


def check_waiting(
    services: Services, session: Session, spec: Spec, made: Families, names: Names
) -> Family:
    """The family of a job that will wait. Raises `NotFound` or `Refused` for what is wrong now.

    `made` are the models that the jobs before it make.
    """
    if isinstance(spec, Publish):
        return _check_waiting_publication(session, spec, made, names)
    model, number, alias = Reference.parse(spec.model)
    if isinstance(spec, Train) or model not in made or number or alias:
        return pin(services, session, without_missing(session, spec), names).family
    family = made[model]
    complete(spec, family, None)
    if isinstance(spec, Generate):
        refuse_unfit_prompts(spec, family)
        refuse_unfit_marks(spec, family)
    if spec.dataset is not None:
        dataset, data = names.dataset(session, spec.dataset)
        reference = f"{dataset.name}:{data.number}"
        if not isinstance(spec, Generate):
            refuse_unfit_data(family, data, reference)
        if isinstance(spec, Evaluate):
            refuse_small_split(spec, data, reference)
    return family


def _check_waiting_publication(
    session: Session, spec: Publish, made: Families, names: Names
) -> Family:
    targets.get(session, spec.target)
    if spec.job not in {None, BEFORE}:
        spec = of_job(session, spec, names)
    model = Reference.parse(spec.model).name
    return made[model] if model in made else find_family(names.model(session, spec.model)[0].family)


def on_known_data(session: Session, spec: Spec, training: Train | Finetune) -> Spec:
    """A spec that follows a training, with a dataset version in place of `DATASET@ALIAS`.

    It is the training's own dataset if no version of its model has the alias, or if the one that
    has was trained on other data, or on data that are removed, of another form or never held out.
    """
    if isinstance(spec, Publish):
        return spec
    name, _, alias = Reference.parse(spec.dataset or "")
    if alias is None or name != Reference.parse(training.dataset).name:
        return spec
    new = datasets.resolve(session, training.dataset)[1]
    known = _data_of(session, f"{spec.model}@{alias}")
    reference = training.dataset
    if known and known.dataset_id == new.dataset_id and not known.removed_at:
        fits = known.summary["counts"]["test"] and _form(known) == _form(new)
        reference = f"{name}:{known.number}" if fits else reference
    return spec.model_copy(update={"dataset": reference})


def _data_of(session: Session, model: str) -> DatasetVersion | None:
    """The data that a model version was trained on, if there are both."""
    try:
        trained_on = models.resolve(session, model)[1].dataset_version_id
    except NotFound:
        return None
    return datasets.version(session, trained_on) if trained_on else None


def _form(data: DatasetVersion) -> tuple[object, ...]:
    """What must be equal of two versions that a model can be measured by."""
    return data.kind, data.summary["shape"] | {"labels": data.summary.get("labels") or []}


def refuse_undecidable(
    session: Session, measured: Evaluate, promotion: Promote, family: Family
) -> None:
    """Refuse a promotion whose policy names a number that takes more items than are measured."""
    if "primary" not in promotion.policy:
        return
    medium = find_medium(family.media)
    metric = policy_for(medium.name, promotion.policy).primary.metric
    held_out = datasets.resolve(session, measured.dataset)[1].summary["counts"][measured.split]
    count, fewest = measured.count or min(medium.evaluated, held_out), METRICS[metric].fewest
    if medium.pictured and count < fewest:
        raise Refused(
            f"the policy decides by {metric}, which takes {fewest:,} items and would get {count:,}",
            remedy="decide by another number, such as kid, or measure more with --evaluate-count",
        )


def names_of_chain(session: Session, job_id: str) -> Names:
    """What the names in a waiting job's spec mean: first what the jobs before it made and used."""
    made = chains.made_before(session, job_id)
    used = {Reference.parse(each).name: each for each in made.datasets}
    return Names(made.models, used, generated=made.generated)


def without_missing(session: Session, spec: Spec) -> Spec:
    """The spec without an `against` whose alias names no version yet."""
    if not isinstance(spec, Evaluate) or spec.against is None or "@" not in spec.against:
        return spec
    try:
        models.resolve(session, spec.against)
    except NotFound:
        return spec.model_copy(update={"against": None})
    return spec

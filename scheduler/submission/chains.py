"""Jobs that wait for another: what can be refused at once, and what their names come to mean.

The version that such a job names may not exist yet, so its spec is stored as it was asked for. It
is pinned when the job before it has succeeded: a model's bare name then means the version that its
chain made, and a dataset's bare name the version that its chain used.
"""

from collections.abc import Mapping

from sqlalchemy.orm import Session

from db import chains, models
from db.errors import NotFound
from db.registry import Reference
from scheduler.submission.pinning import (
    Names,
    pin,
    refuse_small_split,
    refuse_unfit_data,
    refuse_unfit_prompts,
)
from worker.networks.family import Family
from worker.services import Services
from worker.services.pinned import complete
from worker.specs import Evaluate, Generate, Spec, Train

Families = Mapping[str, Family]  # of the models that a chain makes, by name


def check_waiting(
    services: Services, session: Session, spec: Spec, made: Families, names: Names
) -> Family:
    """The family of a job that will wait. Raises `NotFound` or `Refused` for what is wrong now.

    `made` are the models that the jobs before it make.
    """
    model, number, alias = Reference.parse(spec.model)
    if isinstance(spec, Train) or model not in made or number or alias:
        return pin(services, session, without_missing(session, spec), names).family
    family = made[model]
    complete(spec, family, None)
    if isinstance(spec, Generate):
        refuse_unfit_prompts(spec, family)
    if spec.dataset is not None:
        dataset, data = names.dataset(session, spec.dataset)
        reference = f"{dataset.name}:{data.number}"
        if not isinstance(spec, Generate):
            refuse_unfit_data(family, data, reference)
        if isinstance(spec, Evaluate):
            refuse_small_split(spec, data, reference)
    return family


def names_of_chain(session: Session, job_id: str) -> Names:
    """What the names in a waiting job's spec mean: first what the jobs before it made and used."""
    made = chains.made_before(session, job_id)
    used = {Reference.parse(each).name: each for each in made.datasets}
    return Names(made.models, used)


def without_missing(session: Session, spec: Spec) -> Spec:
    """The spec without an `against` whose alias names no version yet."""
    if not isinstance(spec, Evaluate) or spec.against is None or "@" not in spec.against:
        return spec
    try:
        models.resolve(session, spec.against)
    except NotFound:
        return spec.model_copy(update={"against": None})
    return spec

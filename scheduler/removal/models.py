"""Removing versions of models."""

from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from db import evaluations, lineage, models, version_removal
from db.errors import Gone, Refused
from db.holders import Held
from db.registry import Reference
from db.tables import Model, ModelVersion
from scheduler.output.render import to_count
from scheduler.removal.objects import finish_versions, sweep_all
from scheduler.removal.plan import Item, Plan, refuse_held
from scheduler.removal.schedules import naming_models
from worker.identity import who
from worker.services import Services

REMEDY = (
    "remove or end what names it first, or together with it; one that only others were tuned from "
    "can be hidden with --keep-artifacts"
)


@dataclass
class ModelPlan(Plan):
    """The versions of one model to remove."""

    model: Model | None = None
    kept: bool = False

    def carry_out(self, services: Services) -> None:
        """Remove them. Raises `Refused` if something has come to name one: then all stay."""
        if self.model is None:
            return
        services.store.verify()  # before anything goes
        ids = [item.id for item in self.items]
        work = partial(version_removal.remove_versions, model=self.model, ids=ids)
        held = services.database.transact(partial(work, who=who(), kept=self.kept))
        refuse_held(held, {item.id: item.name for item in self.items}, remedy=REMEDY)
        sweep_all(services, ids)


def plan_models(services: Services, reference: str, *, kept: bool, dry_run: bool) -> ModelPlan:
    """What removing a version, or all versions of a bare name, would do.

    Finishes the removal of one that was interrupted, unless this is a `dry_run`. Raises `Refused`
    for a version that is held, `NotFound`, and `Gone` for one that has been removed.
    """
    _refuse_alias(reference)
    try:
        with services.database.read() as session:
            model, versions = version_removal.removable_versions(session, reference)
            return _plan(session, model, versions, kept=kept)
    except Gone:
        finished = [] if dry_run else finish_versions(services, "model", reference)
        if not finished:
            raise
    return ModelPlan(finished=finished)


def _plan(session: Session, model: Model, versions: list[ModelVersion], *, kept: bool) -> ModelPlan:
    names = {each.id: f"{model.name}:{each.number}" for each in versions}
    held = version_removal.version_holders(session, model, versions, kept=kept)
    refuse_held(_with_schedules(session, model, versions, held), names, remedy=REMEDY)
    plan = ModelPlan(model=model, kept=kept)
    sizes = version_removal.version_sizes(session, versions)
    for version in versions:
        size = {} if kept else sizes[version.id]
        place = (version.id, names[version.id], sum(size.values()), len(size))
        plan.items.append(Item("model", *place, kept=kept))
    if not kept:
        plan.follows = _follows(session, versions, list(names.values()))
    return plan


def _with_schedules(
    session: Session, model: Model, versions: list[ModelVersion], held: Held
) -> Held:
    """What is held, also by schedules."""
    numbers = {str(each.number): each.id for each in versions}
    left = {str(each.number) for each in models.versions(session, model)} - numbers.keys()

    def means(reference: Reference) -> bool:
        if reference.name != model.name:
            return False
        if reference.number is not None:
            return reference.number in numbers
        return not left  # an alias of a version that goes holds it anyway

    for name in naming_models(session, means):
        for version_id in numbers.values():
            held.setdefault(version_id, []).append(f"the schedule {name} uses it")
    return held


def _follows(session: Session, versions: list[ModelVersion], names: list[str]) -> list[str]:
    """What removing the versions changes for what stays."""
    told = []
    for name, (jobs, samples) in sorted(lineage.count_generated(session, names).items()):
        told.append(
            f"{to_count(jobs, 'job')} asked for {to_count(samples, 'sample')} of {name}: what was "
            "made stays, and can no longer be reproduced"
        )
    measured = sum(len(evaluations.of_version(session, each.id)) for each in versions)
    if measured:
        told.append(f"gone with it: {to_count(measured, 'evaluation')}")
    for version in versions:
        if version.job_id:
            told.append(f"job {version.job_id}, which trained it, stays: `genmill job remove` it")
    return told


def _refuse_alias(reference: str) -> None:
    if Reference.parse(reference).alias is not None:
        raise Refused(
            f"{reference} is an alias, which may come to mean another version",
            remedy="use NAME:VERSION, or a bare NAME for all versions",
        )

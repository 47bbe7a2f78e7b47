"""The schedules that name a model, dataset or target, or that withdrawn data would come back by."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from sqlalchemy.orm import Session

from db import datasets, lineage, models, schedules
from db.audit_trail import note
from db.errors import GenmillError, NotFound, Refused
from db.registry import Reference
from db.tables import Dataset, DatasetVersion, Schedule
from scheduler.output.render import first_lines, to_count
from scheduler.schedules.parsing import parse_repeated
from scheduler.submission.batch_lines import read_batch
from scheduler.submission.json_lines import parse_object
from worker.specs import Finetune, Publish, Spec, Train, parse_spec

Means = Callable[[Reference], bool]


class Affected(NamedTuple):
    """A schedule that uses withdrawn data, or a model version that learnt from them."""

    schedule: str
    uses: list[str]  # the data and versions
    trains: bool  # on the data, or further from such a version

    @property
    def row(self) -> dict[str, object]:
        """Plain data about it: one that trains is paused."""
        return {"schedule": self.schedule, "uses": self.uses, "paused": self.trains}


def naming_models(session: Session, means: Means) -> list[str]:
    """The names of the schedules whose jobs start from a model, or compare with one."""
    return [each.name for each in schedules.listing(session) if any(map(means, _models(each)))]


def refuse_alias(session: Session, reference: str) -> None:
    """Raise `Refused` if a schedule names an alias, such as `digits@tested`."""
    named = Reference.parse(reference)
    if using := naming_models(session, lambda each: each == named):
        raise Refused(
            f"{reference} is not removed: {to_count(len(using), 'schedule')} would fail without "
            f"it: {', '.join(first_lines(using))}",
            remedy="remove these schedules, or give the alias to another version",
        )


def naming_datasets(session: Session, means: Means) -> list[str]:
    """The names of the schedules whose jobs use a dataset."""
    return [each.name for each in schedules.listing(session) if any(map(means, _datasets(each)))]


def publishing_at(session: Session, target: str) -> list[str]:
    """The names of the schedules whose jobs publish at a target, or take down there."""

    def publishes(schedule: Schedule) -> bool:
        return any(isinstance(s, Publish) and s.target == target for s in _specs(schedule))

    return [each.name for each in schedules.listing(session) if publishes(each)]


def affected_by(session: Session, withdrawn: Sequence[DatasetVersion]) -> list[Affected]:
    """The schedules that name withdrawn versions, or model versions that learnt from them, now."""
    tainted = _tainted(session, withdrawn)
    found = (_affected(session, each, tainted) for each in schedules.listing(session))
    return [each for each in found if each.uses]


def pause_trainings(session: Session, affected: Sequence[Affected], who: str) -> None:
    """Pause those that train. The audit trail says so of each that was not paused before."""
    for each in affected:
        with suppress(NotFound):  # it was removed meanwhile
            if each.trains and not schedules.get(session, each.schedule).paused:
                schedules.pause(session, each.schedule)
                told = {"reason": "withdrawn", "uses": each.uses}
                note(session, who, "paused", each.schedule, told)


def refuse_withdrawn(session: Session, name: str, *, force: bool) -> list[str]:
    """What a paused schedule would train on although it, or what it learnt from, was withdrawn.

    Raises `Refused` if there is any, unless `force`; and `NotFound`.
    """
    schedule = schedules.get(session, name)
    if not schedule.paused:
        return []
    found = _affected(
        session, schedule, _tainted(session, datasets.all_withdrawn_versions(session))
    )
    if found.trains and not force:
        raise Refused(
            f"schedule {name!r} would train on withdrawn data, or on a model that learnt from "
            f"them: {', '.join(found.uses)}",
            remedy="remove it, and add it again with other data; --force runs it nevertheless, "
            "and is recorded",
        )
    return found.uses if found.trains else []


def _tainted(session: Session, withdrawn: Sequence[DatasetVersion]) -> set[str]:
    learnt = lineage.trained_on(session, [each.id for each in withdrawn])
    return {each.reference for each in learnt} | _without_data(session, withdrawn)


def _without_data(session: Session, withdrawn: Sequence[DatasetVersion]) -> set[str]:
    """The references that no data are left for: to versions, and bare names of which all went."""
    gone = {each.id for each in withdrawn}
    found = {lineage.dataset_reference(session, each) for each in withdrawn}
    for dataset_id in {each.dataset_id for each in withdrawn}:
        dataset = session.get_one(Dataset, dataset_id)
        if gone.issuperset(each.id for each in datasets.versions(session, dataset)):
            found.add(dataset.name)
    return found


def _affected(session: Session, schedule: Schedule, tainted: Collection[str]) -> Affected:
    uses, trains = list[str](), False
    for chain in _chains(schedule):
        made = set[str]()  # the models whose bare names mean what the chain makes
        for spec in chain:
            named = [each for each in _meant(session, spec, made) if each in tainted]
            uses += named
            if isinstance(spec, Train | Finetune):
                trains = trains or bool(named)
                made.add(Reference.parse(spec.model).name)
    return Affected(schedule.name, list(dict.fromkeys(uses)), trains)


def _meant(session: Session, spec: Spec, made: Collection[str]) -> Iterator[str]:
    """The data that a spec names, and the model version that it starts from, as of now."""
    if dataset := getattr(spec, "dataset", None):
        yield dataset
    if isinstance(spec, Train) or not spec.model or spec.model in made:
        return
    with suppress(NotFound):
        model, version = models.resolve(session, spec.model)
        yield f"{model.name}:{version.number}"


def _models(schedule: Schedule) -> Iterator[Reference]:
    for spec in _specs(schedule):
        if not isinstance(spec, Train):
            yield Reference.parse(spec.model)
        if against := getattr(spec, "against", None):
            yield Reference.parse(against)


def _datasets(schedule: Schedule) -> Iterator[Reference]:
    for spec in _specs(schedule):
        if dataset := getattr(spec, "dataset", None):
            yield Reference.parse(dataset)


def _specs(schedule: Schedule) -> Iterator[Spec]:
    for chain in _chains(schedule):
        yield from chain


def _chains(schedule: Schedule) -> Iterator[Sequence[Spec]]:
    """What a schedule asks for, as far as that can be read: its batch may be gone by now."""
    with suppress(GenmillError):
        command = parse_repeated(schedule.command)
        if command.spec is not None:
            yield [command.spec, *command.then]
            return
        for line in read_batch(command.file):
            yield from _line(line)


def _line(line: str) -> Iterator[Sequence[Spec]]:
    with suppress(GenmillError):
        data = parse_object(line)
        for column in ("custom_id", "priority", "after"):
            data.pop(column, None)
        yield [parse_spec(data)]

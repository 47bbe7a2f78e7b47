"""The schedules that name a model or a dataset."""

from collections.abc import Callable, Iterator
from contextlib import suppress

from sqlalchemy.orm import Session

from db import schedules
from db.errors import GenmillError, Refused
from db.registry import Reference
from db.tables import Schedule
from scheduler.output.render import first_lines, to_count
from scheduler.schedules.parsing import parse_repeated
from scheduler.submission.batch_lines import read_batch
from scheduler.submission.json_lines import parse_object
from worker.specs import Spec, Train, parse_spec

Means = Callable[[Reference], bool]


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
    """What a schedule asks for, as far as that can be read: its batch may be gone by now."""
    with suppress(GenmillError):
        command = parse_repeated(schedule.command)
        if command.spec is not None:
            yield command.spec
            yield from command.then
            return
        for line in read_batch(command.file):
            yield from _spec_of(line)


def _spec_of(line: str) -> Iterator[Spec]:
    with suppress(GenmillError):
        data = parse_object(line)
        for column in ("custom_id", "priority", "after"):
            data.pop(column, None)
        yield parse_spec(data)

"""What `genmill publish WHAT` names: the jobs to publish, or a model version."""

import json
from dataclasses import replace

from sqlalchemy.orm import Session

from db import models, published, targets
from db.causes import Cause
from db.errors import GenmillError, NotFound, Refused
from db.registry import Reference
from scheduler.results.waiting import find_groups
from scheduler.submission.arguments import EnqueueCommand
from worker.services import Services
from worker.specs import Publish


class NothingThere(NotFound):
    """Nothing is at a target of what was to be taken down there."""

    cause = Cause.WORK


def resolved(services: Services, command: EnqueueCommand) -> EnqueueCommand:
    """The command with what it names: one publish job, or a batch of one for each of its jobs.

    Raises `NotFound`, which is `NothingThere` where there is nothing to take down, or `Refused`.
    """
    assert isinstance(command.spec, Publish)  # noqa: S101 - for mypy: of `publish`
    with services.database.read() as session:
        target = targets.get(session, command.spec.target)
        job_ids = _jobs(session, command.spec.model)
        if command.spec.take_down and not _is_repeated(session, command):
            named = job_ids or [_version(session, command.spec.model)]
            there = published.there(session, target, named)
            if not there:
                raise NothingThere(
                    f"nothing of {command.spec.model!r} is published at {target.name!r}",
                    remedy=f"`genmill publications list --target {target.name}` shows what is",
                )
            job_ids = job_ids and [each for each in job_ids if each in there]
    if job_ids is None:
        return command
    specs = [command.spec.model_copy(update={"job": each, "model": ""}) for each in job_ids]
    if len(specs) == 1:
        return replace(command, spec=specs[0])
    lines = tuple(json.dumps(spec.model_dump(mode="json")) for spec in specs)
    return replace(command, spec=None, lines=lines)


def _is_repeated(session: Session, command: EnqueueCommand) -> bool:
    """Whether a job was made with the command's key before: it will be found again."""
    key = command.idempotency_key
    return key is not None and bool(published.known_keys(session, [key]))


def _version(session: Session, reference: str) -> str:
    """The whole name of a model version, such as digits:3, removed or not."""
    model, version = models.resolve_removed(session, reference)
    return f"{model.name}:{version.number}"


def _jobs(session: Session, what: str) -> list[str] | None:
    """The generate jobs that an id or a prefix of one names; None for a model."""
    if _is_model(session, what):
        return None
    try:
        [group] = find_groups(session, [what], kept=True).values()
    except NotFound as error:
        raise _nothing(session, what, error) from None
    found = [job.id for job in group if job.kind == "generate"]
    if not found and len(group) > 1:
        raise Refused(f"batch {what} has no generate jobs, so it has no samples to publish")
    return found or [job.id for job in group]


def _is_model(session: Session, what: str) -> bool:
    name, number, alias = Reference.parse(what)
    if number is not None or alias is not None:
        return True
    try:
        models.get(session, name)
    except NotFound:
        return False
    return True


def _nothing(session: Session, what: str, error: GenmillError) -> GenmillError:
    """The error for what is neither; that of the model where it cannot be an id."""
    if "hexadecimal" not in error.message:
        return error
    known = models.names(session)
    return NotFound.unknown("job, batch or model", what, known)

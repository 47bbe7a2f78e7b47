"""Idempotency keys: a key used again means the job that it made, and no other.

A job keeps its spec pinned. The same words asked later may be pinned otherwise, for there are newer
versions by then; so what is asked is compared with what was kept, not with a pinning of today.
"""

from typing import Any

from sqlalchemy.orm import Session

from db import models
from db.errors import Refused
from db.registry import Reference
from db.tables import Job
from scheduler.submission.pinning import AnySpec, complete
from worker.families import find_family
from worker.specs import Train, parse_spec

REFERENCES = ("model", "dataset")


def refuse_another(session: Session, key: str, asked: AnySpec, job: Job) -> None:
    """Refuse a `key` that made `job` for another request, naming what differs."""
    made = parse_spec(job.spec)
    if other := _other_fields(asked, made) or _other_params(session, asked, made):
        raise Refused(
            f"idempotency key {key!r} belongs to job {job.id}, a {job.kind} job of model "
            f"{job.model!r} that differs in {', '.join(other)}; use another key for another request"
        )


def _other_fields(asked: AnySpec, made: AnySpec) -> list[str]:
    """The fields but `params` that differ; a version counts where the request names its number."""
    wanted = asked.model_dump(mode="json", exclude={"params"})
    kept = made.model_dump(mode="json")
    return [
        name
        for name, value in wanted.items()
        if value != kept.get(name) and not (name in REFERENCES and _may_mean(value, kept.get(name)))
    ]


def _may_mean(asked: str | None, kept: str | None) -> bool:
    """Whether `pets` or `pets@best` may once have meant `pets:1`."""
    if asked is None or kept is None:
        return False
    reference = Reference.parse(asked)
    return reference.number is None and reference.name == Reference.parse(kept).name


def _other_params(session: Session, asked: AnySpec, made: AnySpec) -> list[str]:
    """The parameters that differ, once those that were not asked for are as the job found them."""
    if isinstance(made, Train):
        family, version = find_family(made.family), None
    else:
        model, version = models.resolve(session, made.model)
        family = find_family(model.family)
    wanted: dict[str, Any] = complete(asked, family, version)
    return [f"params.{name}" for name, value in wanted.items() if value != made.params.get(name)]

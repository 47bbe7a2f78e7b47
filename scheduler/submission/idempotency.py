"""Idempotency keys: a key used again means the job that it made, and no other.

A job keeps its spec pinned. The same request may be pinned differently later, for there may be
newer versions by then; so what is asked is compared with what was kept, not with a new pinning.
"""

from sqlalchemy.orm import Session

from db.errors import Refused
from db.registry import Reference
from db.tables import Job
from worker.services.pinned import Pinned, complete, pin_model
from worker.specs import Spec, parse_spec

REFERENCES = ("model", "dataset")


def refuse_another(session: Session, key: str, asked: Spec, job: Job) -> None:
    """Refuse a `key` that made `job` for another request, naming what differs."""
    made = pin_model(session, parse_spec(job.spec))
    if other := _other_fields(asked, made) or _other_params(asked, made):
        raise Refused(
            f"idempotency key {key!r} belongs to job {job.id}, a {job.kind} job of model "
            f"{job.model!r} that differs in {', '.join(other)}",
            remedy="use another key for another request",
        )


def _other_fields(asked: Spec, made: Pinned) -> list[str]:
    """The fields but `params` that differ; a version counts where the request names its number."""
    kept = dict(made.spec)
    return [
        name
        for name, value in asked
        if name != "params"
        and value != kept.get(name)
        and not (name in REFERENCES and _may_mean(value, kept.get(name)))
    ]


def _may_mean(asked: str | None, kept: str | None) -> bool:
    """Whether `pets` or `pets@best` may once have meant `pets:1`."""
    if asked is None or kept is None:
        return False
    reference = Reference.parse(asked)
    return reference.number is None and reference.name == Reference.parse(kept).name


def _other_params(asked: Spec, made: Pinned) -> list[str]:
    """The parameters that differ, once those that were not asked for are as the job found them."""
    wanted = complete(asked, made.family, made.version)
    kept = dict(made.params)
    return [f"params.{name}" for name, value in wanted if value != kept[name]]

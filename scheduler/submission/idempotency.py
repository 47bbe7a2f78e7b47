"""Idempotency keys: a request that repeats a key must be the request that first used it.

A job keeps its spec pinned. The same request may be pinned differently later, when there are newer
versions; so a request is compared with the stored spec, not pinned again.
"""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from db import chains
from db.errors import Refused
from db.registry import Reference
from db.tables import Job
from scheduler.submission.pinning import Names
from worker.marks.profiles import is_same
from worker.services.pinned import REFERENCES, complete, is_pinned, pin_model
from worker.services.prompts import SHA256, digest, with_prompts
from worker.specs import BEFORE, Generate, Publish, Spec, is_seed_given, parse_recorded


def refuse_different(
    session: Session, key: str, asked: Spec, job: Job, names: Names | None = None
) -> None:
    """Raise `Refused`, naming what differs, if `key` made `job` for another request."""
    prompts = asked.prompts if isinstance(asked, Generate) else []
    named = job.spec.get(SHA256)  # their digest tells whether they are the same
    data = with_prompts(job.spec, prompts) if named else job.spec
    spec = parse_recorded(data)
    pinned = job.after_id is None or is_pinned(spec)
    stored = pin_model(session, spec, (names or Names()).model) if pinned else None
    different = _different_fields(asked, stored.spec if stored else spec)
    if named and named != digest(prompts):
        different.append("prompts")
    if not stored and getattr(asked, "params", None) != getattr(spec, "params", None):
        different.append("params")
    if stored and not different:
        # settings that were not asked for have the values that the job found
        params = dict(stored.params)
        completed = complete(asked, stored.family, stored.version)
        different = [f"params.{name}" for name, value in completed if value != params[name]]
    if different:
        raise Refused(
            f"idempotency key {key!r} belongs to job {job.id}, a {job.kind} job of model "
            f"{job.model!r} that differs in {', '.join(different)}",
            remedy="use a new key",
        )


def refuse_different_chain(session: Session, key: str, then: Sequence[Spec], job: Job) -> None:
    """Raise `Refused` unless the jobs after `job` are those of the request that repeats its key."""
    found = [parse_recorded(each.spec) for each in chains.followers(session, job.id)]
    if [each.kind for each in found] != [each.kind for each in then]:
        kinds = ", ".join(each.kind for each in found) or "nothing"
        raise Refused(
            f"idempotency key {key!r} belongs to job {job.id}, which is followed by {kinds}",
            remedy="use a new key",
        )
    for asked, stored in zip(then, found, strict=True):
        different = set(_different_fields(asked, stored))
        if getattr(stored, "against", None) is None:  # there was no such version then
            different -= {"against"}
        if different:
            raise Refused(
                f"idempotency key {key!r} belongs to job {job.id}, whose {asked.kind} job differs "
                f"in {', '.join(sorted(different))}",
                remedy="use a new key",
            )


def _different_fields(asked: Spec, stored: Spec) -> list[str]:
    """The fields other than `params`, and the format that those are of, that differ.

    A request without a seed does not differ in the one that was drawn for it, nor one without marks
    in those that samples get by default, nor one that publishes in the job and model that were
    found for it. A reference without a
    version number, such as `pets` or `pets@best`, may once have meant any
    version: `pets:1` does not differ from it.
    """
    different = []
    for name, value in asked:
        found = getattr(stored, name, None)
        if name == "accept" and value and found:
            found = found.asked  # without what was pinned
        drawn = name == "seed" and not is_seed_given(asked)
        named = isinstance(asked, Publish) and name in {"job", "model"} and value in {"", BEFORE}
        if name in {"params", "format"} or drawn or named or value == found:
            continue
        if name == "marks" and is_same(value, found):
            continue
        if name in REFERENCES and value and found:
            reference = Reference.parse(value)
            if reference.number is None and reference.name == Reference.parse(found).name:
                continue
        different.append(name)
    return different

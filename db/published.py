"""What is at targets, by job and by model version."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, String, case, cast, func, or_, select, true
from sqlalchemy.orm import Session

from db import lineage
from db.publications import ALTERED, MISSING, PUBLISHED, REFUSED, THERE
from db.session import clock
from db.states import FINAL
from db.tables import DatasetVersion, Job, Model, ModelVersion, Publication, Shard, Target

# what `counts` calls items that another job has published: whether it is known how they are, and
# what this one did about those that were missing or altered
BEFORE, UNCHANGED = "published before", "unchanged"
PUT_BACK, REPAIRED = "put back", "repaired"
_AGAIN = {MISSING: PUT_BACK, ALTERED: REPAIRED}


class Shown(NamedTuple):
    """How many of a job's samples, or of a model version's files, are at a target."""

    target: str  # its name
    job_id: str | None
    model: str  # the version, as in digits:3, if there is no job
    items: int

    @property
    def reference(self) -> str:
        """What `genmill publish` takes for it."""
        return self.job_id or self.model

    @property
    def row(self) -> dict[str, Any]:
        """Plain data about it."""
        return {"reference": self.reference, "target": self.target, "items": self.items}

    @property
    def remedy(self) -> str:
        """The command that takes it down."""
        return f"genmill publish {self.reference} --target {self.target} --take-down"


class Going(NamedTuple):
    """A publish job that has not ended."""

    by_job_id: str
    status: str
    target: str  # its name
    takes_down: bool
    job_id: str | None  # the job that it is about
    model: str | None  # or the model version

    @property
    def reference(self) -> str:
        """What `genmill publish` takes for it."""
        return self.job_id or self.model or ""


def expired(session: Session) -> list[Shown]:
    """What has expired at a target, unless an unfinished job takes it down."""
    due = _shown(session, Publication.expires_at <= clock(session))
    if not due:  # as almost always
        return []
    named = {(each.target, each.reference) for each in going(session, take_down=True)}
    return [each for each in due if (each.target, each.reference) not in named]


def going(
    session: Session,
    *,
    take_down: bool | None = None,
    before: str | None = None,
    target: str | None = None,
    reference: str | None = None,
) -> list[Going]:
    """The jobs that publish, or take down, and have not ended, oldest first.

    Only those that are older than the job `before`, at a target, about a job or version.
    """
    spec: Any = Job.spec
    names = {name: spec[name].as_string() for name in ("target", "job", "model")}
    wanted = [Job.kind == "publish", Job.status.not_in(FINAL)]
    if before is not None:
        wanted.append(Job.id < before)
    if target is not None:
        wanted.append(names["target"] == target)
    if reference is not None:
        wanted.append(func.coalesce(names["job"], names["model"]) == reference)
    statement = select(spec["take_down"].as_boolean(), Job.id, Job.status, *names.values())
    return [
        Going(by, status, at, bool(removes), job_id, model)
        for removes, by, status, at, job_id, model in session.execute(
            statement.where(*wanted).order_by(Job.id)
        )
        if take_down is None or bool(removes) is take_down
    ]


def there(session: Session, target: Target, references: Sequence[str]) -> set[str]:
    """Those jobs and versions of which something is at a target, or may come to be."""
    of = or_(Publication.job_id.in_(references), Publication.version_id.is_not(None))
    found = {each.reference for each in _shown(session, of & (Target.id == target.id))}
    coming = going(session, take_down=False)
    return (found | {each.reference for each in coming if each.target == target.name}) & {
        *references
    }


def made_from(session: Session, data: Sequence[DatasetVersion]) -> list[Shown]:
    """What came of dataset versions: files of models that learnt from them, and their samples.

    Of what is only about to be published, there are 0 items.
    """
    versions = lineage.trained_on(session, [each.id for each in data])
    models = [each.reference for each in versions]
    names = [lineage.dataset_reference(session, each) for each in data]
    spec: Any = Job.spec
    made = or_(spec["model"].as_string().in_(models), spec["dataset"].as_string().in_(names))
    jobs = select(Job.id).where(Job.kind == "generate", made)
    ids = [each.version.id for each in versions]
    shown = _shown(session, or_(Publication.job_id.in_(jobs), Publication.version_id.in_(ids)))
    there = {(each.target, each.reference) for each in shown}
    coming = {(each.target, each.reference) for each in going(session, take_down=False)} - there
    own = set(session.scalars(jobs.where(Job.id.in_([of for _, of in coming]))))
    return shown + [
        Shown(target, of if of in own else None, "" if of in own else of, 0)
        for target, of in sorted(coming)
        if of in own or of in models
    ]


def known_keys(session: Session, keys: Collection[str]) -> set[str]:
    """Those of some idempotency keys that jobs have."""
    known = select(Job.idempotency_key).where(Job.idempotency_key.in_(keys))
    return {str(each) for each in session.scalars(known)}


def count_there(session: Session, target_id: str) -> int:
    """How many items are or may be at a target."""
    mine = select(func.count()).where(
        Publication.target_id == target_id, Publication.state.in_(THERE)
    )
    return session.scalar(mine) or 0


def by_state(session: Session, target_id: str) -> dict[str, int]:
    """How many items are in which state at a target."""
    state, mine = Publication.state, Publication.target_id == target_id
    found = session.execute(select(state, func.count()).where(mine).group_by(state))
    return dict(sorted((row[0], row[1]) for row in found))


def counts(
    session: Session,
    target_id: str,
    *,
    job_id: str | None = None,
    version_id: str | None = None,
    by_job_id: str | None = None,
) -> dict[str, int]:
    """How many of a job's samples, or a version's files, are in which state at a target.

    With `by_job_id`, those that another job has published count as `BEFORE`, or as `UNCHANGED` as
    far as this one has compared them; and those that this one has put again by the reason.
    """
    of = Publication.version_id == version_id if job_id is None else Publication.job_id == job_id
    own = Publication.by_job_id == by_job_id if by_job_id else true()
    why = case((Publication.state == PUBLISHED, Publication.reason))
    columns = (Publication.state, own.label("own"), why.label("why"))
    statement = (
        select(*columns, func.count())
        .where(Publication.target_id == target_id, of)
        .group_by(*columns)
    )
    found = Counter[str]()
    for state, is_own, reason, number in session.execute(statement):
        if is_own or state == PUBLISHED:
            found[_AGAIN.get(reason, state) if is_own else BEFORE] += number
    if by_job_id and (compared := _unchanged(session, by_job_id)):
        found[UNCHANGED] = compared
        found[BEFORE] -= compared
    return {name: number for name, number in sorted(found.items()) if number > 0}


def not_published(session: Session, by_job_id: str, *, limit: int) -> list[Publication]:
    """The first items that a publish job could not publish, or not repair; each has its reason."""
    unrepaired = (Publication.state == PUBLISHED) & Publication.reason.not_in(_AGAIN)
    wanted = (Publication.by_job_id == by_job_id, (Publication.state == REFUSED) | unrepaired)
    return list(
        session.scalars(select(Publication).where(*wanted).order_by(Publication.item).limit(limit))
    )


def _unchanged(session: Session, by_job_id: str) -> int:
    """How many items a publish job has found as they were put, as its shards report."""
    reported = func.sum(Shard.report[UNCHANGED].as_integer())
    return session.scalar(select(reported).where(Shard.job_id == by_job_id)) or 0


def _shown(session: Session, which: ColumnElement[bool]) -> list[Shown]:
    version = Model.name + ":" + cast(ModelVersion.number, String)
    of = (Target.name, Publication.job_id, version)
    statement = (
        select(*of, func.count())
        .join(Target, Target.id == Publication.target_id)
        .outerjoin(ModelVersion, ModelVersion.id == Publication.version_id)
        .outerjoin(Model, Model.id == ModelVersion.model_id)
        .where(Publication.state.in_(THERE), Target.removed_at.is_(None), which)
        .group_by(*of)
        .order_by(*of)
    )
    return [
        Shown(target, job_id, "" if job_id else str(model), items)
        for target, job_id, model, items in session.execute(statement)
    ]

"""What is at targets, by job and by model version."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, String, cast, func, or_, select, true
from sqlalchemy.orm import Session

from db import lineage
from db.publications import THERE
from db.session import clock
from db.states import FINAL
from db.tables import DatasetVersion, Job, Model, ModelVersion, Publication, Target


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
    target: str  # its name
    reference: str  # the job or the version that it is about


def expired(session: Session) -> list[Shown]:
    """What has expired at a target, unless an unfinished job takes it down."""
    due = _shown(session, Publication.expires_at <= clock(session))
    if not due:  # as almost always
        return []
    named = {(each.target, each.reference) for each in going(session, take_down=True)}
    return [each for each in due if (each.target, each.reference) not in named]


def going(session: Session, *, take_down: bool, before: str | None = None) -> list[Going]:
    """The jobs that publish, or take down, and have not ended, oldest first.

    With `before`, those that are older than that job.
    """
    spec: Any = Job.spec
    columns = (spec[name].as_string() for name in ("target", "job", "model"))
    statement = select(spec["take_down"].as_boolean(), Job.id, *columns)
    older = Job.id < before if before else true()
    unfinished = statement.where(Job.kind == "publish", Job.status.not_in(FINAL), older)
    return [
        Going(by, target, job_id or model)
        for removes, by, target, job_id, model in session.execute(unfinished.order_by(Job.id))
        if bool(removes) is take_down
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

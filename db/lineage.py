"""What was made from what: data, versions, jobs, in both directions."""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import BigInteger, ColumnElement, cast, func, select
from sqlalchemy.orm import Session

from db import datasets, models
from db.states import FINAL
from db.tables import Dataset, DatasetVersion, Job, Model, ModelVersion

# a number of 64 bits, which `as_integer` does not take
spec_seed: ColumnElement[int] = cast(Job.spec["seed"].as_string(), BigInteger)


class Descent(NamedTuple):
    """A version of a model, with what it was made from: references, and None where nothing."""

    reference: str  # "digits:2"
    version: ModelVersion
    parent: str | None
    dataset: str | None


class Generated(NamedTuple):
    """A generate job, in brief."""

    job_id: str
    custom_id: str | None
    seed: int


def model_reference(session: Session, version: ModelVersion) -> str:
    """The name and number of a model version."""
    return f"{session.get_one(Model, version.model_id).name}:{version.number}"


def dataset_reference(session: Session, version: DatasetVersion) -> str:
    """The name and number of a dataset version."""
    return f"{session.get_one(Dataset, version.dataset_id).name}:{version.number}"


def ancestors(session: Session, version: ModelVersion) -> list[Descent]:
    """The version, its parent, and so on to the first that has none."""
    found = [describe(session, version)]
    while found[-1].version.parent_id is not None:
        parent = session.get_one(ModelVersion, found[-1].version.parent_id)
        found.append(describe(session, parent))
    return found


def descendants(session: Session, version_ids: Collection[str]) -> list[Descent]:
    """The versions that were tuned from these, and those tuned from them, oldest first."""
    found: dict[str, ModelVersion] = {}
    seen = set(version_ids)
    newest = seen
    while newest:
        children = select(ModelVersion).where(ModelVersion.parent_id.in_(newest))
        fresh = {each.id: each for each in session.scalars(children) if each.id not in seen}
        found |= fresh
        newest = set(fresh)
        seen |= newest
    return [describe(session, found[each]) for each in sorted(found)]


def trained_on(session: Session, dataset_version_ids: Collection[str]) -> list[Descent]:
    """The versions that were trained on these data, and all that descend from them."""
    direct = select(ModelVersion).where(ModelVersion.dataset_version_id.in_(dataset_version_ids))
    own = [describe(session, each) for each in session.scalars(direct.order_by(ModelVersion.id))]
    ids = [each.version.id for each in own]
    return own + descendants(session, ids)


def withdrawn_data(session: Session, version: ModelVersion) -> list[str]:
    """The withdrawn data that a version, or any that it was tuned from, was trained on."""
    hidden = {each.id for each in datasets.all_withdrawn_versions(session)}
    learnt = ancestors(session, version) if hidden else []
    found = [each.dataset for each in learnt if each.version.dataset_version_id in hidden]
    return [each for each in dict.fromkeys(found) if each]


def generated_with(session: Session, reference: str, *, seed: int | None) -> list[Generated]:
    """The generate jobs of a version, such as `digits:2`, oldest first; of one seed, if given."""
    name = reference.partition(":")[0]
    statement = (
        select(Job.id, Job.custom_id, spec_seed)
        .where(Job.model == name, Job.kind == "generate")
        .where(Job.spec["model"].as_string() == reference)
    )
    if seed is not None:
        statement = statement.where(spec_seed == seed)
    return [Generated(*row) for row in session.execute(statement.order_by(Job.id))]


def count_generated(session: Session, references: Collection[str]) -> dict[str, tuple[int, int]]:
    """The number of generate jobs and of samples asked for, by the version's reference."""
    named = Job.spec["model"].as_string()
    names = {reference.partition(":")[0] for reference in references}
    statement = (
        select(named.label("named"), func.count(), func.coalesce(func.sum(Job.samples), 0))
        .where(Job.model.in_(names), Job.kind == "generate", named.in_(references))
        .group_by(named)
    )
    return {row[0]: (int(row[1]), int(row[2])) for row in session.execute(statement)}


def made_by(session: Session, job_id: str) -> list[Descent]:
    """The versions that a job made."""
    statement = select(ModelVersion).where(ModelVersion.job_id == job_id)
    return [describe(session, each) for each in session.scalars(statement.order_by("id"))]


def named(session: Session, reference: str) -> Descent:
    """The version that a reference means. Raises `NotFound`."""
    return describe(session, models.resolve(session, reference)[1])


def unfinished_with(session: Session, references: Collection[str]) -> list[Job]:
    """The unfinished jobs that name one of these dataset versions, such as `mnist:1`."""
    using = Job.spec["dataset"].as_string().in_(references)
    statement = select(Job).where(Job.status.not_in(FINAL), using)
    return list(session.scalars(statement.order_by(Job.id)))


def count_ended_with(session: Session, references: Collection[str]) -> int:
    """How many jobs that have ended name one of these dataset versions, such as `mnist:1`."""
    using = Job.spec["dataset"].as_string().in_(references)
    ended = select(func.count()).select_from(Job).where(Job.status.in_(FINAL), using)
    return session.scalar(ended) or 0


def by_weights(session: Session, sha256: str) -> list[Descent]:
    """The versions that have weights of this digest, oldest first."""
    statement = select(ModelVersion).where(ModelVersion.weights_sha256 == sha256)
    return [describe(session, each) for each in session.scalars(statement.order_by("id"))]


def describe(session: Session, version: ModelVersion) -> Descent:
    """A version and what it was made from."""
    parent = dataset = None
    if version.parent_id is not None:
        parent = model_reference(session, session.get_one(ModelVersion, version.parent_id))
    if version.dataset_version_id is not None:
        data = session.get_one(DatasetVersion, version.dataset_version_id)
        dataset = dataset_reference(session, data)
    return Descent(model_reference(session, version), version, parent, dataset)

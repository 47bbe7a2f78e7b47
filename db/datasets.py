"""Datasets and their versions, found by references such as `mnist` and `mnist:2`."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.errors import NotFound, Refused, unknown
from db.session import clock, insert_new
from db.states import FINAL
from db.tables import Dataset, DatasetVersion, Job, new_id


def add_version(
    session: Session,
    *,
    name: str,
    kind: str,
    manifest_key: str,
    manifest_sha256: str,
    summary: dict[str, Any],
) -> DatasetVersion:
    """Add the next version of dataset `name`, which is created if there is none.

    The same manifest under the same name again is the version that is there, brought back if it
    was removed.
    """
    dataset = _locked(session, name)
    known = _versions(session, dataset)
    for version in known:
        if version.manifest_sha256 == manifest_sha256:
            version.removed_at = None
            session.flush()
            return version
    added = DatasetVersion(
        id=new_id(),
        dataset_id=dataset.id,
        number=len(known) + 1,
        kind=kind,
        manifest_key=manifest_key,
        manifest_sha256=manifest_sha256,
        summary=summary,
        created_at=clock(session),
    )
    session.add(added)
    session.flush()
    return added


def resolve(session: Session, reference: str) -> tuple[Dataset, DatasetVersion]:
    """What a reference means now: `name` is the newest version, `name:2` the second.

    Raises `NotFound` with the nearest spelling, also for what was removed.
    """
    name, colon, number = reference.partition(":")
    dataset = _named(session, name)
    present = versions(session, dataset)
    if not colon:
        return dataset, present[-1]
    for candidate in present:
        if str(candidate.number) == number:
            return dataset, candidate
    known = [str(candidate.number) for candidate in present]
    raise NotFound(f"dataset {name!r}: " + unknown("version", number, known))


def version(session: Session, version_id: str) -> DatasetVersion:
    """The version with this id, removed or not. Raises `NotFound`."""
    found = session.get(DatasetVersion, version_id)
    if found is None:
        raise NotFound(f"no dataset version {version_id!r}")
    return found


def listing(session: Session) -> list[Dataset]:
    """Every dataset that has a version, by name."""
    return list(session.scalars(_present()))


def versions(session: Session, dataset: Dataset) -> list[DatasetVersion]:
    """A dataset's versions that were not removed, oldest first."""
    return [row for row in _versions(session, dataset) if row.removed_at is None]


def remove(session: Session, reference: str) -> list[DatasetVersion]:
    """Hide a version, or with a bare name all of them, from new jobs; return which.

    Raises `NotFound`, and `Refused` with the job ids while a job that has not ended uses one.
    """
    dataset, chosen = resolve(session, reference)
    _locked(session, dataset.name)
    removed = [chosen] if ":" in reference else versions(session, dataset)
    users = _used_by(session, [f"{dataset.name}:{row.number}" for row in removed])
    if users:
        raise Refused(
            f"dataset {reference!r} is in use by {', '.join(users)}: wait for them or cancel them"
        )
    for row in removed:
        row.removed_at = clock(session)
    session.flush()
    return removed


def manifests_in_use(session: Session) -> set[str]:
    """The store keys of the manifests that are not removed: what they name must be kept."""
    statement = select(DatasetVersion.manifest_key).where(DatasetVersion.removed_at.is_(None))
    return set(session.scalars(statement))


def _present() -> Any:
    kept = select(DatasetVersion.id).where(
        DatasetVersion.dataset_id == Dataset.id, DatasetVersion.removed_at.is_(None)
    )
    return select(Dataset).where(kept.exists()).order_by(Dataset.name)


def _named(session: Session, name: str) -> Dataset:
    present = listing(session)
    for dataset in present:
        if dataset.name == name:
            return dataset
    raise NotFound(unknown("dataset", name, (dataset.name for dataset in present)))


def _versions(session: Session, dataset: Dataset) -> list[DatasetVersion]:
    statement = select(DatasetVersion).where(DatasetVersion.dataset_id == dataset.id)
    return list(session.scalars(statement.order_by(DatasetVersion.number)))


def _used_by(session: Session, references: list[str]) -> list[str]:
    live = session.execute(select(Job.id, Job.spec).where(Job.status.not_in(FINAL)))
    return [job_id for job_id, spec in live if spec.get("dataset") in references]


def _locked(session: Session, name: str) -> Dataset:
    """The dataset's row, locked: whoever holds it gives out the next number."""
    insert_new(session, Dataset, [{"id": new_id(), "name": name, "created_at": clock(session)}])
    found: Dataset = session.scalars(
        select(Dataset).where(Dataset.name == name).with_for_update(key_share=True)
    ).one()
    return found

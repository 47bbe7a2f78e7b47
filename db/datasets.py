"""Datasets and their versions, found by references such as `mnist` and `mnist:2`."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, or_, select, true, update
from sqlalchemy.orm import Session

from db import ledger, tombstones
from db.audit_trail import note
from db.errors import NotFound, Refused
from db.leaves import DATASET, DATASET_VERSION, WITHDRAWAL
from db.registry import Reference, Registry
from db.session import clock
from db.states import FINAL
from db.tables import AuditEntry, Dataset, DatasetVersion, Job, Tombstone, Withdrawal

ACTION = "withdrawn"  # in the audit trail

_registry = Registry(
    "dataset",
    Dataset,
    DatasetVersion,
    DatasetVersion.dataset_id,
    DATASET,
    DATASET_VERSION,
    visible=DatasetVersion.removed_at.is_(None),
)
all_versions = _registry.all_versions
listing = _registry.listing
select_all = _registry.select_all
version = _registry.version
versions = _registry.versions


def add_version(
    session: Session,
    *,
    name: str,
    kind: str,
    manifest_key: str,
    manifest_sha256: str,
    summary: dict[str, Any],
) -> DatasetVersion:
    """Add the next version of dataset `name`, creating the dataset if needed.

    Adding a manifest that the dataset already has returns that version, restored if it was removed.
    """
    dataset = _registry.lock(session, name)
    same = select(DatasetVersion).where(
        DatasetVersion.dataset_id == dataset.id, DatasetVersion.manifest_sha256 == manifest_sha256
    )
    known: DatasetVersion | None = session.scalar(same)
    if known is not None:
        if known.removed_at is not None:
            known.removed_at = None
            session.flush()
            ledger.enter(session, DATASET_VERSION, known)
        tombstones.restore(session, known.id)
        return known
    return _registry.add(
        session,
        dataset,
        kind=kind,
        manifest_key=manifest_key,
        manifest_sha256=manifest_sha256,
        summary=summary,
    )


def resolve(session: Session, reference: str) -> tuple[Dataset, DatasetVersion]:
    """The dataset and version that a reference means now.

    `name` is the newest version, `name:2` the second. Raises `NotFound` with the nearest spelling,
    for removed versions too.
    """
    name, number, alias = Reference.parse(reference)
    if alias is not None:
        raise NotFound(
            f"no dataset {reference!r}: datasets have no aliases", remedy="use NAME or NAME:VERSION"
        )
    dataset = _registry.get(session, name)
    if number is not None:
        return dataset, _registry.numbered(session, dataset, number)
    return dataset, versions(session, dataset)[-1]


def resolve_hidden(session: Session, reference: str) -> tuple[Dataset, DatasetVersion]:
    """As `resolve`, also of a dataset of which no version is left: things came of it."""
    named = session.scalar(select(Dataset).where(Dataset.name == reference))
    hidden = all_versions(session, named) if named is not None else []
    if named is None or not hidden or versions(session, named):
        return resolve(session, reference)
    return named, hidden[-1]


def remove(session: Session, reference: str) -> list[DatasetVersion]:
    """Hide a version, or all versions of a bare name, from new jobs; return the hidden ones.

    Raises `NotFound`, and `Refused` with the ids of unfinished jobs that use one of them.
    """
    dataset, chosen = resolve(session, reference)
    whole = Reference.parse(reference).number is None
    removed = versions(session, dataset) if whole else [chosen]
    return hide(session, dataset, [each.id for each in removed])


def hide(session: Session, dataset: Dataset, ids: Collection[str]) -> list[DatasetVersion]:
    """Hide versions of a dataset, by their ids, from new jobs.

    Raises `Refused` with the ids of unfinished jobs that use one of them.
    """
    _registry.lock(session, dataset.name)
    found = [version(session, each) for each in ids]
    refuse_used(session, dataset, found)
    shown = [row for row in found if row.removed_at is None]
    for row in shown:
        row.removed_at = clock(session)
    session.flush()
    ledger.enter(session, DATASET_VERSION, *shown)
    return found


def withdraw(
    session: Session,
    *,
    dataset: Dataset,
    digests: Sequence[str],
    versions: Sequence[str],
    who: str,
    reason: str | None,
) -> None:
    """Bar items, and hide the versions with these ids, which hold them; again changes nothing.

    Raises `Refused` with the ids of unfinished jobs that use one of the versions.
    """
    shown = {each.id for each in _registry.versions(session, dataset)}
    found, now = hide(session, dataset, versions), clock(session)
    before = {f"{each:016x}" for each in withdrawn(session, dataset)}
    barred = [
        Withdrawal(dataset_id=dataset.id, digest=each, who=who, reason=reason, at=now)
        for each in digests
        if each not in before
    ]
    if not barred and shown.isdisjoint(versions):
        return
    session.add_all(barred)
    session.flush()
    ledger.enter(session, WITHDRAWAL, *barred)
    hidden_ones = [row.number for row in found]
    detail = {"items": len(barred), "reason": reason, "versions": hidden_ones}
    note(session, who, ACTION, dataset.name, detail)
    hidden = (Tombstone.id.in_([row.id for row in found]), Tombstone.kept)
    session.execute(update(Tombstone).where(*hidden).values(kept=False, sweep_at=now))


def withdrawn(session: Session, dataset: Dataset | None = None) -> frozenset[int]:
    """The digests of all withdrawn items, or of those of one dataset, as numbers."""
    own = true() if dataset is None else Withdrawal.dataset_id == dataset.id
    return frozenset(
        int(each, 16) for each in session.scalars(select(Withdrawal.digest).where(own))
    )


def withdrawn_versions(session: Session, dataset: Dataset, digests: Collection[str]) -> set[int]:
    """The numbers of the versions that earlier withdrawals of any of these digests have hidden."""
    own = (Withdrawal.dataset_id == dataset.id, Withdrawal.digest.in_(digests))
    numbers = set[int]()
    for at in session.scalars(select(Withdrawal.at).where(*own).distinct()):
        # the entry of the same transaction, in which the dataset was locked
        noted = (AuditEntry.action == ACTION, AuditEntry.subject == dataset.name)
        acts = select(AuditEntry.detail).where(*noted, AuditEntry.at >= at)
        detail = session.scalar(acts.order_by(AuditEntry.at, AuditEntry.id).limit(1))
        numbers.update((detail or {}).get("versions", ()))
    return numbers


def all_withdrawn_versions(session: Session) -> list[DatasetVersion]:
    """The versions, of every dataset, that a withdrawal has hidden."""
    if session.scalar(select(Withdrawal.id).limit(1)) is None:  # as almost always
        return []
    numbers = defaultdict[str, set[int]](set)
    acts = select(AuditEntry.subject, AuditEntry.detail).where(AuditEntry.action == ACTION)
    for name, detail in session.execute(acts):
        numbers[name].update((detail or {}).get("versions", ()))
    hidden = select(Dataset.name, DatasetVersion).join(
        DatasetVersion, DatasetVersion.dataset_id == Dataset.id
    )
    here = (Dataset.name.in_(numbers), DatasetVersion.removed_at.is_not(None))
    found = session.execute(hidden.where(*here).order_by(DatasetVersion.id))
    return [version for name, version in found if version.number in numbers[name]]


def content_is_kept() -> ColumnElement[bool]:
    """Whether a version is not removed, or only hidden with its content kept."""
    hidden = select(Tombstone.id).where(Tombstone.id == DatasetVersion.id, Tombstone.kept)
    return or_(DatasetVersion.removed_at.is_(None), hidden.exists())


def manifests_in_use(session: Session, *, without: Collection[str] = ()) -> set[str]:
    """The store keys of the manifests of versions that are not removed, or only hidden.

    `without` are the ids of versions to leave out.
    """
    others = DatasetVersion.id.not_in(without)
    kept = select(DatasetVersion.manifest_key).where(content_is_kept(), others)
    return set(session.scalars(kept))


def refuse_used(session: Session, dataset: Dataset, found: Sequence[DatasetVersion]) -> None:
    """Raise `Refused` with the ids of unfinished jobs that use one of a dataset's versions."""
    # the bare name in a waiting job's spec may come to mean any version
    references = {dataset.name, *(f"{dataset.name}:{row.number}" for row in found)}
    using = Job.spec["dataset"].as_string().in_(references)
    if users := list(session.scalars(select(Job.id).where(Job.status.not_in(FINAL), using))):
        raise Refused(
            f"dataset {dataset.name!r} is in use by {', '.join(users)}",
            remedy="wait for them or cancel them",
        )

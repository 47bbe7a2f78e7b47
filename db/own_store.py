"""Which object store belongs to this record, and some objects that must be in it."""

from typing import NamedTuple

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from db.session import insert_new
from db.tables import Artifact, DatasetVersion, ModelVersion, OwnStore

TRIED = 3  # of each kind of object

_PATIENTLY = text("SET LOCAL idle_in_transaction_session_timeout = '10min'")


class StoreId(NamedTuple):
    """The id of a store's sentinel, whether it is in the store, and since when objects are."""

    id: str
    made: bool
    had_objects: bool


def expected(session: Session) -> StoreId | None:
    """The store that this record knows; None if it has not used one yet."""
    columns = (OwnStore.id, OwnStore.made, OwnStore.had_objects)
    found = session.execute(select(*columns)).first()
    return found and StoreId(*found)


def introduce(session: Session, store_id: str) -> StoreId:
    """Record a store whose sentinel is about to be made, unless there is one; return which."""
    insert_new(session, OwnStore, [{"only": 1, "id": store_id, "made": False}])
    known = expected(session)
    assert known is not None  # noqa: S101 - for mypy: it has just been inserted
    return known


def confirm(session: Session, store_id: str) -> None:
    """Record that the sentinel with this id is in the store; a confirmed one stays."""
    unconfirmed = update(OwnStore).where(OwnStore.made.is_(False))
    session.execute(unconfirmed.values(id=store_id, made=True))


def lock_objects(session: Session, *, shared: bool) -> None:
    """Hold the objects that versions may share as they are, until the transaction ends.

    Whoever records a version shares the lock, and looks whether its objects are there; whoever
    deletes one has it alone, and looks whether a version names it. One request to the store may be
    slow: the server then waits for longer than for others before it ends the transaction.
    """
    if not shared and session.get_bind().dialect.name == "postgresql":
        session.execute(_PATIENTLY)
    session.execute(select(OwnStore.only).with_for_update(read=shared))


def some_keys(session: Session) -> list[str]:
    """Keys of a few of the newest objects on record."""
    stored = select(Artifact).where(Artifact.removed_at.is_(None))
    artifacts = session.scalars(stored.order_by(Artifact.id.desc()).limit(TRIED)).all()
    files = select(ModelVersion.files).order_by(ModelVersion.id.desc()).limit(TRIED)
    manifests = select(DatasetVersion.manifest_key).where(DatasetVersion.removed_at.is_(None))
    return [
        *(artifact.key for artifact in artifacts),
        *(file["key"] for each in session.scalars(files) for file in each.values()),
        *session.scalars(manifests.order_by(DatasetVersion.id.desc()).limit(TRIED)),
    ]

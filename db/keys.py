"""Keys of the installation, as the record holds them: no secret is here but wrapped.

What a key is for is its purpose. A tenant has one current key for each, by which new things are
made; rotated ones still verify what they made, and revoked ones say that nothing they made may be
trusted. Must not know how secrets are wrapped, nor what a public part means.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import Connection, Select, select, update
from sqlalchemy.orm import Session

from db import ledger
from db.errors import BadRecord, NotFound, Refused
from db.leaves import KEY
from db.session import clock, insert_new
from db.tables import Key

ALL_TENANTS = ""  # the tenant of keys that the whole installation has


class Purpose(StrEnum):
    """What a key is for."""

    AUTHORITY = "authority"  # issues the certificates of signing keys: the installation's own CA
    SIGNING = "signing"  # signs the provenance of samples
    WATERMARK = "watermark"  # the secret of a tenant's watermarks
    HEAD = "head"  # signs the heads of the ledger

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise BadRecord(
            f"the record holds {str(value)[:40]!r} where the purpose of a key belongs",
            remedy="it was damaged or edited: restore a backup",
        )


@dataclass(frozen=True)
class NewKey:
    """A key that is about to be recorded. `public` is PEM; a secret alone has none."""

    id: str
    purpose: Purpose
    tenant: str
    public: str | None
    wrapped: bytes


class Wrapped(NamedTuple):
    """A key's secret as it is on record."""

    id: str
    wrapped: bytes


def add(session: Session, key: NewKey) -> Key:
    """Record a key as its tenant's current one. Raises `Refused` if there is one."""
    row = {**vars(key), "purpose": key.purpose.value, "created_at": clock(session)}
    if not insert_new(session, Key, [row]):
        raise Refused(
            f"tenant {key.tenant!r} has a current {key.purpose} key already",
            remedy=f"`genmill key rotate {key.purpose}` replaces it",
        )
    made = get(session, key.id)
    ledger.enter(session, KEY, made)
    return made


def rotate(session: Session, key: NewKey, *, replaced: str) -> Key:
    """Record a key in place of the current one with the id `replaced`, which still verifies.

    Raises `Refused` if that is no longer the current one.
    """
    _retire(session, replaced, rotated_at=clock(session))
    return add(session, key)


def revoke(session: Session, key_ids: Iterable[str], reason: str) -> list[Key]:
    """Revoke keys: nothing that they made may be trusted. Those revoked before stay as they are."""
    now, found = clock(session), [get(session, each, lock=True) for each in key_ids]
    revoked: list[Key] = []
    for key in found:
        if key.revoked_at is None:
            key.revoked_at, key.reason = now, reason
            revoked.append(key)
    session.flush()
    ledger.enter(session, KEY, *revoked)
    return found


def rewrap(session: Session, key: Key, wrapped: bytes) -> bool:
    """Put another wrapping of the same secret in place, if the key still has the one it had.

    Returns whether it had.
    """
    unchanged = (Key.id == key.id, Key.wrapped == key.wrapped)
    changed = update(Key).where(*unchanged).values(wrapped=wrapped).returning(Key.id)
    return session.scalar(changed) is not None


def get(session: Session, key_id: str, *, lock: bool = False) -> Key:
    """The key with this id. Raises `NotFound` with the nearest spelling."""
    found = session.get(Key, key_id, populate_existing=True, with_for_update=lock or None)
    if found is None:
        raise NotFound.unknown("key", key_id, session.scalars(select(Key.id)))
    return found


def current(session: Session, purpose: Purpose, tenant: str) -> Key | None:
    """The key by which new things are made."""
    wanted = (Key.purpose == purpose.value, Key.tenant == tenant)
    in_use = (Key.rotated_at.is_(None), Key.revoked_at.is_(None))
    found: Key | None = session.scalar(select(Key).where(*wanted, *in_use))
    return found


def select_all(purpose: Purpose | None = None) -> Select[Key]:
    """The statement of all keys, or of those for a purpose, oldest first."""
    statement = select(Key).order_by(Key.created_at, Key.id)
    return statement if purpose is None else statement.where(Key.purpose == purpose.value)


def listing(session: Session, purpose: Purpose | None = None) -> list[Key]:
    """All keys, or those for a purpose, oldest first."""
    return list(session.scalars(select_all(purpose)))


def newest(record: Session | Connection) -> Wrapped | None:
    """What the newest key of a record, or of a copy of one, is wrapped as."""
    statement = select(Key.id, Key.wrapped).order_by(Key.created_at.desc(), Key.id.desc())
    found = record.execute(statement.limit(1)).first()
    return None if found is None else Wrapped(*found)


def _retire(session: Session, key_id: str, *, rotated_at: datetime) -> None:
    in_use = (Key.id == key_id, Key.rotated_at.is_(None), Key.revoked_at.is_(None))
    retired = update(Key).where(*in_use).values(rotated_at=rotated_at).returning(Key.id)
    if session.scalar(retired) is None:
        raise Refused(
            f"key {key_id} was rotated or revoked meanwhile", remedy="see `genmill key list`"
        )
    ledger.enter(session, KEY, get(session, key_id))

"""Changing the installation key: what it has wrapped is wrapped anew, and nothing else is touched.

Killed at any point, the same command goes on: each secret is wrapped by the old key or by the new
one, and says by which.
"""

from dataclasses import dataclass

from db import keys
from db.audit_trail import note
from db.errors import Unreachable, WrongKey
from db.tables import Key
from worker.keys.keyring import context_of
from worker.keys.master import Master, open_master
from worker.services.connections import Services
from worker.services.store_owner import StoreOwner
from worker.store import open_store
from worker.store.data_key import DataKey


@dataclass
class Rewrapped:
    """How many keys on record were wrapped anew, how many were so already, and the store's key."""

    keys: int = 0
    already: int = 0
    store: bool = False  # whether its key was wrapped anew


def rewrap(services: Services, old: Master, *, who: str) -> Rewrapped:
    """Have all that `old` has wrapped be wrapped by the installation key of the settings.

    That `who` did it is in the audit trail.

    Raises `WrongKey` or `Unreachable` for what neither of them has wrapped.
    """
    done, new = Rewrapped(), open_master(services.settings)
    new.unwrap(new.wrap(b"", "a trial"), "a trial")
    with services.database.read() as session:
        rows = keys.listing(session)
    for row in rows:
        if _rewrap_key(services, row, old, new):
            done.keys += 1
        else:
            done.already += 1
    done.store = _rewrap_store(services, old, new)
    if done.keys or done.store:
        detail = vars(done)
        services.database.transact(
            lambda session: note(session, who, "rewrapped", "installation key", detail)
        )
    return done


def _rewrap_key(services: Services, row: Key, old: Master, new: Master) -> bool:
    """Whether a key on record had to be wrapped anew."""
    context = context_of(row.id)
    try:
        new.unwrap(row.wrapped, context)
    except WrongKey:
        wrapped = new.wrap(old.unwrap(row.wrapped, context), context)
        services.database.transact(lambda session: keys.rewrap(session, row, wrapped))
        return True
    return False


def _rewrap_store(services: Services, old: Master, new: Master) -> bool:
    """Whether the store is encrypted, and its key had to be wrapped anew."""
    settings = services.settings
    if settings.store_encryption == "none":
        return False
    store = open_store(settings.store, s3_endpoint_url=settings.s3_endpoint_url)
    try:
        if DataKey(store, lambda: new).find() is not None:
            return False
    except Unreachable:
        data_key = DataKey(store, lambda: old)
        store.owner = StoreOwner(lambda: services.database, data_key)
        data_key.rewrap(new)
        return True
    return False  # nothing has been stored yet

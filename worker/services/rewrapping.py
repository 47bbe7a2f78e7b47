"""Changing the installation key: what it has wrapped is wrapped anew, and nothing else is touched.

Killed at any point, the same command goes on: each secret is wrapped by the old key or by the new
one, and says by which.
"""

from dataclasses import dataclass
from functools import partial

from db import keys, own_store
from db.audit_trail import note
from db.errors import Unreachable, WrongKey
from db.tables import Key
from worker.keys.keyring import context_of
from worker.keys.master import Master, open_master
from worker.services.connections import Services
from worker.services.store_owner import StoreOwner
from worker.store import ByteStore, open_store
from worker.store.base import SENTINEL, STORE_KEY
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
    new = open_master(services.settings)
    new.unwrap(new.wrap(b"", "a trial"), "a trial")
    done = _rewrap_keys(services, old, new)
    done.store = _rewrap_store(services, old, new)
    if done.keys or done.store:
        detail = vars(done)
        services.database.transact(
            lambda session: note(session, who, "rewrapped", "installation key", detail)
        )
    return done


def _rewrap_keys(services: Services, old: Master, new: Master) -> Rewrapped:
    """Wrap keys until all on record are wrapped by `new`, also those that are made meanwhile."""
    wrapped: set[str] = set()
    while True:
        with services.database.read() as session:
            rows = keys.listing(session)
        left = [row for row in rows if not _opens(new, row)]
        if not left:
            return Rewrapped(len(wrapped), len(rows) - len(wrapped))
        for row in left:
            context = context_of(row.id)
            anew = new.wrap(old.unwrap(row.wrapped, context), context)
            if services.database.transact(partial(keys.rewrap, key=row, wrapped=anew)):
                wrapped.add(row.id)


def _opens(master: Master, row: Key) -> bool:
    try:
        master.unwrap(row.wrapped, context_of(row.id))
    except WrongKey:
        return False
    return True


def _rewrap_store(services: Services, old: Master, new: Master) -> bool:
    """Whether the store has a key, whatever the settings say, that had to be wrapped anew."""
    settings = services.settings
    store = open_store(settings.store, s3_endpoint_url=settings.s3_endpoint_url)
    if not store.has(STORE_KEY):
        _refuse_absent(services, store)
        return False
    try:
        DataKey(store, lambda: new).find()
    except Unreachable:
        data_key = DataKey(store, lambda: old)
        # while `genmill store encrypt` is not done, a plain store has a key
        is_plain = store.has(SENTINEL) and not store.read_cipher()
        store.owner = StoreOwner(lambda: services.database, None if is_plain else data_key)
        data_key.rewrap(new)
        return True
    return False


def _refuse_absent(services: Services, store: ByteStore) -> None:
    """Raise `Unreachable` if the record's store is not there, or has lost its key."""
    with services.database.read() as session:
        known = own_store.expected(session)
    if known is None or not known.made:
        return  # nothing has been stored yet
    if store.read_cipher():
        DataKey(store, lambda: open_master(services.settings)).require()
    store.owner = StoreOwner(lambda: services.database)
    store.verify()

"""Whether a store is the one that belongs to the record: its sentinel tells.

A folder that is not mounted, a wrong URL and an emptied bucket look like a store in which nothing
is. What is missing there is not lost, so nothing may be decided by it, and nothing written.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from db import own_store
from db.columns import new_id
from db.errors import DigestMismatch, Unreachable
from db.own_store import StoreId
from db.session import Database
from worker.store.base import ENCRYPTION, SENTINEL, ObjectStore

if TYPE_CHECKING:
    from worker.store.data_key import DataKey

AWAY = (
    "mount it, or set GENMILL_STORE_URL as on the other machines; if its objects are lost for good,"
    " run `genmill doctor --audit --repair`"
)


class StoreOwner:
    """The record of a database, as the owner of its store; makes the sentinel at first use."""

    def __init__(self, database: Callable[[], Database], data_key: "DataKey | None" = None) -> None:
        """`database` opens it when it is needed: the record is asked until the sentinel is seen.

        With `data_key`, the store is encrypted.
        """
        self._database, self._data_key = database, data_key
        self._known: str | None = None

    def verify(self, store: ObjectStore) -> None:
        """See `Owner.verify`; adopts a store that no record has used before."""
        found = store.read_sentinel()
        if found is not None and found == self._known:
            return
        with self._database().read() as session:
            expected = own_store.expected(session)
        if expected is None or not expected.made:
            expected = self._introduce(store, found, expected)
            found = expected.id
        elif found is None:  # another process may have made it before the record was read
            found = store.read_sentinel()
        if found is None:
            raise Unreachable(
                f"object store {store}: not mounted, or not the store of this record: "
                f"its object {SENTINEL!r} is missing",
                remedy=AWAY,
            )
        if found != expected.id:
            raise Unreachable(
                f"object store {store}: this is another store: its id is {found}, "
                f"and the one of this record has {expected.id}",
                remedy="set GENMILL_STORE_URL as on the other machines",
            )
        self._check_encryption(store)
        self._known = found

    def _introduce(
        self, store: ObjectStore, found: str | None, expected: StoreId | None
    ) -> StoreId:
        """Make the sentinel, or adopt the one that is there; then record it."""
        if found is None and expected is not None and expected.had_objects:
            self._refuse_without_objects(store)
        database = self._database()
        store_id = database.transact(partial(own_store.introduce, store_id=found or new_id())).id
        if found is None:
            try:
                self._put_sentinel(store, store_id, expected)
            except DigestMismatch:  # another process was quicker
                found = store.read_sentinel()
        database.transact(partial(own_store.confirm, store_id=found or store_id))
        with database.read() as session:
            known = own_store.expected(session)
        assert known is not None  # noqa: S101 - for mypy: it was introduced
        return known

    def _put_sentinel(self, store: ObjectStore, store_id: str, expected: StoreId | None) -> None:
        data_key = self._data_key
        # a store that was in use before there were sentinels is a plain one
        if data_key is None or (expected is not None and expected.had_objects):
            store.put_as(SENTINEL, store_id.encode())
            return

        def work(session: Session) -> None:
            own_store.lock_objects(session, shared=False)  # one process alone makes the key
            data_key.put_sentinel(store_id)

        self._database().transact(work)

    def _check_encryption(self, store: ObjectStore) -> None:
        """Raise `Unreachable` unless the store is encrypted just if this process encrypts."""
        if self._data_key is not None:
            self._data_key.require()
        else:
            refuse_encrypted(store)

    def _refuse_without_objects(self, store: ObjectStore) -> None:
        with self._database().read() as session:
            keys = own_store.some_keys(session)
        if keys and not any(store.has(key) for key in keys):
            raise Unreachable(
                f"object store {store}: not mounted, or not the store of this record: it has none "
                f"of {len(keys)} objects on record, such as {keys[0]!r}",
                remedy=AWAY,
            )


def refuse_encrypted(store: ObjectStore) -> None:
    """Raise `Unreachable` if a store that was opened as a plain one is encrypted."""
    if store.read_cipher():
        raise Unreachable(
            f"object store {store} is encrypted, and {ENCRYPTION} is none",
            remedy=f"set {ENCRYPTION}=aes-256-gcm, as on the other machines",
        )

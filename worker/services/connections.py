"""The composition root: settings in, the database and the object store out.

All are read or opened at first use, so that a command pays only for what it uses. Connections are
discarded in a forked child, because processes must not share them.
"""

from __future__ import annotations

import os
import weakref
from functools import cached_property
from typing import TYPE_CHECKING

from worker.environment import database_url
from worker.failpoints import watch_database, watch_store

if TYPE_CHECKING:
    from db.session import Database
    from worker.settings import Settings
    from worker.store import ByteStore, ObjectStore
    from worker.store.data_key import DataKey
    from worker.store.packs import PackReader


class Services:
    """The services that jobs need; always an argument, never a global.

    Without `settings`, those of the environment are read when they are needed.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        if settings is not None:
            self.settings = settings
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(this()))

    @cached_property
    def settings(self) -> Settings:
        """The settings."""
        from worker.settings import read_settings  # noqa: PLC0415 - pydantic takes 0.1 s

        return read_settings()

    @cached_property
    def database(self) -> Database:
        """The database. Opening it does not connect yet."""
        from db.session import Database  # noqa: PLC0415 - SQLAlchemy takes 0.2 s, not always needed

        url = None if "settings" in self.__dict__ else database_url()
        database = Database(url or self.settings.database)
        if url is None and self.settings.failpoint:
            watch_database(database, self.settings)
        return database

    @cached_property
    def store(self) -> ObjectStore:
        """The object store, which is used only while it is the one that the record knows."""
        from worker.services.store_owner import StoreOwner  # noqa: PLC0415 - as below
        from worker.store import open_store  # noqa: PLC0415 - not every command needs a store

        lies_in = open_store(self.settings.store, s3_endpoint_url=self.settings.s3_endpoint_url)
        store: ObjectStore = lies_in
        if (data_key := self.data_key(lies_in)) is not None:
            from worker.store.encrypted import EncryptedStore  # noqa: PLC0415 - as in data_key

            store = EncryptedStore(lies_in, data_key)
        lies_in.owner = StoreOwner(lambda: self.database, data_key)
        if self.settings.failpoint:
            watch_store(store, self.settings)
        return store

    def data_key(self, store: ByteStore) -> DataKey | None:
        """What `store` is encrypted with; None if the settings say that it is not."""
        if self.settings.store_encryption == "none":
            return None
        from worker.keys.master import open_master  # noqa: PLC0415 - cryptography takes 0.1 s
        from worker.store.data_key import DataKey  # noqa: PLC0415 - as above

        def refuse_other() -> None:
            from db import keys  # noqa: PLC0415 - as above
            from worker.keys.keyring import refuse_other as refuse  # noqa: PLC0415 - as above

            with self.database.read() as session:
                refuse(open_master(self.settings), keys.newest(session))

        return DataKey(store, lambda: open_master(self.settings), refuse_other=refuse_other)

    @cached_property
    def packs(self) -> PackReader:
        """Reads from the store's packs."""
        from worker.store.packs import PackReader  # noqa: PLC0415 - as above

        return PackReader(self.store)

    def close(self) -> None:
        """Close the connections; later use opens them again."""
        if "database" in self.__dict__:
            self.database.dispose()
        _forget(self)


def open_services(settings: Settings | None = None) -> Services:
    """The services of `settings`, by default those of the environment."""
    return Services(settings)


def _forget(services: Services | None) -> None:
    if services is not None:
        for name in ("database", "store", "packs"):
            services.__dict__.pop(name, None)

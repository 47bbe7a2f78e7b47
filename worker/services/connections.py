"""The one composition root: settings in, the database and the object store out.

Both are opened when first used, so that a command pays for what it touches, and are thrown away in
a forked child, because neither may be shared between processes.
"""

from __future__ import annotations

import os
import weakref
from functools import cached_property
from typing import TYPE_CHECKING

from worker.settings import Settings, read_settings

if TYPE_CHECKING:
    from db.session import Database
    from worker.store.s3 import ObjectStore


class Services:
    """What the rest of Genmill works with; handed down as an argument, never a global."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(this()))

    @cached_property
    def database(self) -> Database:
        """The record. Opening it connects to nothing yet."""
        from db.session import Database  # noqa: PLC0415  SQLAlchemy costs 0.2 s where it is not needed

        return Database(self.settings.database)

    @cached_property
    def store(self) -> ObjectStore:
        """The object store."""
        from worker.store.s3 import open_store  # noqa: PLC0415  boto3 costs 0.2 s where it is not needed

        return open_store(self.settings.store, s3_endpoint_url=self.settings.s3_endpoint_url)

    def close(self) -> None:
        """Close the connections; what is used afterwards opens anew."""
        if "database" in self.__dict__:
            self.database.dispose()
        _forget(self)


def open_services(settings: Settings | None = None) -> Services:
    """Services by `settings`, or by the environment."""
    return Services(settings or read_settings())


def _forget(services: Services | None) -> None:
    if services is not None:
        services.__dict__.pop("database", None)
        services.__dict__.pop("store", None)

"""Recording a version whose objects other versions may share, while a removal may delete them."""

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TypeVar

from sqlalchemy.orm import Session

from db import own_store
from db.errors import Unreachable
from worker.services.connections import Services

T = TypeVar("T")
TRIES = 20  # a removal deletes one object at a time, and each may cost a try


class _Deleted(Exception):
    """An object was deleted between being stored and being named."""


def store_and_record(
    services: Services, store: Callable[[], Collection[str]], record: Callable[[Session], T]
) -> T:
    """Store objects, then record what names them, with all of them in the store.

    `store` returns their keys; it is called again where a removal has deleted one meanwhile.
    """
    for _ in range(TRIES):
        keys = store()

        def work(session: Session, keys: Collection[str] = keys) -> T:
            own_store.lock_objects(session, shared=True)
            recorded = record(session)
            if not all(map(services.store.has, keys)):
                raise _Deleted
            return recorded

        with suppress(_Deleted):
            return services.database.transact(work)
    raise Unreachable("what was stored is deleted by others each time", remedy="try again")

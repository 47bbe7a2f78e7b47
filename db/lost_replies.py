"""Commits on PostgreSQL whose reply is lost: the server is asked whether they took place.

A transaction that writes learns its id as it begins, in the same round trip. If the connection
breaks at COMMIT, that id is looked up on another one. So every writer gets an answer, whatever it
wrote: it was committed, or it was not and may be tried again.
"""

import logging
import time
from typing import Any

from sqlalchemy import Engine, bindparam, text
from sqlalchemy import exc as sql

from db.driver_errors import Busy, location
from db.errors import Unreachable

log = logging.getLogger(__name__)

# What a transaction begins with to learn its id; a standby has none to give, and will not write.
LEARN_ID = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_xact_id()::text END"
# By then the server has ended a transaction whose COMMIT never arrived: after 30 s of silence.
ASK_FOR_S = 40.0
PAUSE_S = 0.2

_STATUS = text("SELECT pg_xact_status(CAST(CAST(:id AS text) AS xid8))").bindparams(bindparam("id"))
_FUTURE = "22023"  # an id that the server has not given yet: this is another one, after a failover


def ask_after_lost_replies(engine: Engine) -> None:
    """Make commits through `engine` return if they took place, and raise only if they did not.

    `info["transaction"]` of a connection holds the id. Raises `Busy` for a commit that did not take
    place, and `Unreachable` if the server does not come back to tell.
    """
    failed: Any = engine.dialect.loaded_dbapi.Error

    def commit(connection: Any) -> None:
        try:
            connection.commit()
        except failed as error:
            transaction = connection.info.get("transaction")
            if transaction is None or not (error.sqlstate is None or connection.closed):
                raise  # the server's answer
            connection.invalidate(error)
            if not _was_committed(engine, transaction):
                reason = f"the {location(engine.url)} did not commit: {error}"
                raise Busy(reason, remedy="try again") from error
            log.warning("a commit took place whose reply was lost: %s", error)

    engine.dialect.do_commit = commit  # type: ignore[assignment] # there is no event for it


def _was_committed(engine: Engine, transaction: str) -> bool:
    """Ask until the server answers and the transaction has ended."""
    deadline = time.monotonic() + ASK_FOR_S
    while True:
        reason: object = "the transaction has not ended"
        try:
            with engine.connect() as connection:
                status = connection.scalar(_STATUS, {"id": transaction})
            if status != "in progress":
                return bool(status == "committed")
        except (sql.DBAPIError, sql.TimeoutError) as error:
            reason = getattr(error, "orig", None) or error
            if getattr(reason, "sqlstate", None) == _FUTURE:
                return False
        if time.monotonic() > deadline:
            raise Unreachable(
                f"it is not known whether the {location(engine.url)} committed: {reason}",
                remedy="look, before you try again",
            )
        time.sleep(PAUSE_S)

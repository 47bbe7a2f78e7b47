"""Writing the ledger: what is new gets its place, and the head is signed.

Any number of schedulers may do it at once, and so may commands that need a proof now.
"""

import logging
import time
from datetime import timedelta
from functools import partial

from db import keys, ledger
from db.errors import NotFound, Refused
from db.keys import ALL_TENANTS, Purpose
from db.leaves import MANIFEST, head_text
from db.session import clock
from db.tables import LedgerHead
from worker.identity import who
from worker.keys.keyring import Keyring, load_keyring
from worker.services.connections import Services

log = logging.getLogger(__name__)

ROUND_S = 2.0  # at most this long in one round; the last batch may take a little longer
HEAD_EVERY = timedelta(minutes=1)  # or there would be a head for every round, for good


def write_ledger(services: Services, *, within_s: float = ROUND_S) -> int:
    """Append what is new; return how many leaves. Sign the head if the last one is old enough."""
    count, deadline = 0, time.monotonic() + within_s
    while _is_behind(services):
        count += services.database.transact(ledger.extend)
        if time.monotonic() > deadline:
            break
    if count:
        log.info("ledger extended", extra={"leaves": count})
    with services.database.read() as session:
        newest = ledger.newest_head(session)
        # the clock may have been set back
        wait = newest is not None and abs(clock(session) - newest.at) < HEAD_EVERY
    if not wait:
        sign_head(services)
    return count


def seal(services: Services, job_id: str) -> LedgerHead | None:
    """Append the manifest of a job now, unless that is done; return a signed head with its leaf.

    None for a job without a manifest.
    """
    services.database.transact(partial(ledger.enter_manifests, job_ids=[job_id]))
    while not _has_leaf(services, job_id):
        if not services.database.transact(ledger.extend):
            return None
    return sign_head(services)


def sign_head(services: Services) -> LedgerHead | None:
    """The head of all leaves, signed unless it is signed already; None before the first leaf.

    Raises `BadRecord` if the ledger does not go on from the newest head: that would be a second
    ledger under the name of the first.
    """
    with services.database.read() as session:
        newest = ledger.newest_head(session)
        if newest is not None:
            ledger.require_head(session, newest)
        found = ledger.new_head(session)
        if found is None or (newest is not None and newest.size == found[1].size):
            return newest
        keyring = load_keyring(session, services.settings)
    ledger_id, head = found
    head.key_id, private = _with_head_key(services, keyring).head_key()
    text = head_text(ledger_id, head.size, bytes.fromhex(head.root), head.at)
    head.signature = private.sign(text.encode())
    services.database.transact(partial(ledger.add_head, head=head))
    return head


def _is_behind(services: Services) -> bool:
    with services.database.read() as session:
        return ledger.is_behind(session)


def _has_leaf(services: Services, job_id: str) -> bool:
    with services.database.read() as session:
        return ledger.leaf_of(session, MANIFEST, job_id) is not None


def _with_head_key(services: Services, keyring: Keyring) -> Keyring:
    """The keyring, with a key for heads, which is made when the first one is signed."""
    from worker.keys import changes  # noqa: PLC0415 - loads slowly, and is needed once
    from worker.keys.master import open_master  # noqa: PLC0415 - as above

    try:
        keyring.current(Purpose.HEAD)
    except NotFound:
        master = open_master(services.settings)
        try:
            changes.create(services.database, master, Purpose.HEAD, ALL_TENANTS, who=who())
        except Refused:  # another process has just made one
            with services.database.read() as session:
                if keys.current(session, Purpose.HEAD, ALL_TENANTS) is None:
                    raise
        with services.database.read() as session:
            return load_keyring(session, services.settings)
    return keyring

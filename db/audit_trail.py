"""The audit trail: who published, promoted, forced, withdrew, removed, restored or changed a key.

An entry is made in the transaction of the act, and is a leaf of the ledger.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from db import ledger
from db.columns import new_id
from db.leaves import AUDIT, plain
from db.session import clock
from db.tables import AuditEntry

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]+")


def note(
    session: Session,
    who: str,
    action: str,
    subject: str,
    detail: Mapping[str, Any] | None = None,
) -> AuditEntry:
    """Enter what `who` did, in the past tense, as in `removed`, to `subject`, as in `digits:2`."""
    entry = AuditEntry(
        id=new_id(),
        at=clock(session),
        who=who,
        action=action,
        subject=subject,
        detail=None if detail is None else plain(detail),
    )
    session.add(entry)
    session.flush()
    ledger.enter(session, AUDIT, entry)
    return entry


def select_newest(
    *,
    since: datetime | None = None,
    action: str | None = None,
    subject: str | None = None,
    limit: int = 50,
) -> Select[AuditEntry]:
    """The statement of the newest entries: those `since` a time, of an action, about a subject.

    The subject may be the beginning of an id.
    """
    newest = select(AuditEntry).order_by(AuditEntry.at.desc(), AuditEntry.id.desc())
    if since is not None:
        newest = newest.where(AuditEntry.at >= since)
    if action is not None:
        newest = newest.where(AuditEntry.action == action)
    if subject is not None:
        begins = AuditEntry.subject.startswith(subject, autoescape=True)
        newest = newest.where(begins if _ID.fullmatch(subject) else AuditEntry.subject == subject)
    return newest.limit(limit)

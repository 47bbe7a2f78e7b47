"""Changes of aliases with their history: who moved which alias to which version, why, and when.

A change and its entry are one transaction. It says which version it expects to replace, so that of
two changes at once the second fails. Refusals of the gate are in the history too.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from db import ledger, models
from db.audit_trail import note
from db.causes import Cause
from db.columns import new_id
from db.errors import GenmillError, Refused
from db.leaves import PROMOTION
from db.session import clock
from db.tables import Alias, Model, ModelVersion, Promotion
from db.tombstones import refuse as refuse_removed

PROMOTED = "promoted"
FORCED = "forced"
REFUSED = "refused"
ROLLED_BACK = "rolled back"
SET = "set"
REMOVED = "removed"
OUTCOMES = (PROMOTED, FORCED, REFUSED, ROLLED_BACK, SET, REMOVED)

ACTIONS = {SET: "alias set", REMOVED: "alias removed"}  # in the audit trail, others as above


@dataclass(frozen=True)
class Reason:
    """Who changes an alias, why, and by which verdict or job."""

    who: str
    why: str | None = None
    verdict: dict[str, Any] | None = None
    job_id: str | None = None


class Moved(GenmillError):
    """The alias was moved meanwhile."""

    cause = Cause.WORK


def holder(session: Session, model: Model, alias: str) -> ModelVersion | None:
    """The version that has the alias now."""
    row = session.get(Alias, (model.id, alias), populate_existing=True)
    return models.version(session, row.version_id) if row else None


def move(
    session: Session,
    model: Model,
    alias: str,
    version: ModelVersion | None,
    *,
    expected: str | None,
    outcome: str,
    reason: Reason,
) -> Promotion:
    """Give the alias to `version`, or remove it, if the version `expected` (its id) still has it.

    Raises `Moved` if another has it, and `Refused` for a name that cannot be an alias.
    """
    session.execute(select(Model.id).where(Model.id == model.id).with_for_update())
    before = holder(session, model, alias)
    found = before.id if before else None
    if found != expected:
        now = f"version {before.number} has it" if before else "no version has it"
        raise Moved(
            f"alias {alias!r} of model {model.name!r} was moved meanwhile: {now}",
            remedy="look at `genmill model history`, and try again",
        )
    if version is None:
        here = (Alias.model_id == model.id, Alias.alias == alias)
        session.execute(delete(Alias).where(*here))
    else:
        models.set_alias(session, model, alias, version)
    return _enter(session, model, alias, version, previous=found, outcome=outcome, reason=reason)


def refuse(
    session: Session, model: Model, alias: str, version: ModelVersion, reason: Reason
) -> Promotion:
    """Note that the gate did not let `version` have the alias."""
    before = holder(session, model, alias)
    previous = before.id if before else None
    return _enter(session, model, alias, version, previous=previous, outcome=REFUSED, reason=reason)


def select_history(model: Model, alias: str | None = None) -> Select[Promotion]:
    """The statement of the entries of a model's aliases, or of one of them, oldest first."""
    statement = select(Promotion).where(Promotion.model_id == model.id)
    if alias is not None:
        statement = statement.where(Promotion.alias == alias)
    return statement.order_by(Promotion.at, Promotion.id)


def history(session: Session, model: Model, alias: str | None = None) -> list[Promotion]:
    """The entries of a model's aliases, or of one of them, oldest first."""
    return list(session.scalars(select_history(model, alias)))


def previous_holder(session: Session, model: Model, alias: str) -> ModelVersion:
    """The version that had the alias before the one that has it now. Raises `Refused` or `Gone`.

    Rolling back twice goes back two steps: what was rolled back is not returned to. A time without
    the alias is no step.
    """
    entries = [each for each in history(session, model, alias) if each.outcome != REFUSED]
    holders = [entries[0].previous_id] if entries else []
    for entry in entries:
        if entry.outcome == ROLLED_BACK:
            _step_back(holders)
        else:
            holders.append(entry.version_id)
    _step_back(holders)
    if not holders:
        raise Refused(
            f"no version of model {model.name!r} had the alias {alias!r} before",
            remedy=f"`genmill model alias {model.name}:VERSION --as {alias}` sets it",
        )
    found = str(holders[-1])
    refuse_removed(session, found)
    return models.version(session, found)


def _step_back(holders: list[str | None]) -> None:
    """Leave the last holder out, and the times before it when no version had the alias."""
    if holders:
        holders.pop()
    while holders and holders[-1] is None:
        holders.pop()


def _enter(
    session: Session,
    model: Model,
    alias: str,
    version: ModelVersion | None,
    *,
    previous: str | None,
    outcome: str,
    reason: Reason,
) -> Promotion:
    entry = Promotion(
        id=new_id(),
        model_id=model.id,
        alias=alias,
        outcome=outcome,
        version_id=version.id if version else None,
        previous_id=previous,
        job_id=reason.job_id,
        who=reason.who,
        why=reason.why,
        verdict=reason.verdict,
        at=clock(session),
    )
    session.add(entry)
    session.flush()
    ledger.enter(session, PROMOTION, entry)
    subject = f"{model.name}:{version.number}" if version else f"{model.name}@{alias}"
    detail = {"alias": alias, "why": reason.why, "job": reason.job_id}
    note(session, reason.who, ACTIONS.get(outcome, outcome), subject, detail)
    return entry

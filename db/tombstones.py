"""Tombstones of what commands removed: set, and found by the id or the name that it had."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    String,
    delete,
    exists,
    insert,
    literal,
    literal_column,
    select,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from db import ledger
from db.audit_trail import note
from db.columns import JsonObject, UtcDateTime
from db.errors import Gone
from db.leaves import REMOVAL
from db.session import clock, upsert
from db.tables import Artifact, Tombstone

SWEEP_AFTER = timedelta(hours=1)  # since a job's end: nothing of it can be stored any more
# as the condition of the index says it, which holds few rows
KEPT: ColumnElement[bool] = literal_column("tombstones.kept")


def not_removed(thing: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Whether what has the id in this column has no tombstone."""
    return ~exists(select(Tombstone.id).where(Tombstone.id == thing))


def not_hidden(job: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Whether the job that has the id in this column is shown.

    Only what was kept has both a row and a tombstone.
    """
    return ~exists(select(Tombstone.id).where(Tombstone.id == job, KEPT))


def find(session: Session, thing_id: str) -> Tombstone | None:
    """The tombstone of what had this id; None if it was not removed."""
    return session.get(Tombstone, thing_id, populate_existing=True)


def named(session: Session, kind: str, name: str) -> Tombstone | None:
    """The tombstone of the version that had this name, as in `digits:2`."""
    here = select(Tombstone).where(Tombstone.name == name, Tombstone.kind == kind)
    found: Tombstone | None = session.scalar(here.order_by(Tombstone.at.desc()).limit(1))
    return found


def refuse(session: Session, thing_id: str) -> None:
    """Raise `Gone` if what had this id was removed, or is hidden."""
    if found := find(session, thing_id):
        raise gone(found)


def refuse_range(session: Session, kind: str, first: str, last: str) -> None:
    """Raise `Gone` if something of this kind was removed whose id lies in a range."""
    here = select(Tombstone).where(Tombstone.id >= first, Tombstone.id <= last)
    found = session.scalar(here.where(Tombstone.kind == kind).order_by(Tombstone.id).limit(1))
    if found is not None:
        raise gone(found)


def refuse_named(session: Session, kind: str, name: str) -> None:
    """Raise `Gone` if the version of this name was removed."""
    if found := named(session, kind, name):
        raise gone(found)


def of_generation(session: Session, reference: str, seed: int) -> list[Tombstone]:
    """The removed jobs that generated with a version, such as `digits:2`, and a seed."""
    here = select(Tombstone).where(Tombstone.name == reference, Tombstone.kind == "job")
    found = session.scalars(here.order_by(Tombstone.id))
    return [each for each in found if (each.about or {}).get("seed") == seed]


def label(found: Tombstone) -> str:
    """How to call what was removed: a version by its name, anything else by its id."""
    return found.name if found.name and found.kind in ("model", "dataset") else found.id


def gone(found: Tombstone) -> Gone:
    """The error for what was removed: when, by whom and how much."""
    when = f"{found.at:%Y-%m-%d %H:%M} UTC by {found.who}"
    what = f"{found.kind} {label(found)} was removed on {when}"
    if together := (found.about or {}).get("with"):
        return Gone(f"{what}, with {together}")
    if found.kept:
        return Gone(f"{what}; its objects were kept", remedy=_KEPT.get(found.kind))
    return Gone(f"{what}: {found.size_bytes:,} bytes")


_KEPT = {
    "job": "`genmill artifact list` and `download` still know it; `genmill job remove` without "
    "--keep-artifacts frees the space",
    "model": "`genmill model remove` without --keep-artifacts frees the space",
    "dataset": "`genmill dataset add` of the same files brings it back; `genmill dataset remove` "
    "frees the space once nothing names it",
}


def select_newest(*, kind: str | None = None, limit: int = 50) -> Select[Tombstone]:
    """The statement of the newest tombstones; without a `kind`, of everything but artifacts."""
    chosen = Tombstone.kind == kind if kind else Tombstone.kind != "artifact"
    newest = select(Tombstone).where(chosen).order_by(Tombstone.at.desc(), Tombstone.id)
    return newest.limit(limit)


def due(session: Session, limit: int, *, without: Any = ()) -> list[Tombstone]:
    """Tombstones of things whose objects have to be looked for in the store now, oldest first."""
    waiting = select(Tombstone).where(Tombstone.sweep_at <= clock(session))
    if without:
        waiting = waiting.where(Tombstone.id.not_in(without))
    return list(session.scalars(waiting.order_by(Tombstone.sweep_at).limit(limit)))


def unswept(session: Session, kind: str, reference: str) -> list[Tombstone]:
    """The tombstones of a version, or of all versions of a bare name, that have not been swept."""
    name = Tombstone.name == reference
    if ":" not in reference:
        name = Tombstone.name.startswith(f"{reference}:", autoescape=True)
    chosen = (name, Tombstone.kind == kind, Tombstone.sweep_at.is_not(None))
    return list(session.scalars(select(Tombstone).where(*chosen).order_by(Tombstone.id)))


def swept(session: Session, ids: Collection[str]) -> None:
    """Record that no objects are left of some things, unless more may still come."""
    over = (Tombstone.id.in_(ids), Tombstone.sweep_at <= clock(session))
    session.execute(update(Tombstone).where(*over).values(sweep_at=None))


def bury(session: Session, grave: Tombstone) -> None:
    """Set a tombstone, in place of one that said that the objects are kept."""
    row = {column.name: getattr(grave, column.name) for column in Tombstone.__table__.columns}
    defaults = {"at": clock(session), "size_bytes": grave.size_bytes or 0, "kept": bool(grave.kept)}
    row |= defaults
    upsert(session, Tombstone, [row])
    ledger.enter(session, REMOVAL, row)
    action = "hidden" if grave.kept else "removed"
    note(session, grave.who, action, label(grave), {"kind": grave.kind})


def restore(session: Session, thing_id: str) -> None:
    """Delete the tombstone of what was added again; there may be none."""
    gone: Any = session.execute(delete(Tombstone).where(Tombstone.id == thing_id))
    if gone.rowcount:
        ledger.append(session, REMOVAL, thing_id, {})


def bury_artifacts(session: Session, which: Sequence[Any], together: str, *, who: str) -> None:
    """Set a tombstone for each artifact that meets conditions; `together` is what they go with."""
    new = select(
        Artifact.id,
        literal("artifact", String(10)),
        literal({"with": together}, JsonObject()),
        literal(who, String(200)),
        literal(clock(session), UtcDateTime()),
        literal(0, BigInteger()),
        literal(value=False),
    ).where(*which, not_removed(Artifact.id))
    names = ("id", "kind", "about", "who", "at", "size_bytes", "kept")
    session.execute(insert(Tombstone).from_select(names, new))

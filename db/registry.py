"""Names with numbered versions, found by references: what datasets and models have in common."""

from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Select, func, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from db import ledger
from db.columns import new_id
from db.errors import NotFound
from db.session import clock, insert_new
from db.tables import Dataset, DatasetVersion, Model, ModelVersion, Tombstone
from db.tombstones import gone, refuse_named

N = TypeVar("N", Dataset, Model)
V = TypeVar("V", DatasetVersion, ModelVersion)


class Reference(NamedTuple):
    """The parts of `NAME`, `NAME:NUMBER` or `NAME@ALIAS`."""

    name: str
    number: str | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Split `text`, without checking whether there is such a thing."""
        name, at, alias = text.partition("@")
        if at:
            return cls(name, alias=alias)
        name, colon, number = text.partition(":")
        return cls(name, number=number if colon else None)


@dataclass(frozen=True)
class Registry(Generic[N, V]):
    """The names in one table and their versions in another, numbered from 1.

    `foreign_key` is the version's column that refers to its name. Versions that are not `visible`
    are hidden, and so is a name without a visible version. Both are in the ledger, as leaves of
    `name_kind` and `version_kind`.
    """

    noun: str
    name_table: type[N]
    version_table: type[V]
    foreign_key: InstrumentedAttribute[str]
    name_kind: str
    version_kind: str
    visible: ColumnElement[bool] = field(default_factory=true)

    def lock(self, session: Session, name: str, **columns: Any) -> N:
        """The row of `name`, inserted if needed, and locked for `add`."""
        row = {"id": new_id(), "name": name, "created_at": clock(session)} | columns
        is_new = insert_new(session, self.name_table, [row])
        statement = select(self.name_table).where(self.name_table.name == name)
        found = session.scalars(statement.with_for_update(key_share=True)).one()
        if is_new:
            ledger.enter(session, self.name_kind, found)
        return found

    def add(self, session: Session, named: N, **columns: Any) -> V:
        """Insert the next version of a locked name. Numbers of hidden versions are not reused."""
        newest = select(func.max(self.version_table.number)).where(self.foreign_key == named.id)
        version = self.version_table(
            id=new_id(),
            number=(session.scalar(newest) or 0) + 1,
            created_at=clock(session),
            **{self.foreign_key.key: named.id},
            **columns,
        )
        session.add(version)
        session.flush()
        ledger.enter(session, self.version_kind, version)
        return version

    def select_all(self) -> Select[N]:
        """The statement of every name's row, in alphabetical order."""
        visible = select(self.version_table.id).where(
            self.foreign_key == self.name_table.id, self.visible
        )
        return select(self.name_table).where(visible.exists()).order_by(self.name_table.name)

    def listing(self, session: Session) -> list[N]:
        """Every name's row, in alphabetical order."""
        return list(session.scalars(self.select_all()))

    def names(self, session: Session) -> list[str]:
        """Every name, in alphabetical order."""
        return list(session.scalars(self.select_all().with_only_columns(self.name_table.name)))

    def get(self, session: Session, name: str) -> N:
        """The row of `name`. Raises `NotFound` with the nearest spelling, or `Gone`."""
        found = session.scalar(self.select_all().where(self.name_table.name == name))
        if found is None:
            self._refuse_gone(session, name)
            raise NotFound.unknown(self.noun, name, self.names(session))
        return found

    def versions(self, session: Session, named: N) -> list[V]:
        """The versions of a name, oldest first."""
        statement = select(self.version_table).where(self.foreign_key == named.id, self.visible)
        return list(session.scalars(statement.order_by(self.version_table.number)))

    def numbered(self, session: Session, named: N, number: str) -> V:
        """Version `number` of a name. Raises `NotFound` with the known numbers, or `Gone`."""
        versions = {str(each.number): each for each in self.versions(session, named)}
        if number not in versions:
            refuse_named(session, self.noun, f"{named.name}:{number}")
            raise NotFound.unknown("version", number, versions, of=f"{self.noun} {named.name!r}")
        return versions[number]

    def version(self, session: Session, version_id: str) -> V:
        """The version with this id, hidden or not. Raises `NotFound`."""
        found = session.get(self.version_table, version_id)
        if found is None:
            raise NotFound(f"no {self.noun} version {version_id!r}")
        return found

    def all_versions(self, session: Session, named: N) -> list[V]:
        """The versions of a name, hidden ones too, oldest first."""
        own = select(self.version_table).where(self.foreign_key == named.id)
        return list(session.scalars(own.order_by(self.version_table.number)))

    def numbers(self, session: Session, named: N) -> dict[str, int]:
        """The numbers of a name's versions by their ids, of hidden ones too."""
        table = self.version_table
        own = select(table.id, table.number).where(self.foreign_key == named.id)
        return {row[0]: row[1] for row in session.execute(own)}

    def _refuse_gone(self, session: Session, name: str) -> None:
        """Raise `Gone` if the versions of a name were removed; it tells of the last."""
        removed = (
            select(Tombstone)
            .join(self.version_table, self.version_table.id == Tombstone.id)
            .join(self.name_table, self.name_table.id == self.foreign_key)
            .where(self.name_table.name == name)
        )
        if found := session.scalar(removed.order_by(Tombstone.at.desc()).limit(1)):
            raise gone(found)

"""Names with numbered versions, found by references: what datasets and models have in common."""

from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Select, func, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from db.columns import new_id
from db.errors import NotFound
from db.session import clock, insert_new
from db.tables import Dataset, DatasetVersion, Model, ModelVersion

N = TypeVar("N", Dataset, Model)
V = TypeVar("V", DatasetVersion, ModelVersion)


class Reference(NamedTuple):
    """`NAME`, `NAME:NUMBER` or `NAME@ALIAS`, taken apart; at most one of the last two is set."""

    name: str
    number: str | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Take `text` apart. Whether there is such a thing is not checked."""
        name, at, alias = text.partition("@")
        if at:
            return cls(name, alias=alias)
        name, colon, number = text.partition(":")
        return cls(name, number=number if colon else None)


@dataclass(frozen=True)
class Registry(Generic[N, V]):
    """The names in one table and their versions in another, numbered from 1.

    `owner` is the version's foreign key. Versions that fail `kept` are hidden, and so is a name
    that has no other.
    """

    noun: str
    names: type[N]
    of_version: type[V]
    owner: InstrumentedAttribute[str]
    kept: ColumnElement[bool] = field(default_factory=true)

    def lock(self, session: Session, name: str, **columns: Any) -> N:
        """The row of `name`, inserted if there is none, and locked for `add`."""
        row = {"id": new_id(), "name": name, "created_at": clock(session)} | columns
        insert_new(session, self.names, [row])
        statement = select(self.names).where(self.names.name == name)
        return session.scalars(statement.with_for_update(key_share=True)).one()

    def add(self, session: Session, named: N, **columns: Any) -> V:
        """Insert the next version of a locked name. The number of a hidden one is not reused."""
        newest = select(func.max(self.of_version.number)).where(self.owner == named.id)
        version = self.of_version(
            id=new_id(),
            number=(session.scalar(newest) or 0) + 1,
            created_at=clock(session),
            **{self.owner.key: named.id},
            **columns,
        )
        session.add(version)
        session.flush()
        return version

    def listing(self, session: Session) -> list[N]:
        """Every name's row, in alphabetical order."""
        return list(session.scalars(self._present().order_by(self.names.name)))

    def get(self, session: Session, name: str) -> N:
        """The row of `name`. Raises `NotFound` with the nearest spelling."""
        found = session.scalar(self._present().where(self.names.name == name))
        if found is None:
            known = [each.name for each in self.listing(session)]
            raise NotFound.unknown(self.noun, name, known)
        return found

    def versions(self, session: Session, named: N) -> list[V]:
        """The versions of a name, oldest first."""
        statement = select(self.of_version).where(self.owner == named.id, self.kept)
        return list(session.scalars(statement.order_by(self.of_version.number)))

    def numbered(self, session: Session, named: N, number: str) -> V:
        """Version `number` of a name. Raises `NotFound` with the known numbers."""
        versions = {str(each.number): each for each in self.versions(session, named)}
        if number not in versions:
            raise NotFound.unknown("version", number, versions, of=f"{self.noun} {named.name!r}")
        return versions[number]

    def version(self, session: Session, version_id: str) -> V:
        """The version with this id, hidden or not. Raises `NotFound`."""
        found = session.get(self.of_version, version_id)
        if found is None:
            raise NotFound(f"no {self.noun} version {version_id!r}")
        return found

    def _present(self) -> Select[N]:
        kept = select(self.of_version.id).where(self.owner == self.names.id, self.kept)
        return select(self.names).where(kept.exists())

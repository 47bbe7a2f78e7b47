"""What runs the jobs: workers, the record's own store, and the scheduler's failing loops."""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column

from db.checked import String
from db.columns import Id, PlainText
from db.tables.base import Base


class Worker(Base):
    """One boot of one worker process."""

    __tablename__ = "workers"
    boot_id: Mapped[str] = mapped_column(Id, primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    device: Mapped[str] = mapped_column(String(60))
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime] = mapped_column(index=True)
    stopped_at: Mapped[datetime | None]


class OwnStore(Base):
    """The object store that belongs to this record, in one row: the id that its sentinel has.

    Without the row, the store has not been used yet.
    """

    __tablename__ = "own_store"
    only: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # always 1
    id: Mapped[str] = mapped_column(Id)
    made: Mapped[bool]  # the sentinel is in the store
    # the record named objects before there were sentinels: one is made only where they are
    had_objects: Mapped[bool] = mapped_column(default=False, server_default=text("false"))


class Setback(Base):
    """An item of a loop of the scheduler that fails: how often in a row, and when it is tried next.

    It is deleted once the item works.
    """

    __tablename__ = "setbacks"
    loop: Mapped[str] = mapped_column(String(40), primary_key=True)
    item: Mapped[str] = mapped_column(PlainText, primary_key=True)  # an id, or a step's name
    times: Mapped[int]
    error: Mapped[str] = mapped_column(PlainText)
    since: Mapped[datetime]
    tried_at: Mapped[datetime]
    again_at: Mapped[datetime]

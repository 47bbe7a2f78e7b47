"""Schedules and their runs."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, text
from sqlalchemy.orm import Mapped, mapped_column

from db.checked import String
from db.columns import Id, PlainText, Words, new_id
from db.tables.base import Base


class Schedule(Base):
    """A cron expression and the enqueue command that it repeats."""

    __tablename__ = "schedules"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    cron: Mapped[str] = mapped_column(String(200))
    timezone: Mapped[str] = mapped_column(String(60))
    missed: Mapped[str] = mapped_column(String(10))  # skip | once
    overlap: Mapped[str] = mapped_column(String(10))  # skip | queue
    command: Mapped[list[Any]] = mapped_column(Words)  # after `--`
    # skip a due time unless the dataset has another version than the last run used
    only_if_new_data: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    new_data_wait_s: Mapped[float | None]  # for so long must it have been the newest
    paused: Mapped[bool] = mapped_column(default=False)
    next_due: Mapped[datetime] = mapped_column(index=True)
    created_at: Mapped[datetime]


class ScheduleRun(Base):
    """One due time of a schedule. Its primary key keeps two schedulers from firing it twice."""

    __tablename__ = "schedule_runs"
    schedule_id: Mapped[str] = mapped_column(
        ForeignKey("schedules.id", ondelete="CASCADE"), primary_key=True
    )
    due: Mapped[datetime] = mapped_column(primary_key=True)
    # fired | skipped | missed | failed | triggered
    outcome: Mapped[str] = mapped_column(String(20))
    job_id: Mapped[str | None] = mapped_column(Id)
    reason: Mapped[str | None] = mapped_column(PlainText)

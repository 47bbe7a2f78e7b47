"""Targets, and what is published there."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.checked import BigInteger, String
from db.columns import Digest, Id, PlainText, new_id
from db.tables.base import Base, partial_index


class Target(Base):
    """A place that items are published to. It holds no secrets, only where each one is.

    A target of the same name as a removed one takes that one's row.
    """

    __tablename__ = "targets"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    kind: Mapped[str] = mapped_column(String(20))  # the module of `worker.publishing`
    settings: Mapped[dict[str, Any]]  # by the kind's own schema
    secrets: Mapped[dict[str, Any]]  # by name: the variable or the file that holds it
    expires_after_s: Mapped[float | None]  # after which items are taken down; NULL: never
    next_at: Mapped[datetime | None]  # when its rate allows the next item
    who: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]


class Publication(Base):
    """An item at a target: a sample of a job, or a file of a model version.

    It is on record before it is put at the target, so that whatever may be there is known. Only the
    latest attempt of the job `by_job_id`, whose number is `fence`, records what became of it.
    """

    __tablename__ = "publications"
    __table_args__ = (
        UniqueConstraint("target_id", "item"),
        Index("ix_publications_by_job_id", "by_job_id"),
        partial_index("ix_publications_job_id_sample", "job_id", "sample"),
        partial_index("ix_publications_version_id", "version_id"),
        partial_index("ix_publications_expires_at", "expires_at"),
    )
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    target_id: Mapped[str] = mapped_column(ForeignKey("targets.id"))
    item: Mapped[str] = mapped_column(String(300))  # its key, as in JOB/000000017.png
    job_id: Mapped[str | None] = mapped_column(Id)  # that made the sample
    sample: Mapped[int | None] = mapped_column(BigInteger)
    version_id: Mapped[str | None] = mapped_column(Id)  # whose file it is
    sha256: Mapped[str] = mapped_column(Digest)
    size: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str] = mapped_column(String(100))
    marks: Mapped[str | None] = mapped_column(String(100))  # the profile of its marks
    # begun | published | refused | taken down | abandoned
    state: Mapped[str] = mapped_column(String(12))
    remote_id: Mapped[str | None] = mapped_column(PlainText)  # where it is at the target
    reason: Mapped[str | None] = mapped_column(PlainText)  # why it was refused
    # whether what the target gave back was verified; NULL: it gives nothing back
    marks_verified: Mapped[bool | None]
    event_id: Mapped[str] = mapped_column(Id)  # of its publishing since it was last taken down
    by_job_id: Mapped[str] = mapped_column(Id)  # the publish job that changed it last
    fence: Mapped[int]
    published_at: Mapped[datetime | None]
    taken_down_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]

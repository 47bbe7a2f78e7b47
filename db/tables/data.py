"""Datasets, their versions, and items that were withdrawn from them."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.checked import String
from db.columns import Digest, Id, PlainText, Summary, new_id
from db.tables.base import Base


class Dataset(Base):
    """A named line of dataset versions."""

    __tablename__ = "datasets"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    created_at: Mapped[datetime]


class DatasetVersion(Base):
    """Immutable content, named by the hash of its manifest. `removed_at` hides it from new jobs."""

    __tablename__ = "dataset_versions"
    __table_args__ = (UniqueConstraint("dataset_id", "number"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    number: Mapped[int]
    kind: Mapped[str] = mapped_column(String(10))  # image | text | audio
    manifest_key: Mapped[str] = mapped_column(String(200))
    manifest_sha256: Mapped[str] = mapped_column(Digest, index=True)
    # counts per split, labels, shape, size_bytes, rejected
    summary: Mapped[dict[str, Any]] = mapped_column(Summary)
    created_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]


class Withdrawal(Base):
    """An item that may not be used any more, by its digest: no dataset takes it. Append only."""

    __tablename__ = "withdrawals"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    digest: Mapped[str] = mapped_column(String(16), index=True)  # the first 64 bits of its SHA-256
    who: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str | None] = mapped_column(PlainText)
    at: Mapped[datetime]

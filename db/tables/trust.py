"""What others may ask about later: tombstones, the audit trail, the ledger and the keys."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from db.checked import BigInteger, String
from db.columns import Digest, Id, PlainText, new_id
from db.tables.base import Base, index_where, partial_index


class Tombstone(Base):
    """Something that a command removed, by the id that it had.

    A job's rows are deleted; a version's stay, without its files. What is `kept` is only hidden:
    its row names its objects, which stay in the store. Artifacts have one each, with what they went
    with in `about`; their bytes are counted there.
    """

    __tablename__ = "tombstones"
    __table_args__ = (
        partial_index("ix_tombstones_name", "name"),
        partial_index("ix_tombstones_sweep_at", "sweep_at"),
        index_where("ix_tombstones_kept", "id", "kept"),
    )
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))  # job | batch | artifact | model | dataset
    # of a version, as in digits:2; of a job, the version that it began with
    name: Mapped[str | None] = mapped_column(String(120))
    about: Mapped[dict[str, Any] | None]  # what it was
    who: Mapped[str] = mapped_column(String(200))
    at: Mapped[datetime]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    kept: Mapped[bool]
    # when objects of it are looked for in the store; NULL once there can be none
    sweep_at: Mapped[datetime | None]


class AuditEntry(Base):
    """Something that a user did on purpose, and that others may ask about later. Append only."""

    __tablename__ = "audit_entries"
    __table_args__ = (Index("ix_audit_entries_at_id", "at", "id"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    at: Mapped[datetime]
    who: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(40))  # such as promoted, withdrawn, removed
    subject: Mapped[str] = mapped_column(PlainText)  # what it was done to, as users name it
    detail: Mapped[dict[str, Any] | None]


class Ledger(Base):
    """The ledger, an append-only Merkle log (`db.ledger`), in one row; whoever appends locks it."""

    __tablename__ = "ledger"
    only: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # always 1
    id: Mapped[str] = mapped_column(Id)  # names it in signed heads
    size: Mapped[int] = mapped_column(BigInteger)  # leaves that have a place


class LedgerLeaf(Base):
    """A leaf of the ledger: an event, as `db.leaves` writes it. Without `idx`, it waits.

    Ids and digests follow from the text; they are here to be found by.
    """

    __tablename__ = "ledger_leaves"
    __table_args__ = (
        Index("ix_ledger_leaves_subject_kind", "subject", "kind"),
        index_where("ix_ledger_leaves_waiting", "id", "idx IS NULL"),
    )
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    idx: Mapped[int | None] = mapped_column(BigInteger, unique=True)  # from 0
    kind: Mapped[str] = mapped_column(String(20))
    subject: Mapped[str] = mapped_column(Id)
    text: Mapped[str] = mapped_column(PlainText)
    leaf_hash: Mapped[str] = mapped_column(Digest)


class LedgerNode(Base):
    """The hash of a perfect subtree of the ledger (`db.merkle.Place`), above the leaves."""

    __tablename__ = "ledger_nodes"
    level: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # from 1
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hash: Mapped[str] = mapped_column(Digest)


class LedgerHead(Base):
    """The root of the ledger when it had this many leaves, signed."""

    __tablename__ = "ledger_heads"
    size: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    root: Mapped[str] = mapped_column(Digest)
    at: Mapped[datetime]
    key_id: Mapped[str] = mapped_column(String(60))
    signature: Mapped[bytes]  # Ed25519, of `db.leaves.head_text`


class Key(Base):
    """A key of the installation: what is public of it, and its secret as it is wrapped.

    A tenant has one current key for each purpose. Rotated and revoked ones stay, for what they made
    must be verified.
    """

    __tablename__ = "keys"
    __table_args__ = (
        Index(
            "ix_keys_current",
            *("purpose", "tenant"),
            unique=True,
            info={"where": "rotated_at IS NULL AND revoked_at IS NULL"},
        ),
    )
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(12))  # authority | signing | watermark | head
    tenant: Mapped[str] = mapped_column(String(100))
    public: Mapped[str | None] = mapped_column(PlainText)  # PEM; NULL: there is only the secret
    wrapped: Mapped[bytes]  # by the installation key: `worker.keys.master`
    created_at: Mapped[datetime]
    rotated_at: Mapped[datetime | None]  # since then, another is the current one
    revoked_at: Mapped[datetime | None]  # nothing that it made may be trusted
    reason: Mapped[str | None] = mapped_column(PlainText)  # why it was revoked

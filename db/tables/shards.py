"""Shards with their attempts, artifacts and checkpoints, and how fast such work is done."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.checked import BigInteger, String
from db.columns import Digest, Id, PlainText, new_id
from db.commits import Range, blob_key
from db.tables.base import Base, index_where, partial_index

IN_ORDER = ("urgency", "group_id", "job_id", "idx")


def _index(name: str, *columns: str, where: str) -> Index:
    return index_where(f"ix_shards_{name}", *columns, where)


class Shard(Base):
    """The unit of work and of commit: samples `start` to `stop`, or the whole of another job."""

    __tablename__ = "shards"
    __table_args__ = (
        UniqueConstraint("job_id", "idx"),
        # what may be claimed, in fair order within each group; nothing else is ever scanned
        _index("fresh", *IN_ORDER, where="status = 'queued' AND fence = 0"),
        _index("requeued", *IN_ORDER, where="status = 'queued' AND fence > 0 AND NOT waiting"),
        _index("waiting", "not_before", where="status = 'queued' AND waiting"),
        _index(
            "dispatched", "dispatched_at", where="status = 'queued' AND dispatched_at IS NOT NULL"
        ),
        # no index has a column that renewing a lease changes, or it would not be a HOT update
        _index("running", "group_id", "job_id", where="status = 'running'"),
    )
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    idx: Mapped[int]
    start: Mapped[int] = mapped_column(BigInteger)
    stop: Mapped[int] = mapped_column(BigInteger)
    # its batch's id, else its job's
    group_id: Mapped[str] = mapped_column(Id, server_default=text("''"))
    urgency: Mapped[int] = mapped_column(server_default=text("0"))  # its job's priority, negated
    # shards of equal keys can run in one forward pass; NULL: alone
    work_key: Mapped[int | None] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(12))
    # requeued with a pause; put back to false once `not_before` has passed
    waiting: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    fence: Mapped[int] = mapped_column(default=0)
    # of the current attempt, or of the one that succeeded: its worker's boot id and its times
    owner: Mapped[str | None] = mapped_column(Id)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    heartbeat_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    lease_until: Mapped[datetime | None]
    claims: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    releases: Mapped[int] = mapped_column(default=0)  # requeued without counting a failure
    not_before: Mapped[datetime]
    dispatched_at: Mapped[datetime | None]
    dispatch_no: Mapped[int] = mapped_column(default=0)
    # its worker's latest: done, total, unit, eta_s, note; NULL once it has made its samples
    report: Mapped[dict[str, Any] | None]
    last_error: Mapped[str | None] = mapped_column(PlainText)


class Attempt(Base):
    """A claim of a shard that has ended without success. Append only.

    The current one, and the one that succeeded, are on the shard's own row.
    """

    __tablename__ = "attempts"
    shard_id: Mapped[str] = mapped_column(Id, primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str] = mapped_column(Id)
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime]
    # failed | declined | released | lost | cancelled
    outcome: Mapped[str] = mapped_column(String(20))
    error: Mapped[str | None] = mapped_column(PlainText)


class Artifact(Base):
    """What a shard committed: a stored object, or a range of a pack if it is small.

    A samples artifact has one index entry for each sample of its shard, in order: inside the row
    if there are few, else in an object of its own, or right behind the artifact in its pack.
    """

    __tablename__ = "artifacts"
    __table_args__ = (
        UniqueConstraint("shard_id", "name"),
        partial_index("ix_artifacts_pack", "pack", also="removed_at IS NULL"),
    )
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    job_id: Mapped[str] = mapped_column(Id)  # its shard's
    shard_id: Mapped[str] = mapped_column(ForeignKey("shards.id"))
    kind: Mapped[str] = mapped_column(String(20))  # samples | weights | preview | report
    name: Mapped[str] = mapped_column(String(200))  # its file name when downloaded
    # NULL where it follows from the pack, or from the job and the digest, as almost always
    other_key: Mapped[str | None] = mapped_column("key", String(200))
    sha256: Mapped[str] = mapped_column(Digest)
    size: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str] = mapped_column(String(100))
    pack: Mapped[int | None] = mapped_column(BigInteger)  # NULL: an object of its own
    pack_offset: Mapped[int | None]
    members_sha256: Mapped[str | None] = mapped_column(Digest)  # over the lines `number digest`
    index_sha256: Mapped[str | None] = mapped_column(Digest)  # of an index outside the row
    index_data: Mapped[bytes | None] = mapped_column(deferred=True)  # an index inside the row
    # of marked samples: for each mark, how many have it, and why others do not
    marks: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]  # by retention: the object is no longer in the store

    @property
    def packed(self) -> Range | None:
        """Where its bytes lie if they are in a pack."""
        return None if self.pack is None else Range(self.pack, self.pack_offset or 0, self.size)

    @property
    def own_key(self) -> str:
        """The key of an object of its own, which one in a pack need not have."""
        return self.other_key or blob_key(self.job_id, self.sha256)

    @property
    def key(self) -> str:
        """The key of the object in the store that holds it."""
        return self.packed.key if self.packed else self.own_key

    @property
    def index_key(self) -> str | None:
        """The key of the index's own object, if it has one."""
        own = self.index_sha256 if self.pack is None else None
        return own and blob_key(self.job_id, own)


class Checkpoint(Base):
    """A training state to resume from; `bad` once it was found unusable."""

    __tablename__ = "checkpoints"
    shard_id: Mapped[str] = mapped_column(ForeignKey("shards.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    fence: Mapped[int]  # of the claim that reached this step first
    key: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(Digest)
    size: Mapped[int] = mapped_column(BigInteger)
    bad: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    created_at: Mapped[datetime]


class Rate(Base):
    """How many samples a second one worker makes of the work of this key (`Shard.work_key`)."""

    __tablename__ = "rates"
    work_key: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    samples_per_second: Mapped[float]
    at: Mapped[datetime]  # of the latest measurement

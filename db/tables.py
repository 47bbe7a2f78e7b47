"""The tables, as a glossary of the record: each noun, and below it what belongs to it.

Datasets and their versions, models and theirs with their evaluations, batches, jobs, a job's shards
with their attempts, artifacts, curves and logs, workers, schedules with their runs, setbacks,
tombstones of what was removed, keys, the audit trail and the ledger, and targets with what is
published there.
"""

from datetime import datetime
from typing import Any, ClassVar, cast

from sqlalchemy import (
    ForeignKey,
    Index,
    MetaData,
    Table,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.checked import BigInteger, String
from db.columns import (
    COLUMN_TYPES,
    CONSTRAINT_NAMES,
    Digest,
    Id,
    PlainText,
    StoredFiles,
    Summary,
    Words,
    new_id,
)
from db.commits import Range, blob_key


def _partial(name: str, *columns: str, also: str = "") -> Index:
    """An index of the rows that have the first of the columns and meet another condition."""
    return _where(name, *columns, f"{columns[0]} IS NOT NULL" + (f" AND {also}" if also else ""))


def _where(name: str, *columns_and_condition: str) -> Index:
    """An index of the rows that meet a condition, which only the migrations make."""
    *columns, condition = columns_and_condition
    # `postgresql_where` would import that dialect, which is slow, on SQLite too
    return Index(name, *columns, info={"where": condition})


class Base(DeclarativeBase):
    """The root of the tables."""

    metadata = MetaData(naming_convention=CONSTRAINT_NAMES)
    type_annotation_map: ClassVar = COLUMN_TYPES


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


class Model(Base):
    """A named line of trained weights."""

    __tablename__ = "models"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    family: Mapped[str] = mapped_column(String(40))
    marks: Mapped[dict[str, Any] | None]  # the profile that its samples get by default
    created_at: Mapped[datetime]


class ModelVersion(Base):
    """Immutable weights and their origin."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("model_id", "number"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int]
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    dataset_version_id: Mapped[str | None] = mapped_column(ForeignKey("dataset_versions.id"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    params: Mapped[dict[str, Any]]  # the family's parameters, complete
    # the number of the family's format that `params` are of
    format: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    made_by: Mapped[str | None] = mapped_column(String(100))  # as in "genmill 0.1.0+g6efa71a"
    files: Mapped[dict[str, Any]] = mapped_column(StoredFiles)
    weights_sha256: Mapped[str] = mapped_column(Digest, index=True)  # of model.safetensors
    metrics: Mapped[dict[str, Any]]
    shape: Mapped[dict[str, Any] | None]  # medium, labels, size of samples; NULL if unknown yet
    # of an imported version: what its model card says of its evaluation, data and lineage
    card: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]


class Alias(Base):
    """A movable name for one of a model's versions."""

    __tablename__ = "aliases"
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), primary_key=True)
    alias: Mapped[str] = mapped_column(String(40), primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))


class Evaluation(Base):
    """The numbers of one model version under one protocol: never measured twice.

    `protocol` says how: dataset version, split, count, seed, judge, sampling settings; its digest
    names it. `items` are the arrays with a row for each item, which comparisons resample.
    """

    __tablename__ = "evaluations"
    __table_args__ = (UniqueConstraint("version_id", "protocol_sha256"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    dataset_version_id: Mapped[str] = mapped_column(ForeignKey("dataset_versions.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    protocol: Mapped[dict[str, Any]]
    protocol_sha256: Mapped[str] = mapped_column(Digest)  # of its canonical JSON
    # by metric: value, low, high, real (real data against real data), n, better (lower | higher)
    numbers: Mapped[dict[str, Any]]
    items_key: Mapped[str] = mapped_column(String(200))
    items_sha256: Mapped[str] = mapped_column(Digest)
    created_at: Mapped[datetime]


class Judge(Base):
    """A network, trained once on a dataset version, whose features evaluations compare.

    The first one that is committed for a recipe counts: other numbers would not be comparable.
    """

    __tablename__ = "judges"
    __table_args__ = (UniqueConstraint("dataset_version_id", "recipe"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    dataset_version_id: Mapped[str] = mapped_column(ForeignKey("dataset_versions.id"))
    recipe: Mapped[str] = mapped_column(String(40))  # how it is built and trained
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    key: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(Digest)
    metrics: Mapped[dict[str, Any]]  # on held-out data, and how it was trained
    created_at: Mapped[datetime]


class Promotion(Base):
    """A change of an alias, or the refusal of one: who asked, why, and the numbers. Append only."""

    __tablename__ = "promotions"
    __table_args__ = (Index("ix_promotions_model_id_id", "model_id", "id"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    alias: Mapped[str] = mapped_column(String(40))
    # promoted | forced | refused | rolled back | set | removed
    outcome: Mapped[str] = mapped_column(String(12))
    # the version that the alias was to have, and the one that it had
    version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    previous_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    who: Mapped[str] = mapped_column(String(200))
    why: Mapped[str | None] = mapped_column(PlainText)
    verdict: Mapped[dict[str, Any] | None]  # the policy, the numbers and the reasons
    at: Mapped[datetime]


class Batch(Base):
    """Jobs submitted together.

    Until `complete_at`, when all of them are stored, its jobs are neither listed nor run.
    """

    __tablename__ = "batches"
    __table_args__ = (_where("ix_batches_incomplete", "id", "complete_at IS NULL"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    size: Mapped[int]
    created_at: Mapped[datetime]
    complete_at: Mapped[datetime | None]
    discarded_at: Mapped[datetime | None]  # when deleting began: it can never be completed


class Job(Base):
    """One request. Everything a worker needs is in `spec`, with every name pinned to a version.

    A job of a chain waits until the job `after_id` has succeeded. Until then its `spec` is as asked
    for, because the version that it names may not exist yet, and it has no shards.

    `spec` is loaded only where it is asked for, and names long prompts by their digest.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        # of lists: newest first, by a column alone or with the state and kind
        Index("ix_jobs_status_kind_id", "status", "kind", "id"),
        _partial("ix_jobs_model_status_kind_id", "model", "status", "kind", "id"),
        _partial("ix_jobs_batch_id", "batch_id", "id"),
        _partial("ix_jobs_batch_id_status_kind_id", "batch_id", "status", "kind", "id"),
        _partial("ix_jobs_schedule_id", "schedule_id", "id"),
        # of what finished jobs leave behind
        _partial("ix_jobs_finished_at_id", "finished_at", "id"),
        _partial("ix_jobs_collectable", "finished_at", also="collected_at IS NULL"),
        _partial("ix_jobs_retry_of", "retry_of"),
        _partial("ix_jobs_after_id", "after_id"),
        _partial("ix_jobs_manifest_pack", "manifest_pack"),
        _partial("ix_jobs_prompts_sha256", "prompts_sha256"),
    )
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    kind: Mapped[str] = mapped_column(String(20))
    spec: Mapped[dict[str, Any]] = mapped_column(deferred=True)
    spec_hash: Mapped[str] = mapped_column(Digest)
    status: Mapped[str] = mapped_column(String(12))
    priority: Mapped[int] = mapped_column(default=0)  # higher runs first
    model: Mapped[str | None] = mapped_column(String(100))  # the model's bare name
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("batches.id"))
    custom_id: Mapped[str | None] = mapped_column(String(200))
    schedule_id: Mapped[str | None] = mapped_column(Id)
    retry_of: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    after_id: Mapped[str | None] = mapped_column(Id)  # the one before it in its chain
    idempotency_key: Mapped[str | None] = mapped_column(String(200), unique=True)
    # to make, or items to publish; NULL of any other kind
    samples: Mapped[int | None] = mapped_column(BigInteger)
    # how many must be accepted, of an order with rules; shards are added until they are
    wanted: Mapped[int | None] = mapped_column(BigInteger)
    owner: Mapped[str | None] = mapped_column(String(200))  # who enqueued it, as user@host
    note: Mapped[str | None] = mapped_column(PlainText)  # a user's
    # when a training was told to end early and to keep its best weights, and how far it was then
    stop_asked_at: Mapped[datetime | None]
    stop_after: Mapped[float | None]  # steps, or seconds, as it reports
    error: Mapped[str | None] = mapped_column(PlainText)
    # its manifest is an object of its own, or a range of a pack
    manifest_key: Mapped[str | None] = mapped_column(String(200))
    manifest_pack: Mapped[int | None] = mapped_column(BigInteger)
    manifest_offset: Mapped[int | None]
    manifest_size: Mapped[int | None]
    manifest_sha256: Mapped[str | None] = mapped_column(Digest)
    prompts_sha256: Mapped[str | None] = mapped_column(Digest)  # of long prompts, in the store
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    collected_at: Mapped[datetime | None]  # when its unreferenced objects were deleted

    @property
    def packed_manifest(self) -> Range | None:
        """Where the manifest lies if it is in a pack."""
        if self.manifest_pack is None:
            return None
        return Range(self.manifest_pack, self.manifest_offset or 0, self.manifest_size or 0)


class JobCount(Base):
    """How many jobs of a kind are in a state: the sum over the slots.

    Triggers on `jobs` keep it. On PostgreSQL each transaction has a slot of its own, which
    `job_lists.fold_counts` adds to slot 0; on SQLite there is no other slot.
    """

    __tablename__ = "job_counts"
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    status: Mapped[str] = mapped_column(String(12), primary_key=True)
    slot: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    jobs: Mapped[int] = mapped_column(BigInteger)


class Retention(Base):
    """Up to which finished job something has been deleted, in the order of (finished_at, id)."""

    __tablename__ = "retention"
    what: Mapped[str] = mapped_column(String(20), primary_key=True)
    finished_at: Mapped[datetime]
    job_id: Mapped[str] = mapped_column(Id)


IN_ORDER = ("urgency", "group_id", "job_id", "idx")


def _partial_index(name: str, *columns: str, where: str) -> Index:
    return _where(f"ix_shards_{name}", *columns, where)


class Shard(Base):
    """The unit of work and of commit: samples `start` to `stop`, or the whole of another job."""

    __tablename__ = "shards"
    __table_args__ = (
        UniqueConstraint("job_id", "idx"),
        # what may be claimed, in fair order within each group; nothing else is ever scanned
        _partial_index("fresh", *IN_ORDER, where="status = 'queued' AND fence = 0"),
        _partial_index(
            "requeued", *IN_ORDER, where="status = 'queued' AND fence > 0 AND NOT waiting"
        ),
        _partial_index("waiting", "not_before", where="status = 'queued' AND waiting"),
        _partial_index(
            "dispatched", "dispatched_at", where="status = 'queued' AND dispatched_at IS NOT NULL"
        ),
        # no index has a column that renewing a lease changes, or it would not be a HOT update
        _partial_index("running", "group_id", "job_id", where="status = 'running'"),
    )
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    idx: Mapped[int]
    start: Mapped[int] = mapped_column(BigInteger)
    stop: Mapped[int] = mapped_column(BigInteger)
    group_id: Mapped[str] = mapped_column(
        Id, server_default=text("''")
    )  # its batch's id, else its job's
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
    report: Mapped[dict[str, Any] | None] = mapped_column()
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
    outcome: Mapped[str] = mapped_column(
        String(20)
    )  # failed | declined | released | lost | cancelled
    error: Mapped[str | None] = mapped_column(PlainText)


class Artifact(Base):
    """What a shard committed: a stored object, or a range of a pack if it is small.

    A samples artifact has one index entry for each sample of its shard, in order: inside the row
    if there are few, else in an object of its own, or right behind the artifact in its pack.
    """

    __tablename__ = "artifacts"
    __table_args__ = (
        UniqueConstraint("shard_id", "name"),
        _partial("ix_artifacts_pack", "pack", also="removed_at IS NULL"),
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


class Point(Base):
    """One point of a curve: a loss or metric at a step of a training job."""

    __tablename__ = "points"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[float]


class Transition(Base):
    """A change of state of a job or one of its shards. Append only.

    What went as planned is on the row itself (`db.moves`).
    """

    __tablename__ = "transitions"
    __table_args__ = (Index("ix_transitions_job_id_at_id", "job_id", "at", "id"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    job_id: Mapped[str] = mapped_column(Id)
    shard_id: Mapped[str | None] = mapped_column(Id)
    at: Mapped[datetime]
    old: Mapped[str | None] = mapped_column(String(12))
    new: Mapped[str] = mapped_column(String(12))
    reason: Mapped[str | None] = mapped_column(PlainText)


class LogLine(Base):
    """A line that a worker wrote about a job, for `job logs`."""

    __tablename__ = "log_lines"
    __table_args__ = (Index("ix_log_lines_job_id_at_id", "job_id", "at", "id"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    at: Mapped[datetime]
    level: Mapped[str] = mapped_column(String(10))
    message: Mapped[str] = mapped_column(PlainText)


class Rate(Base):
    """How many samples a second one worker makes of the work of this key (`Shard.work_key`)."""

    __tablename__ = "rates"
    work_key: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    samples_per_second: Mapped[float]
    at: Mapped[datetime]  # of the latest measurement


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


class Tombstone(Base):
    """Something that a command removed, by the id that it had.

    A job's rows are deleted; a version's stay, without its files. What is `kept` is only hidden:
    its row names its objects, which stay in the store. Artifacts have one each, with what they went
    with in `about`; their bytes are counted there.
    """

    __tablename__ = "tombstones"
    __table_args__ = (
        _partial("ix_tombstones_name", "name"),
        _partial("ix_tombstones_sweep_at", "sweep_at"),
        _where("ix_tombstones_kept", "id", "kept"),
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
        _where("ix_ledger_leaves_waiting", "id", "idx IS NULL"),
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
        _partial("ix_publications_job_id_sample", "job_id", "sample"),
        _partial("ix_publications_version_id", "version_id"),
        _partial("ix_publications_expires_at", "expires_at"),
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


# for statements that are made once and run often: without the classes, they run much faster
JOBS, SHARDS, WORKERS = (cast("Table", each.__table__) for each in (Job, Shard, Worker))

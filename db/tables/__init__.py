"""The tables, as a glossary of the record: a module for each subject, a class for each noun.

What belongs to a noun stands below it. The types of columns are in `db.columns`.
"""

from typing import cast

from sqlalchemy import Table

from db.tables.base import Base
from db.tables.data import Dataset, DatasetVersion, Withdrawal
from db.tables.jobs import Batch, Job, JobCount, LogLine, Point, Retention, Transition
from db.tables.models import Alias, Evaluation, Judge, Model, ModelVersion, Promotion
from db.tables.publishing import Publication, Target
from db.tables.schedules import Schedule, ScheduleRun
from db.tables.shards import IN_ORDER, Artifact, Attempt, Checkpoint, Rate, Shard
from db.tables.system import OwnStore, Setback, Worker
from db.tables.trust import AuditEntry, Key, Ledger, LedgerHead, LedgerLeaf, LedgerNode, Tombstone

# for statements that are made once and run often: without the classes, they run much faster
JOBS, SHARDS, WORKERS = (cast("Table", each.__table__) for each in (Job, Shard, Worker))
SETBACKS, TOMBSTONES = (cast("Table", each.__table__) for each in (Setback, Tombstone))

__all__ = [
    "IN_ORDER",
    "JOBS",
    "SETBACKS",
    "SHARDS",
    "TOMBSTONES",
    "WORKERS",
    "Alias",
    "Artifact",
    "Attempt",
    "AuditEntry",
    "Base",
    "Batch",
    "Checkpoint",
    "Dataset",
    "DatasetVersion",
    "Evaluation",
    "Job",
    "JobCount",
    "Judge",
    "Key",
    "Ledger",
    "LedgerHead",
    "LedgerLeaf",
    "LedgerNode",
    "LogLine",
    "Model",
    "ModelVersion",
    "OwnStore",
    "Point",
    "Promotion",
    "Publication",
    "Rate",
    "Retention",
    "Schedule",
    "ScheduleRun",
    "Setback",
    "Shard",
    "Target",
    "Tombstone",
    "Transition",
    "Withdrawal",
    "Worker",
]

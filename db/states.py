"""The states of jobs and shards, and which moves between them are allowed.

Succeeded, failed and cancelled are final: nothing leaves these states, and a retry is a new job.
"""

from enum import StrEnum

from db.errors import BadRecord


class _State(StrEnum):
    @classmethod
    def _missing_(cls, value: object) -> None:
        raise BadRecord(
            f"the record holds {str(value)[:40]!r} where a state belongs",
            remedy="it was damaged or edited: restore a backup",
        )


class JobState(_State):
    """The state of a job."""

    WAITING = "waiting"  # for the job before it in its chain; it has no shards yet
    QUEUED = "queued"
    RUNNING = "running"
    FINALIZING = "finalizing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ShardState(_State):
    """The state of a shard."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({"succeeded", "failed", "cancelled"})

JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.WAITING: frozenset({JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}),
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    # straight to succeeded: a job of one shard, whose manifest is stored before the commit
    JobState.RUNNING: frozenset(
        {JobState.FINALIZING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    ),
    # back to running: an order of accepted samples needs more of them
    JobState.FINALIZING: frozenset(
        {JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

SHARD_MOVES: dict[ShardState, frozenset[ShardState]] = {
    ShardState.QUEUED: frozenset({ShardState.RUNNING, ShardState.FAILED, ShardState.CANCELLED}),
    # from running to running: a claim that takes over an expired lease
    ShardState.RUNNING: frozenset(
        {
            ShardState.RUNNING,
            ShardState.QUEUED,
            ShardState.SUCCEEDED,
            ShardState.FAILED,
            ShardState.CANCELLED,
        }
    ),
    ShardState.SUCCEEDED: frozenset(),
    ShardState.FAILED: frozenset(),
    ShardState.CANCELLED: frozenset(),
}

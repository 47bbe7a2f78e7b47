"""Job and shard states, and the one table of moves between them.

The last three states of each are final: nothing leaves them, and a retry is a new job.
"""

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    FINALIZING = "finalizing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ShardState(StrEnum):
    """Where a shard is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({"succeeded", "failed", "cancelled"})

JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.FINALIZING, JobState.FAILED, JobState.CANCELLED}),
    JobState.FINALIZING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

SHARD_MOVES: dict[ShardState, frozenset[ShardState]] = {
    ShardState.QUEUED: frozenset({ShardState.RUNNING, ShardState.FAILED, ShardState.CANCELLED}),
    # running -> running is a claim that takes over an expired lease
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

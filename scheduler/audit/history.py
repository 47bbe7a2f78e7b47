"""All attempts at a shard, put together from its own row and from those that ended otherwise.

Also all its changes of state: those on record, and those that follow from the attempts; and all
those of a job.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import RowMapping

Row = Mapping[str, Any] | RowMapping  # which is one, but for the types
Move = tuple[Any, str | None, str]  # time, old state, new state
HELD = {"running": None, "succeeded": "succeeded"}  # state of a shard -> outcome of its attempt
NOT_RECORDED = "unknown, for its end is not recorded"


def put_together(ended: Iterable[Row], shards: Iterable[Row]) -> list[Row]:
    """Rows of `attempts`, and one for the attempt on each shard's row, in the order of fences."""
    own = [
        {
            "shard_id": shard["id"],
            "worker": shard["owner"],
            "outcome": HELD[shard["status"]],
            "error": None,
            **{name: shard[name] for name in ("fence", "started_at", "ended_at")},
        }
        for shard in shards
        if shard["status"] in HELD
    ]
    return sorted([*ended, *own], key=lambda row: row["fence"])


def moves_of(attempts: Iterable[Row], transitions: Iterable[Row]) -> Iterator[Move]:
    """Every change of a shard's state, in order.

    An attempt begins with a claim from the queue, unless it takes over: that is a transition, as is
    the end of every attempt without success.
    """
    ordered = sorted(transitions, key=lambda row: (row["at"], row["id"]))
    recorded = deque((row["at"], row["old"], row["new"]) for row in ordered)
    state = "queued"
    for attempt in attempts:
        if state != "running":
            yield attempt["started_at"], "queued", "running"
        if attempt["ended_at"] is None:
            return
        move = (attempt["ended_at"], "running", attempt["outcome"])
        if attempt["outcome"] != "succeeded":
            known = recorded and recorded[0][0] == attempt["ended_at"]
            move = recorded.popleft() if known else (*move[:2], NOT_RECORDED)
        yield move
        state = move[2]
    yield from recorded


def job_moves(job: Row, transitions: Iterable[Row]) -> Iterator[Move]:
    """Every change of a job's state, in order.

    Its row tells when it was enqueued, began and succeeded; every other move is a transition, and
    so is that it waited for another.
    """
    recorded = sorted(transitions, key=lambda row: (row["at"], row["id"]))
    waited = [row for row in recorded if row["new"] in {"waiting", "queued"}]
    recorded = [row for row in recorded if row not in waited]
    state = waited[-1]["new"] if waited else "queued"
    yield from ((row["at"], row["old"], row["new"]) for row in waited)
    if not waited:
        yield job["created_at"], None, state
    if job["started_at"] is not None:
        yield job["started_at"], state, "running"
        state = "running"
    for row in recorded:
        yield row["at"], row["old"], row["new"]
        state = row["new"]
    if job["status"] == "succeeded":
        yield job["finished_at"], state, "succeeded"

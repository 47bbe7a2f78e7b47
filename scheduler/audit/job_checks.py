"""The invariants of one job, given what its shards have shown."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from scheduler.audit.history import Row, job_moves
from scheduler.audit.record import FINAL, JobView, ShardView
from scheduler.audit.shard_checks import TRAININGS, impossible_times, samples_in, wrong_moves
from scheduler.audit.violations import Bounds, Violation, Violations


@dataclass
class Tally:
    """What is kept of a job's shards, whatever their number."""

    states: Counter[str] = field(default_factory=Counter)
    last_end: datetime | None = None
    next_sample: int = 0  # after the last one that was committed

    def add(self, view: ShardView) -> Violations:
        """Count a shard, in the order of their numbers.

        1. Each sample of a job is committed at most once: their ranges are in order.
        """
        row = view.row
        self.states[row["status"]] += 1
        if row["ended_at"] is not None:
            self.last_end = max(self.last_end or row["ended_at"], row["ended_at"])
        if samples := samples_in(view):
            stop = row["start"] + samples
            for sample in range(row["start"], min(stop, self.next_sample)):
                yield Violation(f"sample {sample} of job {view.job['id']} was committed 2 times")
            self.next_sample = max(self.next_sample, stop)


def check_job(view: JobView, tally: Tally, now: datetime, bounds: Bounds) -> Violations:
    """Every violation of a job that the record shows."""
    yield from states_fit(view, tally)
    yield from versions_fit(view, tally)
    yield from is_in_order(view, tally, now, bounds)
    for row in [view.row, *view.versions, *view.transitions]:
        yield from impossible_times(f"job {view.id}", row, now, bounds)
    if view.has_history:
        yield from wrong_moves("job", view.row, None, job_moves(view.row, view.transitions))
    if bounds.workers_live:
        yield from is_finished(view, tally, now, bounds)


def states_fit(view: JobView, tally: Tally) -> Violations:
    """5. A succeeded job has only succeeded shards, and a manifest; no other job has one."""
    status, states = view.row["status"], set(tally.states)
    whole = status in {"succeeded", "finalizing"} and states != {"succeeded"}
    if whole or (status in FINAL and not states <= FINAL):
        yield _of(view, f"is {status} with shards {dict(tally.states)}")
    if status != "succeeded" and (
        view.row["manifest_key"] or view.row["manifest_pack"] is not None
    ):
        yield _of(view, f"is {status} and has a manifest")


def versions_fit(view: JobView, tally: Tally) -> Violations:
    """3, 6. A training has made one model version if it succeeded, and none after its end."""
    trained = view.row["kind"] in TRAININGS and set(tally.states) == {"succeeded"}
    if len(view.versions) != int(trained):
        yield _of(view, f"is {view.row['status']} and made {len(view.versions)} model versions")
    for version in view.versions:
        if view.row["finished_at"] and version["created_at"] > view.row["finished_at"]:
            yield _of(view, f"made version {version['id']} after it had ended")


def is_in_order(view: JobView, tally: Tally, now: datetime, bounds: Bounds) -> Violations:
    """A job waits until the one before it has ended, and begins only if that has succeeded."""
    before, shards = view.before, tally.states.total()
    if view.row["status"] != "waiting":
        if before and before["status"] != "succeeded" and shards:
            yield _of(view, f"has begun, and job {before['id']} has not succeeded")
    elif before is None or shards:
        yield _of(view, f"waits for {before and before['id']}, with {shards} shards")
    elif bounds.workers_live and _ended_before(before, now - bounds.grace):
        yield _of(view, f"still waits for job {before['id']}, which has ended")


def is_finished(view: JobView, tally: Tally, now: datetime, bounds: Bounds) -> Violations:
    """9. A job whose shards have all succeeded moves on soon: a settle that was lost is made up."""
    if view.row["status"] in FINAL or set(tally.states) != {"succeeded"}:
        return
    if tally.last_end is not None and tally.last_end < now - bounds.grace:
        yield _of(
            view, f"is {view.row['status']}, but its last shard succeeded at {tally.last_end}"
        )


def _ended_before(job: Row, at: datetime) -> bool:
    ended = job["finished_at"]
    return job["status"] in FINAL and ended is not None and bool(ended < at)


def _of(view: JobView, text: str) -> Violation:
    return Violation(f"job {view.id} {text}")

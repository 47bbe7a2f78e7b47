"""A job's progress: pure functions over the JSON in `jobs.progress`.

A training job shows its worker's last report. A generate job counts samples over its shards: those
`committed`, and those that each `running` shard has made so far.
"""

from collections.abc import Sequence
from typing import Any

Progress = dict[str, Any]


def initial(kind: str, ranges: Sequence[tuple[int, int]]) -> Progress:
    """The progress of a new job."""
    if kind != "generate":
        return {}
    total = sum(stop - start for start, stop in ranges)
    return {"done": 0, "total": total, "unit": "samples", "committed": 0, "running": {}}


def after_report(job: Progress, idx: int, report: Progress, *, elapsed_s: float) -> Progress:
    """The progress after shard `idx` reported; estimates the time left from the job's speed."""
    if "committed" not in job:
        return dict(report)
    running = job["running"] | {str(idx): report.get("done", 0)}
    new = _counted(job, running) | {"note": report.get("note", "")}
    if new["done"]:
        new["eta_s"] = round(elapsed_s * (new["total"] - new["done"]) / new["done"], 1)
    return new


def after_commit(job: Progress, idx: int, size: int) -> Progress:
    """The progress after shard `idx` committed its `size` samples."""
    if "committed" not in job:
        return job
    return _counted(job | {"committed": job["committed"] + size}, _without(job, idx))


def after_release(job: Progress, idx: int) -> Progress:
    """The progress after shard `idx` went back to the queue: its samples must be made again."""
    return job if "committed" not in job else _counted(job, _without(job, idx))


def _without(job: Progress, idx: int) -> dict[str, float]:
    return {key: done for key, done in job["running"].items() if key != str(idx)}


def _counted(job: Progress, running: dict[str, float]) -> Progress:
    done = min(job["committed"] + sum(running.values()), job["total"])
    return job | {"done": done, "running": running}

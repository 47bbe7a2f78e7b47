"""How far a job is: plain data kept in `jobs.progress`, pure functions over it.

A job that is one piece of work shows its worker's last report. A generate job counts samples over
its shards: `committed` ones, and those that `running` shards have made so far.
"""

from collections.abc import Sequence
from typing import Any

Progress = dict[str, Any]


def begun(kind: str, ranges: Sequence[tuple[int, int]]) -> Progress:
    """The progress of a job that has just been added."""
    if kind != "generate":
        return {}
    total = sum(stop - start for start, stop in ranges)
    return {"done": 0, "total": total, "unit": "samples", "committed": 0, "running": {}}


def reported(job: Progress, idx: int, report: Progress, *, elapsed_s: float) -> Progress:
    """Take in a running shard's report; estimate the time left from the whole job's speed."""
    if "committed" not in job:
        return dict(report)
    running = job["running"] | {str(idx): report.get("done", 0)}
    seen = _counted(job, running) | {"note": report.get("note", "")}
    if seen["done"]:
        seen["eta_s"] = round(elapsed_s * (seen["total"] - seen["done"]) / seen["done"], 1)
    return seen


def committed(job: Progress, idx: int, size: int) -> Progress:
    """Take in that a shard's `size` samples are safe."""
    if "committed" not in job:
        return job
    return _counted(job | {"committed": job["committed"] + size}, _without(job, idx))


def given_back(job: Progress, idx: int) -> Progress:
    """Forget what a shard had made, for it will be made again."""
    return job if "committed" not in job else _counted(job, _without(job, idx))


def _without(job: Progress, idx: int) -> dict[str, float]:
    return {key: done for key, done in job["running"].items() if key != str(idx)}


def _counted(job: Progress, running: dict[str, float]) -> Progress:
    done = min(job["committed"] + sum(running.values()), job["total"])
    return job | {"done": done, "running": running}

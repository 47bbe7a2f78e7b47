"""The audit at the end of a simulation: objects, times, ends, and what users were told.

The rows are read with plain SQL; nothing of Genmill's code is trusted.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from db.columns import hyphenated
from db.commits import pack_key
from tests.history import check

if TYPE_CHECKING:
    from tests.simulation.world import World

JOBS = """
SELECT lower(hex(id)), status, idempotency_key, after_id IS NOT NULL, coalesce(error, '') FROM jobs
ORDER BY id
"""
ARTIFACTS = """
SELECT lower(hex(artifacts.job_id)), idx, artifacts.key, pack, pack_offset, size,
    lower(hex(sha256)), artifacts.created_at, finished_at, shards.started_at, ended_at,
    jobs.status
FROM artifacts JOIN shards ON shards.id = shard_id JOIN jobs ON jobs.id = artifacts.job_id
ORDER BY artifacts.job_id, idx
"""
MANIFESTS = """
SELECT lower(hex(id)), manifest_key, manifest_pack, manifest_offset, manifest_size,
    lower(hex(manifest_sha256)) FROM jobs WHERE status = 'succeeded'
"""
ATTEMPTS = """
SELECT hex(shard_id), attempts.fence, attempts.started_at, attempts.ended_at, jobs.finished_at,
    jobs.created_at
FROM attempts JOIN shards ON shards.id = shard_id JOIN jobs ON jobs.id = job_id
UNION ALL
SELECT hex(shards.id), fence, shards.started_at, shards.ended_at, jobs.finished_at, jobs.created_at
FROM shards JOIN jobs ON jobs.id = job_id WHERE shards.status = 'succeeded'
ORDER BY 1, 2
"""
LEAVES = "SELECT idx, subject FROM ledger_leaves ORDER BY idx"


def audit(world: "World") -> Iterator[str]:
    """What is wrong with objects and times: the states were looked at after each transaction."""
    execute = world.services.database.driver.execute
    listed: dict[str, list[str]] = defaultdict(list)
    for job, idx, *place, size, sha256, made_at, job_end, begun, ended, state in execute(ARTIFACTS):
        listed[job].append(sha256)
        data = _read(world, f"jobs/{hyphenated(job)}/blobs/{sha256}", *place, size)
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            yield f"what shard {idx} of job {job} committed is not in the store: {place}"
        if not begun <= made_at <= ended or (made_at > job_end and state != "succeeded"):
            yield f"shard {idx} of job {job} committed at {made_at}, not within its attempt"
    for job, *place, sha256 in execute(MANIFESTS):
        data = _read(world, "", *place)
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            yield f"the manifest of job {job} is not in the store: {place}"
        elif [each["sha256"] for each in json.loads(data)["artifacts"]] != listed[job]:
            yield f"the manifest of job {job} does not list its artifacts"
    yield from _wrong_attempts(execute(ATTEMPTS).fetchall())
    yield from _wrong_leaves(execute(LEAVES).fetchall())


def _read(
    world: "World", own_key: str, key: str | None, pack: int | None, offset: int | None, size: int
) -> bytes | None:
    """An object of its own, or a range of a pack."""
    found = world.store.objects.get((key or own_key) if pack is None else pack_key(pack))
    if found is None or pack is None or offset is None:
        return found and found.data
    return found.data[offset : offset + size]


def _wrong_attempts(rows: list[tuple[Any, ...]]) -> Iterator[str]:
    """Attempts at a shard follow one another, and none goes beyond its job's end."""
    for before, row in pairwise([None, *rows]):
        shard, fence, started_at, ended_at, finished_at, created_at = row
        earlier = before if before and before[0] == shard else (shard, 0, "", created_at)
        if fence != earlier[1] + 1 or not earlier[3] <= started_at <= ended_at <= finished_at:
            yield f"attempt {fence} at shard {shard}: {started_at} to {ended_at} after {earlier}"


def _wrong_leaves(rows: list[tuple[Any, ...]]) -> Iterator[str]:
    """The manifest of a job has one leaf at most, and the ledger has no gap."""
    if len({subject for _, subject in rows}) < len(rows):
        yield "the manifest of a job has two leaves"
    numbered = [idx for idx, _ in rows if idx is not None]
    if numbered != [*range(len(numbered))]:
        yield f"the leaves of the ledger are numbered {numbered}"


def contradictions(world: "World") -> Iterator[str]:
    """What users were told and is not so, and ends that nobody brought about."""
    rows = world.services.database.driver.execute(JOBS).fetchall()
    states = {hyphenated(row[0]): row[1] for row in rows}
    keys = {row[2]: hyphenated(row[0]) for row in rows if row[2]}
    yield from check(world.history, states, keys)
    cancelled = {call.job for call in world.history.calls if call.what == "cancel"}
    for digits, status, _, after, error in rows:
        job = hyphenated(digits)
        if status == "cancelled" and not after and job not in cancelled:
            yield f"job {job} is cancelled, which nobody asked for"
        if status == "failed" and job not in world.blamed and "poison" not in error:
            yield f"job {job} has failed, which is not its fault: {error}"
    yield from _wrong_runs(world)


def _wrong_runs(world: "World") -> Iterator[str]:
    driver = world.services.database.driver
    fired = driver.execute(
        "SELECT hex(job_id) FROM schedule_runs WHERE outcome = 'fired' ORDER BY job_id"
    ).fetchall()
    made = driver.execute(
        "SELECT hex(id) FROM jobs WHERE schedule_id IS NOT NULL ORDER BY id"
    ).fetchall()
    if fired != made:
        yield f"the schedule fired {fired}, and made {made}"


def left_over(world: "World") -> Iterator[str]:
    """Objects of jobs that ended long ago and that the record does not name."""
    execute = world.services.database.driver.execute
    named = {row[1] for row in execute(MANIFESTS)}
    for row in execute(ARTIFACTS):
        named.add(row[2] or f"jobs/{hyphenated(row[0])}/blobs/{row[6]}")
    for key in sorted(world.store.objects.keys() - named):
        if key.startswith("jobs/"):
            yield f"{key} is garbage and was not collected"

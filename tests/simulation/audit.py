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
from tests.simulation.requests import TRAINED, TRIES
from tests.simulation.training import STEPS, weights_after

if TYPE_CHECKING:
    from tests.simulation.world import World

TOO_FEW = "samples were accepted"
JOBS = """
SELECT lower(hex(id)), status, idempotency_key, after_id IS NOT NULL, coalesce(error, '') FROM jobs
ORDER BY id
"""
ARTIFACTS = """
SELECT lower(hex(artifacts.job_id)), idx, artifacts.key, pack, pack_offset, size,
    lower(hex(sha256)), artifacts.kind, artifacts.name, artifacts.created_at, finished_at,
    shards.started_at, ended_at, jobs.status
FROM artifacts JOIN shards ON shards.id = shard_id JOIN jobs ON jobs.id = artifacts.job_id
ORDER BY artifacts.job_id, idx, artifacts.name
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
RANGES = """
SELECT lower(hex(jobs.id)), start, stop FROM shards JOIN jobs ON jobs.id = job_id
WHERE wanted IS NOT NULL ORDER BY jobs.id, idx
"""
ORDERS = """
SELECT lower(hex(id)), status, wanted, coalesce(error, '') FROM jobs
WHERE wanted IS NOT NULL AND samples > 0
"""
VERSIONS = """
SELECT lower(hex(job_id)), json_extract(metrics, '$.steps'), stop_asked_at IS NOT NULL
FROM model_versions JOIN jobs ON jobs.id = job_id
"""
FOLLOWERS = """
SELECT lower(hex(jobs.id)), json_extract(jobs.spec, '$.model'), number
FROM jobs JOIN model_versions ON model_versions.job_id = after_id WHERE samples > 0
"""
CHECKPOINTS = "SELECT key FROM checkpoints"
LEAVES = "SELECT idx, subject FROM ledger_leaves ORDER BY idx"


def audit(world: "World") -> Iterator[str]:
    """What is wrong with objects and times: the states were looked at after each transaction."""
    execute = world.services.database.driver.execute
    listed: dict[str, list[str]] = defaultdict(list)
    made: dict[tuple[str, str], list[bytes]] = defaultdict(list)  # by job and kind
    rows = execute(ARTIFACTS)
    for job, idx, key, pack, offset, size, sha256, kind, name, made_at, *times in rows:
        place = (key, pack, offset)
        listed[job].append(sha256)
        data = _read(world, f"jobs/{hyphenated(job)}/blobs/{sha256}", *place, size)
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            yield f"what shard {idx} of job {job} committed is not in the store: {place}"
        elif name != "config.json":
            made[job, kind].append(data)
        job_end, begun, ended, state = times
        # an order's selection comes after all of its shards
        in_time = kind == "selection" or begun <= made_at <= ended
        if not in_time or (made_at > job_end and state != "succeeded"):
            yield f"shard {idx} of job {job} committed at {made_at}, not within its attempt"
    for job, *place, sha256 in execute(MANIFESTS):
        data = _read(world, "", *place)
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            yield f"the manifest of job {job} is not in the store: {place}"
        elif [each["sha256"] for each in json.loads(data)["artifacts"]] != listed[job]:
            yield f"the manifest of job {job} does not list its artifacts"
    yield from _wrong_attempts(execute(ATTEMPTS).fetchall())
    yield from _wrong_leaves(execute(LEAVES).fetchall())
    yield from _wrong_orders(world, made)
    yield from _wrong_versions(world, made)


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


def _wrong_orders(world: "World", made: dict[tuple[str, str], list[bytes]]) -> Iterator[str]:
    """An order has the first accepted samples of all that it made, or has made all it may."""
    execute = world.services.database.driver.execute
    ranges: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for job, start, stop in execute(RANGES):
        ranges[job].append((start, stop))
    for job, status, wanted, error in execute(ORDERS):
        starts, stops = zip(*ranges[job], strict=True)
        if starts != (0, *stops[:-1]):
            yield f"the shards of order {job} hold the samples {ranges[job]}"
        accepted = [n for n in range(stops[-1]) if world.accepts(n)]
        selected = [_selected(data) for data in made[job, "selection"]]
        if status == "succeeded" and selected != [accepted[:wanted]]:
            yield f"order {job} selects {selected}, and should {accepted[:wanted]}"
        is_spent = stops[-1] >= TRIES * wanted and len(accepted) < wanted
        if TOO_FEW in error and not is_spent:
            yield f"order {job} has failed with {len(accepted)} of {wanted} samples"


def _selected(data: bytes) -> list[int]:
    return [n for n, line in enumerate(data.splitlines()) if json.loads(line)["accepted"]]


def _wrong_versions(world: "World", made: dict[tuple[str, str], list[bytes]]) -> Iterator[str]:
    """A version has the weights of its steps, whatever stopped them, and its followers use it."""
    execute = world.services.database.driver.execute
    for job, steps, ends_early in execute(VERSIONS):
        if steps != STEPS and not ends_early:
            yield f"training {job} has ended after {steps} steps"
        weights = [data.decode() for data in made[job, "weights"]]
        is_known = "differs" not in world.rates
        if len(weights) != 1 or (is_known and weights != [weights_after(steps)]):
            yield f"training {job} has the weights {weights} after {steps} steps"
    for job, model, number in execute(FOLLOWERS):
        if model != f"{TRAINED}:{number}":
            yield f"job {job} uses {model}, and follows the training of version {number}"


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
    # a training that is told to end early is cancelled if there is nothing to keep
    cancelled = {call.job for call in world.history.calls if call.what in {"cancel", "keep"}}
    for digits, status, _, after, error in rows:
        job = hyphenated(digits)
        if status == "cancelled" and not after and job not in cancelled:
            yield f"job {job} is cancelled, which nobody asked for"
        is_told = "poison" in error or TOO_FEW in error
        if status == "failed" and job not in world.blamed and not is_told:
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
    named = {row[1] for row in execute(MANIFESTS)} | {key for (key,) in execute(CHECKPOINTS)}
    for row in execute(ARTIFACTS):
        named.add(row[2] or f"jobs/{hyphenated(row[0])}/blobs/{row[6]}")
    for key in sorted(world.store.objects.keys() - named):
        if key.startswith("jobs/"):
            yield f"{key} is garbage and was not collected"

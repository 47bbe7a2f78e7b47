"""The auditor: the invariants of a job's life, checked from outside while everything runs.

It reads the record, the store and the broker itself (see `snapshot`) and trusts no code of Genmill.
Each check yields a sentence for each violation. A step that was not seen is found by its traces: if
it was out of turn, it leaves a time, a fence or a count that does not fit.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from itertools import pairwise

import redis

from tests.attempts import HELD, Move, job_moves, moves_of
from tests.chaos.snapshot import Objects, Row, Snapshot, read_doorbells, read_members, read_record
from worker.settings import Settings

FINAL = {"succeeded", "failed", "cancelled"}
TRAININGS = {"train", "finetune"}
MAX_BACKOFF_S = 60
MANY_DOORBELLS = 1000  # Redis is a doorbell, not a queue

Violations = Iterator[str]
Members = Mapping[str, list[Row]]  # by artifact


class Auditor:
    """Audits the whole system, repeatedly; remembers what must not change between two audits.

    `grace_s` is how long a shard may be left alone before it counts as forgotten: lease, deadline
    and loop, and the time to restart a process that was killed.
    """

    def __init__(self, settings: Settings, *, grace_s: float) -> None:
        self.settings = settings
        self.grace = timedelta(seconds=grace_s)
        self.objects = Objects(settings.store, settings.s3_endpoint_url)
        self.before = read_record(settings.database)
        self.began = self.before.now

    def audit(self) -> list[str]:
        """Every violation found now, each in a sentence."""
        snapshot = read_record(self.settings.database)
        members = read_members(snapshot, self.objects)
        checks = (final_states_stay, nothing_after_the_end, only_the_holder_acts)
        found = [line for check in (*checks, claims_are_counted) for line in check(snapshot)]
        found += one_member_a_sample(snapshot, members)
        found += succeeded_is_complete(snapshot, members)
        found += bytes_match(snapshot, members, self.objects)
        found += jobs_are_whole(snapshot, self.objects)
        found += nothing_went_back(self.before, snapshot)
        found += nobody_is_forgotten(snapshot, self.grace)
        found += complete_jobs_are_finished(snapshot, self.grace)
        found += shards_know_their_jobs(snapshot)
        found += chains_are_in_order(snapshot, self.grace)
        found += times_are_the_databases(snapshot, self.began, self.settings.lease_s)
        found += lost_claims_stay_under(snapshot, self.settings.max_claims)
        found += self._doorbells(snapshot)
        self.before = snapshot
        return found

    def _doorbells(self, snapshot: Snapshot) -> list[str]:
        try:
            return list(doorbells_say_ids_only(snapshot, self.settings.broker_client))
        except redis.RedisError:
            return []  # the broker is down: there is nothing to read


def one_member_a_sample(s: Snapshot, members: Members) -> Violations:
    """1. Each sample of a job is committed at most once."""
    counted = Counter(
        (row["job_id"], member["sample"]) for row in s.artifacts for member in members[row["id"]]
    )
    for (job, sample), times in counted.items():
        if times > 1:
            yield f"sample {sample} of job {job} was committed {times} times"


def bytes_match(s: Snapshot, members: Members, objects: Objects) -> Violations:
    """2. Whatever was committed is in the store, byte for byte."""
    for row in s.artifacts:
        data = objects.read_artifact(row)
        yield from _differs(row, data)
        for member in members[row["id"]] if data is not None else []:
            part = data[member["offset"] : member["offset"] + member["size"]]
            if hashlib.sha256(part).hexdigest() != member["sha256"]:
                yield f"sample {member['sample']} in {row['key']} differs from its digest"
    for version in s.model_versions:
        for file in version["files"].values():
            yield from _differs(file, objects.read(file["key"]))
    for row in s.checkpoints:
        if not row["bad"]:
            yield from _differs(row, objects.read(row["key"]))


def succeeded_is_complete(s: Snapshot, members: Members) -> Violations:
    """3. A shard has succeeded if and only if its artifacts are complete."""
    versions = Counter(row["job_id"] for row in s.model_versions)
    for shard in s.shards:
        made = s.artifacts_of[shard["id"]]
        samples = [m["sample"] for row in made for m in members[row["id"]]]
        kind = s.job[shard["job_id"]]["kind"]
        if kind == "generate":
            whole = samples == list(range(shard["start"], shard["stop"]))
            nothing = not samples and not made
        elif kind not in TRAININGS:
            whole, nothing = bool(made), True  # a refusal has its report too
        else:
            weights = [row["name"] for row in made if row["kind"] == "weights"]
            whole = "model.safetensors" in weights and versions[shard["job_id"]] == 1
            nothing = not weights and not versions[shard["job_id"]]
        if not (whole if shard["status"] == "succeeded" else nothing):
            yield f"shard {shard['id']} is {shard['status']} with {len(samples)} samples, {made}"


def final_states_stay(s: Snapshot) -> Violations:
    """4. Changes of state follow one another without a gap, and none leaves a final state."""
    for job in s.jobs:
        yield from _wrong_moves(job, None, job_moves(job, s.transitions_of[job["id"]]))
    for shard in s.shards:
        moves = moves_of(s.attempts_at[shard["id"]], s.transitions_of[shard["id"]])
        yield from _wrong_moves(shard, "queued", moves)


def jobs_are_whole(s: Snapshot, objects: Objects) -> Violations:
    """5. A succeeded job has only succeeded shards, and a manifest that matches the record."""
    for job in s.jobs:
        states = Counter(shard["status"] for shard in s.shards_of[job["id"]])
        if job["status"] in {"succeeded", "finalizing"} and set(states) != {"succeeded"}:
            yield f"job {job['id']} is {job['status']} with shards {dict(states)}"
        if job["status"] in FINAL and not set(states) <= FINAL:
            yield f"job {job['id']} is {job['status']} with shards {dict(states)}"
        if job["status"] == "succeeded":
            yield from _manifest_differs(s, job, objects)
        elif job["manifest_key"] or job["manifest_pack"] is not None:
            yield f"job {job['id']} is {job['status']} and has a manifest"


def nothing_after_the_end(s: Snapshot) -> Violations:
    """6. Nothing is committed after a job was cancelled or has failed."""
    ended = {row["id"]: row["finished_at"] for row in s.jobs if row["status"] in FINAL}
    for what in (s.artifacts, s.model_versions):
        for row in what:
            at = ended.get(row["job_id"])
            if at is not None and row["created_at"] > at:
                yield f"{row['id']} was committed after job {row['job_id']} had ended"
    for attempt in s.attempts:
        at = ended.get(s.shard[attempt["shard_id"]]["job_id"])
        if at is not None and (attempt["ended_at"] is None or attempt["ended_at"] > at):
            yield f"attempt {_named(attempt)} goes beyond the end of its job"


def only_the_holder_acts(s: Snapshot) -> Violations:
    """7. Only the current fence and owner change a running shard: attempts do not overlap.

    10. An attempt is recorded before its work: what a shard made falls within one of its attempts.
    """
    for shard in s.shards:
        attempts = s.attempts_at[shard["id"]]
        for earlier, later in pairwise(attempts):
            if earlier["ended_at"] is None or earlier["ended_at"] > later["started_at"]:
                yield f"attempt {_named(earlier)} had not ended when the next began"
        last = attempts[-1] if attempts else None
        yield from _wrong_holder(shard, last)
        won = [row["fence"] for row in attempts if row["outcome"] == "succeeded"]
        if won != ([shard["fence"]] if shard["status"] == "succeeded" else []):
            yield f"shard {shard['id']} is {shard['status']}, but attempts {won} succeeded"
        yield from _work_outside(s, shard, attempts)


def claims_are_counted(s: Snapshot) -> Violations:
    """8. The fence counts the claims, and each claim has its attempt and outcome."""
    for shard in s.shards:
        attempts = s.attempts_at[shard["id"]]
        outcomes = Counter(row["outcome"] for row in attempts)
        fences = [row["fence"] for row in attempts]
        if fences != list(range(1, shard["fence"] + 1)) or shard["claims"] != shard["fence"]:
            yield f"shard {shard['id']}: fence {shard['fence']}, {shard['claims']} claims, {fences}"
        # what a machine declined was given back, too
        given_back = outcomes["released"] + outcomes["declined"]
        if (outcomes["failed"], given_back) != (shard["failures"], shard["releases"]):
            yield f"shard {shard['id']} does not count its failures and releases: {outcomes}"


def lost_claims_stay_under(s: Snapshot, limit: int) -> Violations:
    """8. A shard that was lost as often as the limit allows is not claimed again.

    Of a training, losses before its newest checkpoint do not count. One that succeeded keeps no
    checkpoints: nothing can be said of it any more.
    """
    for shard in s.shards:
        if shard["status"] == "succeeded" and s.job[shard["job_id"]]["kind"] in TRAININGS:
            continue
        own = [row for row in s.checkpoints if row["shard_id"] == shard["id"]]
        since = max(own, key=lambda row: row["step"])["fence"] if own else 0
        excused = [
            row["fence"]
            for row in s.attempts_at[shard["id"]]
            if row["outcome"] == "lost" and row["fence"] < since
        ]
        lost = shard["claims"] - shard["failures"] - shard["releases"] - len(excused)
        if lost > limit:
            yield f"shard {shard['id']} was claimed beyond the limit: {shard['claims']} times"


def nobody_is_forgotten(s: Snapshot, grace: timedelta) -> Violations:
    """9. Every unfinished shard has a live lease, or has not waited longer than it should."""
    for shard in s.shards:
        if shard["status"] == "running":
            if shard["lease_until"] is None or shard["lease_until"] < s.now - grace:
                yield f"shard {shard['id']} runs without a lease since {shard['lease_until']}"
            if s.job[shard["job_id"]]["status"] != "running":
                yield f"shard {shard['id']} runs for a job that does not"
    waiting = [row for row in s.shards if _waits(s, row) and row["not_before"] < s.now - grace]
    signs = [row["dispatched_at"] or row["not_before"] for row in waiting]
    signs += [row["started_at"] for row in s.attempts]
    if waiting and max(signs) < s.now - grace:
        yield f"{len(waiting)} shards wait, and nobody has rung or worked since {max(signs)}"


def complete_jobs_are_finished(s: Snapshot, grace: timedelta) -> Violations:
    """9. A job whose shards have all succeeded moves on soon: a settle that was lost is made up."""
    for job in s.jobs:
        shards = s.shards_of[job["id"]]
        if job["status"] in FINAL or {shard["status"] for shard in shards} != {"succeeded"}:
            continue
        last = max(shard["ended_at"] for shard in shards)
        if last < s.now - grace:
            yield f"job {job['id']} is {job['status']}, but its last shard succeeded at {last}"


def chains_are_in_order(s: Snapshot, grace: timedelta) -> Violations:
    """A job waits until the one before it has ended, and begins only if that has succeeded."""
    for job in s.jobs:
        before = s.job.get(job["after_id"])
        if job["status"] == "waiting":
            yield from _waits_wrongly(s, job, before, grace)
        elif before and before["status"] != "succeeded" and s.shards_of[job["id"]]:
            yield f"job {job['id']} has begun, and job {before['id']} has not succeeded"


def _waits_wrongly(s: Snapshot, job: Row, before: Row | None, grace: timedelta) -> Violations:
    if before is None or s.shards_of[job["id"]]:
        yield f"job {job['id']} waits for {before}, with {len(s.shards_of[job['id']])} shards"
    elif before["status"] in FINAL and before["finished_at"] < s.now - grace:
        yield f"job {job['id']} still waits for job {before['id']}, which has ended"


def shards_know_their_jobs(s: Snapshot) -> Violations:
    """What shards are chosen by follows from their jobs, and only a queued one waits."""
    for shard in s.shards:
        job = s.job[shard["job_id"]]
        known = (shard["group_id"], shard["urgency"])
        if known != (job["batch_id"] or job["id"], -job["priority"]):
            yield f"shard {shard['id']} is chosen by {known}, which is not its job's"
        if shard["waiting"] and shard["status"] != "queued":
            yield f"shard {shard['id']} is {shard['status']} and waits to be due"


def times_are_the_databases(s: Snapshot, began: datetime, lease_s: float) -> Violations:
    """11. No time on record comes from a worker's clock; the workers' clocks are a day off here."""
    future = {
        "lease_until": s.now + timedelta(seconds=lease_s),
        "not_before": s.now + timedelta(seconds=MAX_BACKOFF_S),
    }
    for rows in (s.jobs, s.shards, s.attempts, s.artifacts, s.checkpoints, s.transitions):
        for row in rows:
            for name, at in row.items():
                if isinstance(at, datetime) and not began <= at <= future.get(name, s.now):
                    yield f"{name} {at} cannot be the database's: {dict(row)}"


def nothing_went_back(before: Snapshot, s: Snapshot) -> Violations:
    """4, 8. Since the last audit nothing left a final state, no fence shrank, no result changed."""
    for old in [*before.jobs, *before.shards]:
        new = s.job.get(old["id"]) or s.shard.get(old["id"])
        if new is None:
            yield f"{old['id']} has vanished"
        elif old["status"] in FINAL and new["status"] != old["status"]:
            yield f"{old['id']} was {old['status']} and is {new['status']}"
        elif new.get("fence", 0) < old.get("fence", 0):
            yield f"shard {old['id']} had fence {old['fence']} and has {new['fence']}"
    for shard in before.shards:
        kept = [row["id"] for row in before.artifacts_of[shard["id"]]]
        if shard["status"] in FINAL and kept != [r["id"] for r in s.artifacts_of[shard["id"]]]:
            yield f"shard {shard['id']} was {shard['status']}, and its artifacts have changed"


def doorbells_say_ids_only(s: Snapshot, url: str) -> Violations:
    """Every message is JSON with a shard's id and nothing else, and there are never many."""
    messages = list(read_doorbells(url))
    if len(messages) > MANY_DOORBELLS:
        yield f"Redis holds {len(messages)} messages"
    for content_type, body in messages:
        ours = isinstance(body, list) and any(word in s.shard for word in map(str, body[0]))
        if ours and (content_type != "application/json" or len(body[0]) != 1 or body[1]):
            yield f"a doorbell says more than an id: {body}"


def _differs(row: Row, data: bytes | None) -> Violations:
    if data is None:
        yield f"{row['key']} is on record but not in the store"
    elif (len(data), hashlib.sha256(data).hexdigest()) != (row["size"], row["sha256"]):
        yield f"{row['key']} differs from its digest on record"


def _manifest_differs(s: Snapshot, job: Row, objects: Objects) -> Violations:
    data = objects.read_manifest(job)
    if data is None or hashlib.sha256(data).hexdigest() != job["manifest_sha256"]:
        yield f"the manifest of job {job['id']} is missing or differs from its digest"
        return
    listed = [(row["shard"], row["name"], row["sha256"]) for row in json.loads(data)["artifacts"]]
    recorded = [
        (shard["idx"], row["name"], row["sha256"])
        for shard in s.shards_of[job["id"]]
        for row in s.artifacts_of[shard["id"]]
    ]
    if listed != recorded:
        yield f"the manifest of job {job['id']} does not list its artifacts"


def _wrong_moves(row: Row, state: str | None, moves: Iterator[Move]) -> Violations:
    """Moves of a job or shard, first from `state`, that do not lead to where it is now."""
    then = None
    for at, old, new in moves:
        if old != state or old in FINAL or (then and at < then):
            yield f"{row['id']} went {old} -> {new} at {at} from {state}, which it was at {then}"
        state, then = new, at
    if row["status"] != state:
        yield f"{row['id']} is {row['status']}; its last transition says {state}"


def _wrong_holder(shard: Row, last: Row | None) -> Violations:
    still_open = last is not None and last["ended_at"] is None
    if shard["status"] == "running":
        if not still_open or not shard["owner"] or not shard["started_at"]:
            yield f"shard {shard['id']} is held by {shard['owner']}, its last attempt is {last}"
    elif still_open or shard["lease_until"]:
        yield f"shard {shard['id']} is {shard['status']} and still held: {last}"
    held = bool(shard["owner"]), bool(shard["started_at"])
    if held != (shard["status"] in HELD,) * 2:
        yield f"shard {shard['id']} is {shard['status']}, with an attempt of {shard['owner']}"
    if bool(shard["ended_at"]) != (shard["status"] == "succeeded"):
        yield f"shard {shard['id']} is {shard['status']}; it succeeded at {shard['ended_at']}"


def _work_outside(s: Snapshot, shard: Row, attempts: list[Row]) -> Violations:
    times = [(row["started_at"], row["ended_at"] or s.now) for row in attempts]
    checkpoints = [row for row in s.checkpoints if row["shard_id"] == shard["id"]]
    for row in [*s.artifacts_of[shard["id"]], *checkpoints]:
        if not any(start <= row["created_at"] <= end for start, end in times):
            yield f"{row['key']} was recorded outside of any attempt at shard {shard['id']}"


def _waits(s: Snapshot, shard: Row) -> bool:
    return shard["status"] == "queued" and s.job[shard["job_id"]]["status"] not in FINAL


def _named(attempt: Row) -> str:
    return f"{attempt['fence']} at shard {attempt['shard_id']}"

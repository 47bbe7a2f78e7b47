"""The invariants of one shard; the numbers are those of the design's list."""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import pairwise

from scheduler.audit.history import HELD, Move, Row, moves_of
from scheduler.audit.objects import ENTRY
from scheduler.audit.record import FINAL, ShardView
from scheduler.audit.violations import Bounds, Violation, Violations

TRAININGS = {"train", "finetune"}


def check_shard(view: ShardView, now: datetime, bounds: Bounds, *, has_history: bool) -> Violations:
    """Every violation of a shard that it shows by itself."""
    checks: list[Callable[[], Violations]] = [
        lambda: succeeded_is_complete(view),
        lambda: nothing_after_the_end(view),
        lambda: lost_claims_stay_under(view, bounds.max_claims),
        lambda: knows_its_job(view),
        lambda: times_are_the_databases(view, now, bounds),
    ]
    if has_history:
        checks += [
            lambda: final_states_stay(view),
            lambda: only_the_holder_acts(view, now),
            lambda: claims_are_counted(view),
        ]
    if bounds.workers_live:
        checks.append(lambda: is_not_forgotten(view, now, bounds))
    for check in checks:
        yield from check()


def samples_in(view: ShardView) -> int:
    """How many samples the shard has committed, by its artifacts' indexes."""
    size = view.row["stop"] - view.row["start"]
    return sum(_entries(row, size) for row in view.artifacts)


def succeeded_is_complete(view: ShardView) -> Violations:
    """3. A shard has succeeded if and only if its artifacts are complete."""
    made, samples = view.artifacts, samples_in(view)
    kind = view.job["kind"]
    if kind == "generate":
        whole = samples == view.row["stop"] - view.row["start"]
        nothing = not samples and not made
    elif kind not in TRAININGS:
        whole, nothing = bool(made), True  # a refusal has its report too
    else:
        weights = [row for row in made if row["kind"] == "weights"]
        whole = any(row["name"].endswith(".safetensors") for row in weights)
        nothing = not weights
    if not (whole if view.row["status"] == "succeeded" else nothing):
        names = [row["name"] for row in made]
        yield _of(view, f"is {view.row['status']} with {samples} samples, {names}")


def final_states_stay(view: ShardView) -> Violations:
    """4. Changes of state follow one another without a gap, and none leaves a final state."""
    moves = moves_of(view.attempts, view.transitions)
    yield from wrong_moves("shard", view.row, "queued", moves)


def nothing_after_the_end(view: ShardView) -> Violations:
    """6. Nothing is committed after a job was cancelled or has failed."""
    at = view.job["finished_at"]
    if view.job["status"] not in FINAL or at is None:
        return
    for row in view.artifacts:
        if row["created_at"] > at:
            yield _of(view, f"committed {row['name']} after its job had ended")
    for attempt in view.attempts:
        if attempt["ended_at"] is None or attempt["ended_at"] > at:
            yield _of(view, f"has attempt {attempt['fence']} that goes beyond the end of its job")


def only_the_holder_acts(view: ShardView, now: datetime) -> Violations:
    """7. Only the current fence and owner change a running shard: attempts do not overlap.

    10. An attempt is recorded before its work: what a shard made falls within one of its attempts.
    """
    for earlier, later in pairwise(view.attempts):
        end, start = earlier["ended_at"], later["started_at"]
        if end is None or start is None or end > start:
            yield _of(view, f"began an attempt before attempt {earlier['fence']} had ended")
    yield from _wrong_holder(view)
    won = [row["fence"] for row in view.attempts if row["outcome"] == "succeeded"]
    if won != ([view.row["fence"]] if view.row["status"] == "succeeded" else []):
        yield _of(view, f"is {view.row['status']}, but attempts {won} succeeded")
    # one that began at no time is told of as such
    begun = [row for row in view.attempts if row["started_at"] is not None]
    times = [(row["started_at"], row["ended_at"] or now) for row in begun]
    for row in [*view.artifacts, *view.checkpoints]:
        if not any(start <= row["created_at"] <= end for start, end in times):
            what = row.get("name") or f"the checkpoint of step {row['step']}"
            yield _of(view, f"recorded {what} outside of any attempt")


def claims_are_counted(view: ShardView) -> Violations:
    """8. The fence counts the claims, and each claim has its attempt and outcome."""
    row = view.row
    outcomes = Counter(attempt["outcome"] for attempt in view.attempts)
    fences = [attempt["fence"] for attempt in view.attempts]
    if fences != list(range(1, row["fence"] + 1)) or row["claims"] != row["fence"]:
        yield _of(view, f"has fence {row['fence']}, {row['claims']} claims, attempts {fences}")
    # what a machine declined was given back, too
    given_back = outcomes["released"] + outcomes["declined"]
    if (outcomes["failed"], given_back) != (row["failures"], row["releases"]):
        yield _of(view, f"does not count its failures and releases: {dict(outcomes)}")


def lost_claims_stay_under(view: ShardView, limit: int) -> Violations:
    """8. A shard that was lost as often as the limit allows is not claimed again.

    Of a training, losses before its newest checkpoint do not count. One that succeeded keeps no
    checkpoints, and those of another are deleted with time: nothing can be said of it any more.
    """
    row = view.row
    ended = row["status"] in FINAL and (row["status"] == "succeeded" or not view.checkpoints)
    if ended and view.job["kind"] in TRAININGS:
        return
    newest = max(view.checkpoints, key=lambda each: each["step"], default={"fence": 0})
    excused = [
        each["fence"]
        for each in view.attempts
        if each["outcome"] == "lost" and each["fence"] < newest["fence"]
    ]
    if row["claims"] - row["failures"] - row["releases"] - len(excused) > limit:
        yield _of(view, f"was claimed beyond the limit: {row['claims']} times")


def knows_its_job(view: ShardView) -> Violations:
    """What a shard is chosen by follows from its job, and only a queued one waits."""
    row, job = view.row, view.job
    known = (row["group_id"], row["urgency"])
    if known != (job["batch_id"] or job["id"], -job["priority"]):
        yield _of(view, f"is chosen by {known}, which is not its job's")
    if row["waiting"] and row["status"] != "queued":
        yield _of(view, f"is {row['status']} and waits to be due")


def times_are_the_databases(view: ShardView, now: datetime, bounds: Bounds) -> Violations:
    """11. No time on record comes from a worker's clock."""
    rows: list[Row] = [view.row, *view.attempts, *view.artifacts, *view.checkpoints]
    for row in [*rows, *view.transitions]:
        yield from impossible_times(f"shard {view.id}", row, now, bounds)


def is_not_forgotten(view: ShardView, now: datetime, bounds: Bounds) -> Violations:
    """9. A running shard has a live lease, and its job runs."""
    row = view.row
    if row["status"] != "running":
        return
    if row["lease_until"] is None or row["lease_until"] < now - bounds.grace:
        yield _of(view, f"runs without a lease since {row['lease_until']}")
    if view.job["status"] != "running":
        yield _of(view, "runs for a job that does not")


def impossible_times(what: str, row: Row, now: datetime, bounds: Bounds) -> Violations:
    """A sentence for each time in a row that the database's clock cannot have told."""
    latest = {"lease_until": now + bounds.lease, "not_before": now + bounds.pause}
    for name, at in row.items():
        if not isinstance(at, datetime):
            continue
        if at > latest.get(name, now) or (bounds.began and at < bounds.began):
            yield Violation(f"{what}: {name} {at} cannot be the database's")


def wrong_moves(noun: str, row: Row, state: str | None, moves: Iterable[Move]) -> Violations:
    """Moves of a job or shard, first from `state`, that do not lead to where it is now."""
    then = None
    for at, old, new in moves:
        if old != state or old in FINAL or at is None or (then and at < then):
            yield Violation(
                f"{noun} {row['id']} went {old} -> {new} at {at} from {state}, "
                f"which it was at {then}"
            )
        state, then = new, at or then
    if row["status"] != state:
        yield Violation(f"{noun} {row['id']} is {row['status']}; its last transition says {state}")


def _wrong_holder(view: ShardView) -> Violations:
    row, last = view.row, view.attempts[-1] if view.attempts else None
    still_open = last is not None and last["ended_at"] is None
    if row["status"] == "running":
        if not still_open or not row["owner"] or not row["started_at"]:
            yield _of(view, f"is held by {row['owner']}, its last attempt is {last}")
    elif still_open or row["lease_until"]:
        yield _of(view, f"is {row['status']} and still held: {last}")
    held = bool(row["owner"]), bool(row["started_at"])
    if held != (row["status"] in HELD,) * 2:
        yield _of(view, f"is {row['status']}, with an attempt of {row['owner']}")
    if bool(row["ended_at"]) != (row["status"] == "succeeded"):
        yield _of(view, f"is {row['status']}; it succeeded at {row['ended_at']}")


def _entries(artifact: Row, size: int) -> int:
    if artifact["kind"] != "samples":
        return 0
    if artifact["index_sha256"] or artifact["removed_at"]:
        return size  # the index is in the store: `objects` counts its entries
    return len(artifact["index_data"] or b"") // ENTRY.size


def _of(view: ShardView, text: str) -> Violation:
    return Violation(f"shard {view.id} {text}")

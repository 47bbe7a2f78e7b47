"""The audit at the end of a simulation: the auditor of `make chaos`, on the simulated services."""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.chaos.snapshot import Objects, Snapshot, read_members, rows_of, with_key

from db.columns import hyphenated
from tests.attempts import put_together
from tests.chaos import auditor
from tests.history import check as told_wrongly

if TYPE_CHECKING:
    from tests.simulation.world import World

TABLES = [name for name in Snapshot.__annotations__ if name != "now"]
JOBS = """
SELECT lower(hex(id)), status, idempotency_key, after_id IS NOT NULL, coalesce(error, '') FROM jobs
ORDER BY id
"""
LONG = timedelta(days=1)  # that every job has ended is checked elsewhere


class SimulatedObjects(Objects):
    """Reads objects of a simulated store."""

    def __init__(self, world: "World") -> None:
        self._objects = world.store.objects

    def read(self, key: str) -> bytes | None:
        """An object's bytes; None where there is none."""
        found = self._objects.get(key)
        return found and found.data


def audit(world: "World") -> Iterator[str]:
    """Every violation found at the end."""
    snapshot, objects = read_snapshot(world), SimulatedObjects(world)
    members = read_members(snapshot, objects)
    for check in (
        auditor.final_states_stay,
        auditor.nothing_after_the_end,
        auditor.only_the_holder_acts,
        auditor.claims_are_counted,
        auditor.shards_know_their_jobs,
    ):
        yield from check(snapshot)
    yield from auditor.one_member_a_sample(snapshot, members)
    yield from auditor.succeeded_is_complete(snapshot, members)
    yield from auditor.bytes_match(snapshot, members, objects)
    yield from auditor.jobs_are_whole(snapshot, objects)
    yield from auditor.chains_are_in_order(snapshot, LONG)
    yield from auditor.lost_claims_stay_under(snapshot, world.services.settings.max_claims)


def contradictions(world: "World") -> Iterator[str]:
    """What users were told and is not so, and ends that nobody brought about."""
    rows = world.services.database.driver.execute(JOBS).fetchall()
    states = {hyphenated(row[0]): row[1] for row in rows}
    keys = {row[2]: hyphenated(row[0]) for row in rows if row[2]}
    yield from told_wrongly(world.history, states, keys)
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


def read_snapshot(world: "World") -> Snapshot:
    """The record as it is now."""
    database = world.services.database
    with database.engine.connect() as connection:
        rows = {name: rows_of(connection, name) for name in TABLES}
    rows["artifacts"] = [with_key(row) for row in rows["artifacts"]]
    rows["attempts"] = put_together(rows["attempts"], rows["shards"])
    rows["model_versions"] = [row for row in rows["model_versions"] if row["job_id"]]
    return Snapshot(now=database.now(), **rows)


def left_over(world: "World") -> Iterator[str]:
    """Objects of jobs that ended long ago and that the record does not name."""
    snapshot = read_snapshot(world)
    named = {row["key"] for row in snapshot.artifacts}
    named |= {job["manifest_key"] for job in snapshot.jobs}
    for key in sorted(world.store.objects.keys() - named):
        if key.startswith("jobs/"):
            yield f"{key} is garbage and was not collected"

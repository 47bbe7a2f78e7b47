"""The audit at the end of a simulation: the auditor of `make chaos`, on the simulated services."""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.attempts import put_together
from tests.chaos import auditor
from tests.chaos.snapshot import Objects, Snapshot, read_members, rows_of, with_key

if TYPE_CHECKING:
    from tests.simulation.world import World

TABLES = [name for name in Snapshot.__annotations__ if name != "now"]
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

"""The auditor of `genmill doctor --audit`, strict, and with a memory of what must not change."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from scheduler.audit.auditor import Auditor as Audit
from scheduler.audit.record import FINAL, ShardView, clock
from scheduler.audit.violations import Bounds
from worker.services import Services


@dataclass(frozen=True)
class Seen:
    """What an audit saw of a shard."""

    job: str
    job_status: str
    status: str
    fence: int
    artifacts: tuple[str, ...]


class Auditor(Audit):
    """Audits the whole system, repeatedly; remembers what must not change between two audits."""

    def __init__(self, services: Services, *, grace_s: float) -> None:
        super().__init__(services)
        settings = services.settings
        with services.database.snapshot() as connection:
            began = clock(connection)
        lease = timedelta(seconds=settings.lease_s)
        limit = settings.max_claims
        self.bounds = Bounds(timedelta(seconds=grace_s), lease, began=began, max_claims=limit)
        self.before: dict[str, Seen] = {}
        self.now: dict[str, Seen] = {}

    def audit(self) -> list[str]:
        """Every violation found now, each in a sentence."""
        self.now = {}
        found = [str(each) for each in self.violations()]
        found += nothing_went_back(self.before, self.now)
        self.before = self.now
        return found

    def see(self, view: ShardView) -> None:
        job, row = view.job, view.row
        made = tuple(artifact["id"] for artifact in view.artifacts)
        self.now[view.id] = Seen(job["id"], job["status"], row["status"], row["fence"], made)


def made_twice(found: Sequence[str]) -> int:
    """How many of the violations are samples that were committed more than once."""
    return sum("was committed" in line and "times" in line for line in found)


def nothing_went_back(before: dict[str, Seen], now: dict[str, Seen]) -> Iterator[str]:
    """4, 8. Since the last audit nothing left a final state, no fence shrank, no result changed."""
    for shard_id, old in before.items():
        new = now.get(shard_id)
        if new is None:
            yield f"shard {shard_id} has vanished"
            continue
        if old.job_status in FINAL and new.job_status != old.job_status:
            yield f"job {old.job} was {old.job_status} and is {new.job_status}"
        if old.status in FINAL and new.status != old.status:
            yield f"shard {shard_id} was {old.status} and is {new.status}"
        if new.fence < old.fence:
            yield f"shard {shard_id} had fence {old.fence} and has {new.fence}"
        if old.status in FINAL and new.artifacts != old.artifacts:
            yield f"shard {shard_id} was {old.status}, and its artifacts have changed"

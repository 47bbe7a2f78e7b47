"""A process of simulated workers, which only claim, renew and commit.

    python -m tests.bench.simulated URL WORKERS PROCESSES SHARD_S LEASE_S

WORKERS and PROCESSES are those of the whole fleet. Each worker is a boot of its own with its own
lease; threads take the next thing that any of them has to do. It prints its counts once a second
and runs until it is killed.
"""

import heapq
import itertools
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from db.claims import Claim
from db.columns import new_id
from db.session import Database
from db.workers import beat_pause_s
from tests.bench.protocol import FleetMember
from worker.process.child import MAX_BEAT_S as BEAT_S
from worker.shards.heartbeat import MAX_BEAT_S as RENEW_S

THREADS = 8  # and connections: a pooler in front of PostgreSQL shares them out in the same way
IDLE_S = 5.0  # real workers wait for a doorbell and do not ask
REPORT_S = 1.0


@dataclass
class Simulated:
    """A worker, the shard it holds, and the time at which that shard's work ends."""

    member: FleetMember
    claim: Claim | None = None
    ends_at: float = 0.0


@dataclass
class Fleet:
    """The workers of this process and what each has to do next, in the order of time."""

    shard_s: float
    lease_s: float
    size: int  # of the whole fleet
    counts: Counter[str] = field(default_factory=Counter)
    due: list[tuple[float, int, str, Simulated]] = field(default_factory=list)
    number: Iterator[int] = field(default_factory=itertools.count)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def later(self, at: float, step: str, worker: Simulated) -> None:
        """Have a thread run `step` of a worker at a time."""
        with self.changed:
            heapq.heappush(self.due, (at, next(self.number), step, worker))
            self.changed.notify()

    def run(self) -> None:
        """Run what is due, for ever."""
        steps = {"claim": self.claim, "commit": self.commit, "renew": self.renew, "beat": self.beat}
        while True:
            with self.changed:
                while not self.due or self.due[0][0] > time.monotonic():
                    wait_s = self.due[0][0] - time.monotonic() if self.due else None
                    self.changed.wait(wait_s)
                _, _, step, worker = heapq.heappop(self.due)
            try:
                steps[step](worker)
            except Exception as error:  # counted, and reported with the counts
                self.counts[f"{step}: {type(error).__name__}: {error}"[:200]] += 1
                self.later(time.monotonic() + IDLE_S, step, worker)

    def claim(self, worker: Simulated) -> None:
        """Claim a shard; its work ends a fixed time after that of the last one, if it can."""
        worker.claim = worker.member.claim()
        now = time.monotonic()
        if worker.claim is None:
            self.later(now + IDLE_S, "claim", worker)
            return
        self.counts["claims"] += 1
        worker.ends_at = max(worker.ends_at + self.shard_s, now)
        self.later(worker.ends_at, "commit", worker)

    def commit(self, worker: Simulated) -> None:
        """Commit the shard, and take the next one."""
        assert worker.claim
        self.counts["commits" if worker.member.commit(worker.claim) else "lost"] += 1
        worker.claim = None
        self.claim(worker)

    def pause_s(self, shortest_s: float) -> float:
        """How long a worker of this fleet waits between two heartbeats."""
        return beat_pause_s(shortest_s, live=self.size, lease_s=self.lease_s)

    def renew(self, worker: Simulated) -> None:
        """Renew the lease as often as a worker does."""
        self.later(time.monotonic() + self.pause_s(RENEW_S), "renew", worker)
        if claim := worker.claim:
            # not renewed: another thread is committing it just now, or it was lost
            self.counts["renewals" if worker.member.renew(claim) else "not renewed"] += 1

    def beat(self, worker: Simulated) -> None:
        """Write the worker's row."""
        self.later(time.monotonic() + self.pause_s(BEAT_S), "beat", worker)
        self.size = worker.member.beat()
        self.counts["beats"] += 1


def main() -> None:
    """Start the workers at random times within their first shard, and report."""
    url, (workers, processes) = sys.argv[1], map(int, sys.argv[2:4])
    shard_s, lease_s = map(float, sys.argv[4:6])
    database, fleet = Database(url), Fleet(shard_s, lease_s, size=workers)
    for _ in range(workers // processes):
        worker = Simulated(FleetMember(database, new_id(), lease_s))
        worker.member.start()
        began = time.monotonic()
        worker.ends_at = began
        fleet.later(began + random.random() * shard_s, "claim", worker)
        fleet.later(began + random.random() * fleet.pause_s(BEAT_S), "beat", worker)
        fleet.later(began + random.random() * fleet.pause_s(RENEW_S), "renew", worker)
    for _ in range(THREADS):
        threading.Thread(target=fleet.run, daemon=True).start()
    while True:
        print(json.dumps(fleet.counts), flush=True)
        time.sleep(REPORT_S)


if __name__ == "__main__":
    main()

"""A thousand simulated workers on one job: claims and commits a second, and every shard once."""

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import func, select

from db.session import Database
from db.tables import Artifact, Attempt, Shard
from tests.bench.bench import Bench
from tests.bench.fill import Shape, fill
from tests.bench.measure import Measure
from tests.bench.processors import busy_processors
from tests.bench.protocol import reap
from tests.bench.records import record, url_of

PROCESSES = 2
LOOP_S = 5.0  # between two rounds of the scheduler
SHARD_S, LEASE_S = 10.0, 60.0
KILLED_LEASE_S = 30.0  # of the fleet that is killed: its shards are back after half a minute
QUICK_S, QUICK_LEASE_S = 0.5, 4.0  # the same with small sizes
KILLED_PROCESSES = 4  # so that each kill takes a quarter of the workers
KILL_EVERY_S = (3.0, 8.0)
PATIENCE_S = 1200.0


@dataclass
class Running:
    """A process of simulated workers, and the latest counts it printed."""

    command: list[str]
    counts: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)  # counts of those that were killed

    def start(self) -> None:
        """Start the process and read what it prints."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()
        self.lost += self.counts
        self.counts = Counter()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            if process is self.process:
                self.counts = Counter(json.loads(line))


def paced(bench: Bench) -> Iterator[Measure]:
    """What a fleet with shards of ten seconds needs, alone and while an old snapshot is held."""
    workers = bench.size(1000, 100)
    calm_s, held_s = bench.size(60, 20), bench.size(300, 20)
    need = 2 * workers / SHARD_S
    name = f"{workers:,} simulated workers on one job of {{}} shards of 10 s, PostgreSQL"
    count = bench.size(100_000, 5_000)
    name = name.format(f"{count:,}")
    with record(bench, "postgresql") as database:
        fill(database, Shape(jobs=1, shards=count))
        with running(database, workers, SHARD_S, LEASE_S) as fleet:
            time.sleep(SHARD_S * 1.5)
            calm = rates(database, fleet, calm_s)
            with snapshot(database):
                time.sleep(1)
                held = rates(database, fleet, held_s)
    unit = "claims and commits/s"
    yield Measure(name, calm, need, unit, calm / need, at_least=0.98)
    title = f"{name}, xmin held for {held_s} s"
    yield Measure(title, held, need, unit, held / need, at_least=0.8)


def capacity(bench: Bench) -> Iterator[Measure]:
    """As fast as the record goes: 16 connections whose shards take no time, against a fleet's need.

    A hundred workers with shards of ten seconds on SQLite, a thousand on PostgreSQL.
    """
    for kind, workers in (("sqlite", 100), ("postgresql", 1000)):
        need = 2 * workers / SHARD_S
        with record(bench, kind) as database:
            fill(database, Shape(jobs=1, shards=bench.size(100_000, 20_000)))
            with running(database, 16, 0, LEASE_S) as fleet:
                time.sleep(2)
                found = rates(database, fleet, bench.size(30, 8))
        name = f"the most that {kind} does on one job, against {workers:,} workers' need"
        yield Measure(name, found, need, "claims and commits/s", found / need, at_least=1)


def killed(bench: Bench) -> Measure:
    """Processes of the fleet killed and started again at random, until every shard has ended."""
    count, workers = bench.size(5_000, 1_000), bench.size(1000, 100)
    times = (QUICK_S, QUICK_LEASE_S) if bench.quick else (SHARD_S, KILLED_LEASE_S)
    kills = 0
    with record(bench, "postgresql") as database:
        fill(database, Shape(jobs=1, shards=count))
        deadline = time.monotonic() + PATIENCE_S
        with running(database, workers, *times, loop_s=1, processes=KILLED_PROCESSES) as fleet:
            while unfinished(database) and time.monotonic() < deadline:
                time.sleep(random.uniform(*KILL_EVERY_S))
                victim = random.choice(fleet)
                victim.kill()
                victim.start()
                kills += 1
        once = ended_once(database)
    name = (
        f"{count:,} shards that ended exactly once, {workers:,} workers, "
        f"one of {KILLED_PROCESSES} processes killed and restarted {kills} times"
    )
    return Measure(name, once, count, "shards", once / count, at_least=1)


@contextmanager
def running(
    database: Database,
    workers: int,
    shard_s: float,
    lease_s: float,
    *,
    loop_s: float = LOOP_S,
    processes: int = PROCESSES,
) -> Iterator[list[Running]]:
    """A fleet at work, and a thread that takes back expired leases as a scheduler does."""
    words = [url_of(database), str(workers), str(processes), str(shard_s), str(lease_s)]
    command = [sys.executable, "-m", "tests.bench.simulated", *words]
    fleet = [Running(command) for _ in range(processes)]
    ended = threading.Event()

    def schedule() -> None:
        while not ended.wait(loop_s):
            reap(database)

    scheduler = threading.Thread(target=schedule, daemon=True)
    for process in fleet:
        process.start()
    scheduler.start()
    try:
        wait_for_claims(fleet)
        yield fleet
    finally:
        ended.set()
        scheduler.join()
        for process in fleet:
            process.kill()
        report(fleet)


def wait_for_claims(fleet: list[Running]) -> None:
    """Return once each process works."""
    deadline = time.monotonic() + 120
    while not all(process.counts["claims"] for process in fleet):
        if time.monotonic() > deadline:
            raise TimeoutError("the simulated workers did not start")
        time.sleep(0.2)


def rates(database: Database, fleet: list[Running], window_s: float) -> float:
    """Claims and commits a second over a time; how many processors were busy goes to stderr."""
    with busy_processors(database, [each.process.pid for each in fleet]):
        before, began = _done(fleet), time.monotonic()
        time.sleep(window_s)
        return (_done(fleet) - before) / (time.monotonic() - began)


def _done(fleet: list[Running]) -> int:
    return sum(process.counts["claims"] + process.counts["commits"] for process in fleet)


def report(fleet: list[Running]) -> None:
    """What the fleet did, on stderr: errors too."""
    total = sum((process.lost for process in fleet), Counter())
    print("fleet:", dict(total.most_common()), file=sys.stderr)


@contextmanager
def snapshot(database: Database) -> Iterator[None]:
    """A transaction that holds back what VACUUM may remove, as a long report or backup does."""
    with database.read() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        session.scalar(select(func.count()).select_from(Attempt).limit(1))
        yield


def unfinished(database: Database) -> bool:
    """Whether a shard has not succeeded yet."""
    with database.read() as session:
        return (
            session.scalar(select(Shard.id).where(Shard.status != "succeeded").limit(1)) is not None
        )


def ended_once(database: Database) -> int:
    """How many shards have succeeded, each other attempt ended otherwise, with one artifact."""
    others = select(func.count()).where(Attempt.shard_id == Shard.id).scalar_subquery()
    objects = select(Artifact.shard_id).group_by(Artifact.shard_id).having(func.count() == 1)
    statement = select(func.count()).where(
        Shard.status == "succeeded", Shard.fence == others + 1, Shard.id.in_(objects)
    )
    with database.read() as session:
        return session.scalar(statement) or 0

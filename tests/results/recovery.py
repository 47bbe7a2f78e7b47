"""How long work stands still after a fault, with the settings as they are by default."""

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import redis

from db import jobs
from tests.attempts import attempts_at
from tests.chaos.test_object_faults import filled, small_disk
from tests.integration.test_faults import children
from tests.results.machine import DATA, Machine, Result
from worker.failpoints import HOLD
from worker.services import Services, open_services
from worker.settings import Settings

LEASE_S, DEADLINE_S, PAUSE_S = 60, 120, 60  # the defaults; the longest pause
ROUND_S = 5 + 2  # until the scheduler's next round, and for it and the worker's answer
START_S = 15  # for a process to import torch and the family
CANCEL_S = 2
SAMPLED_S, BUSY = 0.2, 0.3  # of a core
PATIENCE_S = 300.0
DISK = 64 << 20
FILLING = 500  # samples that take more room than a full disk has
LEAST_RELEASES = 3

Worker = subprocess.Popen[bytes]


class Site:
    """A scheduler, a broker and a record; workers as if on other machines, each with its home."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.home = machine.folder / "home"
        self.services: Services = open_services(Settings(_env_file=None, home=self.home))
        self.workers: list[Worker] = []

    def worker(self, home: Path) -> Worker:
        """Start a worker that stands still at its first sample while its home has a file `hold`."""
        home.mkdir(exist_ok=True)
        settings = self.services.settings
        process = self.machine.start(
            "worker",
            GENMILL_HOME=str(home),
            GENMILL_DATABASE_URL=settings.database,
            GENMILL_REDIS_URL=settings.broker_client,
            GENMILL_STORE_URL=settings.store,
            GENMILL_FAILPOINT=HOLD,
        )
        self.workers.append(process)
        return process

    def enqueue(self, count: int = 2) -> str:
        """The id of a new job."""
        return self.machine.run("enqueue", "generate", "quick", "--count", str(count))

    def claims(self, job: str) -> int:
        """How often the job's shard was claimed."""
        with self.services.database.read() as session:
            return jobs.shards_of(session, job)[0].fence

    def outcomes(self, job: str) -> list[str | None]:
        """Those of the attempts at the job's shards, oldest first; None while one goes on."""
        with self.services.database.read() as session:
            return [
                row["outcome"]
                for shard in jobs.shards_of(session, job)
                for row in attempts_at(session, shard.id)
            ]

    def status(self, job: str) -> str:
        with self.services.database.read() as session:
            return str(jobs.get(session, job).status)

    def close(self) -> None:
        """End the workers."""
        for process in self.workers:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.services.close()


def recovery_by_default(machine: Machine) -> list[Result]:
    """Inject each fault once; the time until a worker has claimed the shard again."""
    machine.run("dataset", "add", "digits", DATA / "mnist")
    words = ["--dataset", "digits", "--name", "quick", "--max-steps", "20", "--seed", "1"]
    machine.run("enqueue", "train", "vae", *words, "--wait")
    machine.run("down")
    machine.run("up", "--detach", "--workers", "0")
    return [result for case in CASES for result in case(machine)]


@contextmanager
def _site(machine: Machine) -> Iterator[Site]:
    site = Site(machine)
    try:
        yield site
    finally:
        site.close()


def _struck(
    machine: Machine,
    fault: str,
    bound_s: float,
    strike: Callable[[Worker], object],
    *,
    others: bool,
) -> Iterator[Result]:
    """A worker is struck in its work; it, or another that is there, claims the shard again."""
    with _site(machine) as site:
        home = machine.folder / fault.replace(" ", "-")
        home.mkdir()
        (home / HOLD).touch()
        process, job = site.worker(home), site.enqueue()
        _until(lambda: site.claims(job) == 1)
        if others:
            site.worker(machine.folder / f"{home.name}-other")
            time.sleep(2 * START_S)
        strike(process)
        took_s = _until(lambda: site.claims(job) > 1)
        (home / HOLD).unlink()
        _until(lambda: site.status(job) == "succeeded")
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
        time.sleep(START_S)  # for what a frozen worker does once it goes on
        outcomes = site.outcomes(job)
    yield _result(f"{fault}: its shard is claimed again", took_s, bound_s)
    yield Result(
        f"{fault}: attempts",
        ", ".join(map(str, outcomes)),
        "lost, succeeded",
        outcomes == ["lost", "succeeded"],
    )


def _child_killed(machine: Machine) -> Iterator[Result]:
    def strike(process: Worker) -> None:
        os.kill(_child(process), signal.SIGKILL)

    yield from _struck(machine, "a worker's child killed", ROUND_S + START_S, strike, others=False)


def _machine_lost(machine: Machine) -> Iterator[Result]:
    def strike(process: Worker) -> None:
        os.killpg(process.pid, signal.SIGKILL)

    yield from _struck(machine, "a whole machine lost", LEASE_S + ROUND_S, strike, others=True)


def _machine_frozen(machine: Machine) -> Iterator[Result]:
    def strike(process: Worker) -> None:
        _freeze(machine, partial(os.killpg, process.pid))

    yield from _struck(machine, "a frozen machine", LEASE_S + ROUND_S, strike, others=True)


def _child_frozen(machine: Machine) -> Iterator[Result]:
    def strike(process: Worker) -> None:
        _freeze(machine, partial(os.kill, _child(process)))

    yield from _struck(machine, "a worker's child frozen", LEASE_S + ROUND_S, strike, others=True)


def _freeze(machine: Machine, send: Callable[[signal.Signals], None]) -> None:
    """Stop processes, but not within a write to SQLite, while which nobody else can write."""
    send(signal.SIGSTOP)
    while _is_locked(machine.folder / "home" / "genmill.db"):
        send(signal.SIGCONT)
        time.sleep(0.1)
        send(signal.SIGSTOP)


def _is_locked(database: Path) -> bool:
    try:
        with closing(sqlite3.connect(database, timeout=0.5)) as probe:
            probe.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return True
    return False


def _doorbell_lost(machine: Machine) -> Iterator[Result]:
    with _site(machine) as site:
        job = site.enqueue()
        time.sleep(1)
        with redis.Redis.from_url(site.services.settings.broker_client) as client:
            client.flushall()
        site.worker(machine.folder / "late")
        took_s = _until(lambda: site.claims(job) == 1)
    yield _result("a doorbell lost: its shard is claimed", took_s, DEADLINE_S + ROUND_S)


def _disk_full(machine: Machine) -> Iterator[Result]:
    with _site(machine) as site, small_disk(machine.folder / "disk", DISK) as disk:
        site.worker(disk / "home")
        first = site.enqueue()
        _until(lambda: site.status(first) == "succeeded")
        with filled(disk):
            job = site.enqueue(count=FILLING)
            _until(lambda: site.outcomes(job).count("released") >= LEAST_RELEASES)
        took_s = _until(lambda: site.status(job) == "succeeded")
        outcomes = set(site.outcomes(job)[:-1])
        site.close()
    yield _result("a worker's full disk, freed: the job succeeds", took_s, PAUSE_S + ROUND_S)
    yield Result(
        "a worker's full disk: attempts before",
        ", ".join(map(str, outcomes)),
        "released",
        outcomes == {"released"},
    )


def _cancelled(machine: Machine) -> Iterator[Result]:
    with _site(machine) as site:
        home = machine.folder / "cancelled"
        process = site.worker(home)
        words = ["--count", "200000", "--set", "micro_batch=1"]
        job = machine.run("enqueue", "generate", "quick", *words)
        _until(lambda: site.claims(job) > 0)
        child = _child(process)
        _until(lambda: _load(child) > BUSY)
        machine.run("job", "cancel", job)
        took_s = _until(lambda: _load(child) < BUSY)
    yield _result("a running job cancelled: its work ends", took_s, CANCEL_S)


def _load(pid: int) -> float:
    """How much of a core a process uses; 0 once it has ended."""
    try:
        before = _processor_s(pid)
        time.sleep(SAMPLED_S)
        return (_processor_s(pid) - before) / SAMPLED_S
    except FileNotFoundError:
        return 0.0


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _child(process: Worker) -> int:
    """The process that works, of a worker's."""
    (child,) = children(process.pid)
    return child


def _until(happens: Callable[[], bool]) -> float:
    """How many seconds it takes until this happens."""
    began = time.monotonic()
    while not happens():
        if time.monotonic() - began > PATIENCE_S:
            raise TimeoutError(f"not in {PATIENCE_S:g} s")
        time.sleep(0.05)
    return time.monotonic() - began


def _result(case: str, took_s: float, bound_s: float) -> Result:
    return Result(case, f"{took_s:.1f} s", f"<= {bound_s:g} s", took_s <= bound_s)


CASES = (
    _child_killed,
    _child_frozen,
    _machine_lost,
    _machine_frozen,
    _doorbell_lost,
    _disk_full,
    _cancelled,
)

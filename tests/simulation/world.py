"""One simulated world: its services, processes and faults, all of which follow from its seed."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from db import columns
from db.claims import Claim
from db.errors import BadInput
from scheduler.dispatch import rounds
from tests.history import FINAL, History
from tests.simulation import stand_ins
from tests.simulation.audit import audit, contradictions, left_over
from tests.simulation.broker import SimulatedApp, SimulatedBroker
from tests.simulation.database import SimulatedDatabase
from tests.simulation.faults import Faults, choose_rates
from tests.simulation.invariants import Invariants
from tests.simulation.processes import Client, Worker, run_schedule, run_scheduler
from tests.simulation.requests import ask
from tests.simulation.rounds import run_if_needed
from tests.simulation.settings import settings
from tests.simulation.store import SimulatedStore
from tests.simulation.threads import Killed, Machine, Process
from tests.simulation.training import SimulatedTraining
from tests.simulation.work import SimulatedWork
from worker.broker import doorbell
from worker.services import dead_workers, ledger
from worker.shards import attempt
from worker.store.packs import PackReader

CALM_AT_S = 200.0  # the latest time at which faults cease
BOUND_S = 900.0  # within which every job ends from then on, besides the work itself
WATCH_S = 5.0
COLLECTED_AFTER_S = 3700.0  # garbage is, in some worlds
COLLECTED = 0.1
NOWHERE = Path("nowhere")
PROMPT = 0.4  # of the answers
SCHEDULED = 0.05  # a schedule fires, in some worlds
DOOMS = [*[None] * 40, "process_panics", "work_fails"]
ACCEPTED = [0.2, 0.6, 0.95]  # of the samples of an order


class Violation(AssertionError):
    """What must not happen has happened."""


class World:
    """The world of one seed. `run` lives through it; `trace` is told what happens."""

    def __init__(
        self, seed: int, database: SimulatedDatabase, trace: Callable[[str], None] | None = None
    ) -> None:
        self.seed = seed
        self.machine = Machine(seed)
        self.trace = trace
        self.violations: list[str] = []
        self.blamed: set[str] = set()  # jobs whose own work has failed
        random = self.machine.random
        self.calm_at = random.uniform(0.2, 1) * CALM_AT_S
        self.rates = choose_rates(random)
        self.step_s = random.choice([1.0, 5.0, 30.0])  # that a step of work takes
        self.latency_s = random.choice([0.01, 0.1, 1.0])
        self.doom = random.choice(DOOMS)  # of every attempt, even in calm
        self.stores_manifests = random.random() < 0.7
        self.database_is_away = self.store_is_away = self.broker_is_away = False
        self.database_is_read_only = False
        self.clock_ahead_s = 0.0  # the database's
        self.accepted = random.choice(ACCEPTED)
        # seconds of work in calm, by shard and fence
        self.worked_s: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        self.spoiled: set[str] = set()  # keys of objects that somebody has deleted or changed
        self.history = History(self.machine.tick)
        self.store, self.broker = SimulatedStore(self), SimulatedBroker(self)
        self.services: Any = SimpleNamespace(
            settings=settings(3 if self.doom else random.choice([3, 8])),
            database=database,
            store=self.store,
            packs=PackReader(self.store),
        )
        self.invariants = Invariants(self)
        self.faults = Faults(self)
        self.kept: list[Process] = []
        self.dead_workers: dict[str, None] = {}  # boots that were killed, until they are reaped
        self.killed: set[str] = set()  # every boot that was, as the database writes ids
        self.collects = False
        self._busy = 0  # clients that have not finished
        database.world = self
        database.reset()

    def run(self) -> None:
        """Live through it. Raises `Violation`."""
        latest, columns._last = columns._last, 0
        try:
            with stand_ins.running_on(self.machine), self._replaced():
                self._begin()
                self.machine.run()
        finally:
            columns._last = latest
        if not self.violations and not self._over:
            self.violations.append(f"not at rest after {self.machine.step} steps")
        if self.violations:
            raise Violation("\n".join(self.violations))

    # --- what may happen ---

    @property
    def calm(self) -> bool:
        """Whether the faults have ceased."""
        return self.machine.now >= self.calm_at

    def happens(self, fault: str) -> bool:
        """Whether a fault happens now."""
        return self.one_of(fault) is not None

    def one_of(self, *faults: str) -> str | None:
        """Which of these faults happens now, if any."""
        drawn = self.machine.random.random()
        if self.doom in faults:
            return self.doom
        if self.calm:
            return None
        for fault in faults:
            drawn -= self.rates.get(fault, 0.0)
            if drawn < 0:
                self.say(f"fault: {fault}")
                return fault
        return None

    def accepts(self, sample: int) -> bool:
        """Whether an order accepts the sample of this number."""
        return (sample * 7919 + self.seed * 104729) % 1000 < self.accepted * 1000

    def latency(self) -> None:
        """Let the current thread wait for an answer, which often comes before anything else."""
        if self.machine.random.random() < PROMPT:
            self.machine.require_alive()
            return
        self.machine.sleep(self.machine.random.random() * self.latency_s)

    def work(self, claim: Claim) -> None:
        """A step of a claim's work, which takes time, and fails if the world says so."""
        took_s = self.machine.random.expovariate(1 / self.step_s)
        if self.calm:
            self.worked_s[claim.shard_id][claim.fence] += took_s
        self.machine.sleep(took_s)
        fate = self.one_of("work_fails", "work_is_refused", "process_panics")
        if fate is None:
            return
        if fate == "process_panics":
            self.die()
        self.blamed.add(claim.job_id)
        raise RuntimeError("it broke") if fate == "work_fails" else BadInput("it is no picture")

    def die(self) -> None:
        """End the current process, unless it is a client, who is not simulated to die."""
        if self.machine.process in self.kept:
            self.machine.kill(self.machine.process)

    def say(self, line: str) -> None:
        """Tell the trace."""
        if self.trace is not None:
            current = self.machine._current
            who = current.process.name if current else "-"
            self.trace(f"{self.machine.now:11.6f} {who:12} {line}")

    # --- what is checked ---

    def committed(self) -> None:
        """Check the record after a transaction."""
        worker = getattr(self.machine.process, "worker", None)
        actor = in_hex(worker.boot_id) if worker else ""
        now = self.database_time()
        before = (self.invariants.jobs, self.invariants.shards)
        self.violate(self.invariants.check(actor, now))
        if self.trace is not None:
            self._tell_changes(*before)

    def database_time(self) -> str:
        """The database's time as it stores times."""
        return str(self.services.database.now().isoformat(" ", "microseconds")[:26])

    def violate(self, found: Iterator[str]) -> None:
        """End the simulation if anything was found."""
        lines = list(found)
        if lines:
            for line in lines:
                self.say(f"VIOLATION {line}")
            self.violations += lines
            self.machine.stop()
            raise Killed

    def _tell_changes(self, jobs: Any, shards: Any) -> None:
        for old, new in ((jobs, self.invariants.jobs), (shards, self.invariants.shards)):
            for key, row in new.items():
                before = old[key]._asdict() if key in old else {}
                changed = {k: v for k, v in row._asdict().items() if v != before.get(k)}
                if changed:
                    self.say(f"{type(row).__name__.lower()} {key[-6:]}: {changed}")

    # --- how it runs ---

    def _begin(self) -> None:
        random = self.machine.random
        for n in range(random.choice([1, 2, 2, 2, 3])):
            self._keep(f"worker-{n}", lambda process: Worker(self, process).run())
        for n in range(random.choice([1, 1, 2])):
            self._keep(f"scheduler-{n}", lambda process: run_scheduler(self, process))
        for n in range(random.choice([1, 1, 2, 3])):
            self._busy += 1
            self.machine.start(Process(f"client-{n}"), self._live, f"client-{n}")
        if random.random() < SCHEDULED:
            self._busy += 1
            self.machine.start(Process("planner"), self._plan)
        self.faults.begin()
        self._watch()

    def _keep(self, name: str, main: Callable[[Process], None]) -> None:
        """Start a process, and again whenever it has ended."""
        process = Process(name)
        self.kept.append(process)
        thread = self.machine.start(process, main, process)
        thread.on_end = lambda: self._restart(process, main)

    def _restart(self, process: Process, main: Callable[[Process], None]) -> None:
        self.say(f"{process.name} has ended")
        if process.dead and getattr(process, "worker", None):
            self.dead_workers[process.worker.boot_id] = None
            self.killed.add(in_hex(process.worker.boot_id))
        self.machine.bury(process)
        self.kept.remove(process)
        pause_s = self.machine.random.uniform(0.5, 10)
        self.machine.later(pause_s, lambda: self._keep(process.name, main))

    def _live(self, name: str) -> None:
        ask(Client(self, name), self.machine.random)
        self._busy -= 1

    def _plan(self) -> None:
        run_schedule(self)
        self._busy -= 1

    def _watch(self) -> None:
        """Look whether all is done; what is not done in time never will be."""
        bound_s = BOUND_S + self._needed_s
        if not self._over and self.machine.now < self.calm_at + bound_s:
            self.machine.later(WATCH_S, self._watch)
            return
        if not self._over:
            rows = [*self.invariants.jobs.values(), *self.invariants.shards.values()]
            waiting = [str(row) for row in rows if row.status not in FINAL]
            self.violate(iter([f"not ended in {bound_s:.0f} s of calm: {waiting}, {self._busy}"]))
        self.violate(contradictions(self))
        self.violate(audit(self))
        if self.machine.random.random() >= COLLECTED:
            self.machine.stop()
            return
        self.collects = True
        self.machine.now += COLLECTED_AFTER_S
        self.machine.later(1.5 * self.services.settings.loop_s, self._look_for_garbage)

    def _look_for_garbage(self) -> None:
        self.violate(left_over(self))
        self.violate(audit(self))
        self.machine.stop()

    def is_at_work(self, process: Process) -> bool:
        """Whether a process is a worker that answers a doorbell just now."""
        worker = getattr(process, "worker", None)
        return worker is not None and bool(worker.works)

    @property
    def _needed_s(self) -> float:
        """What the work itself takes one worker: of each shard, as often as it may be claimed."""
        most = self.services.settings.max_claims
        attempts = (sorted(each.values())[-most:] for each in self.worked_s.values())
        return sum(map(sum, attempts))

    @property
    def _over(self) -> bool:
        at_work = any(map(self.is_at_work, self.kept))
        jobs = self.invariants.jobs.values()
        return not self._busy and not at_work and all(job.status in FINAL for job in jobs)

    def _reap_dead_workers(self, services: Any) -> int:
        """In place of the one that looks at locked files: they tell who has died."""
        count = 0
        for boot_id in [*self.dead_workers]:
            dead_workers._reap(services, boot_id, NOWHERE)
            self.dead_workers.pop(boot_id, None)
            count += 1
        return count

    @contextmanager
    def _replaced(self) -> Iterator[None]:
        app = SimulatedApp(self)
        with ExitStack() as stack:
            for place, name, value in (
                (attempt, "generate_shards", SimulatedWork(self)),
                (attempt, "scratch", lambda _: nullcontext(Path("scratch"))),
                (rounds.Steps, "run", run_if_needed(self, rounds.Steps.run)),
                (rounds, "reap_dead_workers", self._reap_dead_workers),
                (doorbell, "celery_app", lambda _: app),
                (ledger, "sign_head", lambda _: None),  # there is no disk with keys
                *SimulatedTraining(self).stand_ins(),
            ):
                stack.enter_context(patch.object(place, name, value))
            yield


def in_hex(boot_id: str) -> str:
    """An id as SQLite's `hex` writes it."""
    return boot_id.replace("-", "").upper()

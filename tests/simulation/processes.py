"""The simulated processes: what each runs, over and over, until its simulation ends."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from db import datasets, jobs, schedules
from db.columns import id_bytes, new_id
from db.errors import Draining, GenmillError, Refused, Unreachable
from db.interventions import end_early
from db.states import FINAL
from db.tables import DatasetVersion
from scheduler.dispatch.rounds import run_round
from scheduler.submission.batches import enqueue_batch
from scheduler.submission.enqueue import enqueue, retry
from tests.simulation.stand_ins import Time
from tests.simulation.threads import Process
from worker.services import Services
from worker.shards.attempt import work
from worker.shards.context import WorkerContext
from worker.shared_memory import SharedState
from worker.specs import Spec

if TYPE_CHECKING:
    from tests.simulation.world import World

time = Time()
PRESENCE_S = 55.0
BOOT = """
INSERT INTO workers (boot_id, host, pid, device, started_at, heartbeat_at)
VALUES (?, 'here', 1, 'none', ?, ?)
"""
BEAT = "UPDATE workers SET heartbeat_at = ? WHERE boot_id = ?"


class SimulatedContext(WorkerContext):
    """A worker's context without a device, whose heartbeats are as far apart as is allowed."""

    def __init__(self, services: Services) -> None:
        super().__init__(services, device=None)  # type: ignore[arg-type] # nothing is computed

    networks: Any = SimpleNamespace(make_room=lambda work: work())  # there is no memory to free

    def beat_pause_s(self, shortest_s: float) -> float:
        return self.services.settings.lease_s / 4

    def keys_in_memory(self) -> list[int]:
        return [*self._pinned]

    def dataset(self, reference: str) -> tuple[DatasetVersion, Any]:
        with self.services.database.read() as session:
            return datasets.resolve(session, reference)[1], None


class Worker:
    """A worker: it takes doorbells and answers each, as `worker.process` does."""

    def __init__(self, world: "World", process: Process) -> None:
        self._world, self._process = world, process
        self.shared = SharedState()
        self.boot_id = new_id()
        self.works = False
        self._context = SimulatedContext(world.services)

    def run(self) -> None:
        """Work until told to stop."""
        self._process.worker = self  # type: ignore[attr-defined] # for whoever drains it
        self._begin()
        while not self.shared.draining:
            shard_id = self._world.broker.take(PRESENCE_S)
            if shard_id is not None:
                self._answer(shard_id)

    def _answer(self, shard_id: str) -> None:
        self.works = True
        try:
            work(self._context, shard_id, owner=self.boot_id, shared=self.shared)
        except Draining:
            self._world.broker.send(shard_id)
        self.works = False

    def _begin(self) -> None:
        """Put this boot among the live workers, straight into the table: nothing hangs on it."""
        now = self._world.database_time()
        row = (id_bytes(self.boot_id), now, now)
        self._world.services.database.driver.execute(BOOT, row)
        self._world.machine.later(PRESENCE_S, self._beat)

    def _beat(self) -> None:
        if not self._process.dead:
            row = (self._world.database_time(), id_bytes(self.boot_id))
            self._world.services.database.driver.execute(BEAT, row)
            self._world.machine.later(PRESENCE_S, self._beat)


def run_scheduler(world: "World", _process: Process) -> None:
    """Run rounds, as `scheduler.dispatch.loop` does."""
    while True:
        run_round(world.services)
        time.sleep(world.services.settings.loop_s)


def run_schedule(world: "World") -> None:
    """A user who adds a schedule, due every minute, and pauses it when the faults cease."""
    due = world.services.database.now() + timedelta(seconds=world.machine.random.uniform(0, 60))
    rules = {"missed": world.machine.random.choice(["skip", "once"]), "overlap": "queue"}
    add = partial(schedules.add, name="plan", cron="* * * * *", timezone="UTC", **rules)
    _insist(
        world, partial(add, command=["enqueue", "generate", "tiny", "--count", "2"], next_due=due)
    )
    time.sleep(max(0.0, world.calm_at - world.machine.now))
    _insist(world, partial(schedules.pause, name="plan"))


def _insist(world: "World", step: Callable[[Session], object]) -> None:
    """Take a step until it is known to have been taken."""
    while True:
        try:
            world.services.database.transact(step)
        except Unreachable:
            time.sleep(5)
        except Refused:  # an earlier try, whose answer was lost
            return
        else:
            return


class Client:
    """A user: submits a job, perhaps cancels or retries it, and looks at it until it has ended.

    What it was told is in the world's history.
    """

    refuses_unknown = False  # by mistake: it takes a lost answer for a refusal

    def __init__(self, world: "World", name: str) -> None:
        self._world, self._name = world, name

    def run(self, spec: Spec, then: list[Spec], ranges: list[tuple[int, int]]) -> None:
        """Submit the job and follow it."""
        time.sleep(self._world.machine.random.uniform(0, 20))
        job_id = self._submit(spec, then, ranges)
        if job_id is None:
            return
        if self._world.happens("cancel"):
            time.sleep(self._world.machine.random.expovariate(1 / 30))
            self._cancel(job_id)
        elif spec.kind == "train" and self._world.happens("keep"):
            time.sleep(self._world.machine.random.expovariate(1 / 30))
            self._keep(job_id)
        status = self._follow(job_id)
        if status in {"failed", "cancelled"} and self._world.happens("retry"):
            self._retry(job_id)

    def _submit(self, spec: Spec, then: list[Spec], ranges: list[tuple[int, int]]) -> str | None:
        key, services = f"key-{self._name}", self._world.services
        send = partial(enqueue, services, spec, then=then, ranges=ranges, idempotency_key=key)
        for _ in range(self._world.machine.random.choice([1, 30])):
            with self._world.history.call(self._name, "enqueue", key=key) as call:
                try:
                    call.reply = send().id
                except Refused:
                    call.refuse()
                    return None
                except Unreachable:  # stored or not; the key makes it safe to ask again
                    call.refused = self.refuses_unknown
            if call.reply is not None or call.refused:
                return call.reply
            time.sleep(self._world.machine.random.expovariate(1 / 5))
        return None

    def run_batch(self, lines: list[str]) -> None:
        """Submit a batch and follow each of its jobs."""
        time.sleep(self._world.machine.random.uniform(0, 20))
        for job_id in self._submit_batch(lines):
            self._follow(job_id)

    def _submit_batch(self, lines: list[str]) -> list[str]:
        key, services = f"key-{self._name}", self._world.services
        for _ in range(self._world.machine.random.choice([1, 30])):
            with self._world.history.call(self._name, "enqueue", key=key) as call:
                try:
                    batch_id = enqueue_batch(services, lines, idempotency_key=key).id
                except Refused:
                    call.refuse()
                    return []
                except Unreachable:  # stored or not; what is incomplete is deleted later
                    call.refused = self.refuses_unknown
                else:
                    ids = services.database.jobs_of(batch_id)
                    call.reply = ids[0]
            if call.reply is not None:
                self._note(ids[1:])
                return ids
            if call.refused:
                return []
            time.sleep(self._world.machine.random.expovariate(1 / 5))
        return []

    def _note(self, job_ids: list[str]) -> None:
        """The other jobs of a batch were told of, too."""
        for job_id in job_ids:
            with self._world.history.call(self._name, "enqueue") as call:
                call.reply = job_id

    def _cancel(self, job_id: str) -> None:
        self._ask("cancel", job_id, jobs.cancel)

    def _keep(self, job_id: str) -> None:
        """Tell a training to end early, and to keep its best weights."""
        self._ask("keep", job_id, end_early)

    def _ask(self, what: str, job_id: str, step: Callable[..., Any]) -> None:
        """Ask for a change of a job until there is an answer."""
        while True:
            with (
                self._world.history.call(self._name, what, job=job_id) as call,
                suppress(Unreachable),
            ):
                call.reply = self._world.services.database.transact(partial(step, job_id=job_id))
            if call.reply is not None:
                return
            time.sleep(1)

    def _follow(self, job_id: str) -> str:
        """Look at a job until it has ended; return its state."""
        while True:
            asked = self._world.history.call(self._name, "show", job=job_id)
            with asked as call, suppress(Unreachable):
                call.reply = self._world.services.database.status(job_id)
            if call.reply in FINAL:
                return str(call.reply)
            time.sleep(self._world.machine.random.expovariate(1 / 40))

    def _retry(self, job_id: str) -> None:
        services = self._world.services
        with self._world.history.call(self._name, "retry", job=job_id) as call:
            try:
                with services.database.read() as session:
                    job = jobs.get(session, job_id)
                call.reply = retry(services, job).id
            except GenmillError:  # perhaps it was stored; or it is the one before it
                return
        self._follow(call.reply)

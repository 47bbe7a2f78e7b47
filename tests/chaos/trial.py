"""The trial of one fault: a deployment, an auditor, and the row of the table that it fills."""

import os
import signal
import time
from collections.abc import Callable, Collection
from typing import Any

import pytest
from sqlalchemy import select

from db import jobs
from db.states import FINAL
from db.tables import Job
from scheduler.dispatch.rounds import run_round
from tests.chaos.auditor import Auditor, made_twice
from tests.chaos.remembering import Remembering
from tests.chaos.table import Row
from tests.forked import changed
from tests.integration.conftest import PATIENCE_S, add_digits, add_tiny
from tests.integration.test_faults import attempts, running
from worker.failpoints import LOG
from worker.services import Services
from worker.settings import Settings

ONE_BY_ONE = {"micro_batch": 1}
DONE = ("succeeded",)
FOLDER, SERVERS = "sqlite-folder", "postgresql-s3"  # where the record and the objects are
LEASE_S, LOOP_S, DEADLINE_S = 2.0, 0.2, 2.0
START_S = 20.0  # for another worker to start and to do the work, on a busy machine
LEASE_BOUND_S = LEASE_S + LOOP_S + START_S
RING_BOUND_S = DEADLINE_S + LOOP_S + START_S
# of a service that is away for longer than leases last; two minutes for leases of a minute
AWAY_S = float(os.environ.get("CHAOS_REFUSES_S", "12"))
GRACE_S = 60.0  # on a machine that is busy with other things


class Trial(Remembering):
    """A deployment with `tiny` and `digits`; every job that it enqueues must end as it should."""

    def __init__(self, settings: Settings, row: Row) -> None:
        super().__init__(settings)
        self.row = row
        self.mine: list[str] = []  # the jobs of this trial
        self._counted: set[str] = set()  # those in the row
        add_tiny(self)
        self.auditor = Auditor(self.services, grace_s=GRACE_S)

    def digits(self) -> "Trial":
        """This trial, with the dataset `digits`."""
        add_digits(self)
        return self

    def enqueue(self, spec: dict[str, object], **how: object) -> Job:
        job = super().enqueue(spec, **how)
        self.expect(job.id)
        return job

    def expect(self, *job_ids: str) -> None:
        """Count jobs as this trial's."""
        self.mine += [job_id for job_id in job_ids if job_id not in self.mine]

    def inject(self, times: int = 1) -> None:
        """Note that the fault has just been injected."""
        self.row.inject(times)

    def start(self, job: Job, **settings: object) -> Any:
        """Start a worker; return once it makes samples of the job. Call it while `held`."""
        process = self.worker(**settings)
        self.wait("samples", lambda: running(self, job))
        return process

    def recover(self, *, ends: Collection[str] = DONE, dispatch: bool = True) -> None:
        """Wait until all jobs have ended as they should; fill the row; audit."""
        deadline = time.monotonic() + PATIENCE_S
        while not all(self.job(job_id).status in FINAL for job_id in self.mine):
            if time.monotonic() > deadline:
                break
            if dispatch:
                run_round(self.services)
            time.sleep(0.1)
        self.row.recovered()
        self.check(ends=ends)

    def check(self, *, ends: Collection[str] = DONE) -> None:
        """Fill the row with what became of the jobs, and audit everything."""
        ended = {job_id: self.job(job_id) for job_id in self.mine}
        new, self._counted = ended.keys() - self._counted, {*ended}
        found = self.auditor.audit()
        self.row.jobs += len(new)
        self.row.lost += sum(ended[job_id].status not in FINAL for job_id in new)
        self.row.twice += made_twice(found)
        wrong = {
            job.id: (job.status, job.error) for job in ended.values() if job.status not in ends
        }
        assert not wrong, f"{wrong}\n{self.logs()[-20_000:]}"
        assert found == [], self.logs()[-20_000:]
        assert self.contradictions() == []

    def outcomes(self, job: Job) -> list[str | None]:
        """Those of all attempts at the job's shards, oldest first."""
        return attempts(self, job)

    def counted(self, job: Job) -> int:
        """The failures that were counted against the job's shards."""
        with self.services.database.read() as session:
            return sum(shard.failures for shard in jobs.shards_of(session, job.id))

    def struck(self) -> list[str]:
        """The failpoints that have acted in this home, in their order."""
        try:
            lines = (self.settings.home / LOG).read_text().splitlines()
        except FileNotFoundError:
            return []
        return [line.split()[0] for line in lines]

    def everything(self) -> list[Job]:
        """Every job on record."""
        with self.services.database.read() as session:
            return list(session.scalars(select(Job).order_by(Job.id)))

    def changed(self, **settings: object) -> Services:
        """Services with other settings, which the caller closes."""
        return Services(changed(self.settings, **settings))

    def until(self, what: str, happens: Callable[[], object], *, within_s: float = 60) -> None:
        """Wait without dispatching."""
        deadline = time.monotonic() + within_s
        while not happens():
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not in {within_s:g} s\n{self.logs()[-20_000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:  # one that is stopped dies too
                os.killpg(process.pid, signal.SIGKILL)
        super().stop()

"""A deployment that remembers what its users were told, to be compared with the record."""

import time
from functools import partial

from sqlalchemy import select

from db import batches, jobs
from db.tables import Batch, Job
from tests.history import History, check
from tests.integration.conftest import Deployment
from worker.settings import Settings


class Remembering(Deployment):
    """A deployment whose users' calls and replies are in `history`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.history = History(time.monotonic)

    def enqueue(self, spec: dict[str, object], **how: object) -> Job:
        with self.history.call("user", "enqueue") as call:
            job = super().enqueue(spec, **how)
            call.reply = job.id
        return job

    def enqueue_batch(self, lines: list[str]) -> Batch:
        batch = super().enqueue_batch(lines)
        with self.services.database.read() as session:
            ids = batches.job_ids(session, batch.id)
        for job_id in ids:
            with self.history.call("user", "enqueue") as call:
                call.reply = job_id
        return batch

    def cancel(self, job_id: str) -> bool:
        """Cancel a job; False if it had ended."""
        with self.history.call("user", "cancel", job=job_id) as call:
            done = self.services.database.transact(partial(jobs.cancel, job_id=job_id))
            call.reply = done
        return done

    def look(self) -> dict[str, str]:
        """Every job's state, which is told to one more user."""
        began = self.history.clock()
        with self.services.database.read() as session:
            found = {row.id: row.status for row in session.execute(select(Job.id, Job.status))}
        for job_id, state in found.items():
            with self.history.call("looker", "show", job=job_id) as call:
                call.began, call.reply = began, state
        return found

    def contradictions(self) -> list[str]:
        """What users were told and is not so. Call it once every job has ended."""
        return list(check(self.history, self.look(), {}))

"""Short ways to bring a record into a state, each in a transaction of its own."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from db import jobs, progress, shards
from db.session import Database
from db.shards import Claim, NewArtifact, NewIndex
from db.tables import Job, Shard
from tests.unit.db.old_revisions import new_postgresql

DIGEST = "ab" * 32


class Record:
    """A database, and the steps of the lease protocol in a transaction each."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def run(self, step: Any, /, *args: Any, **options: Any) -> Any:
        return self.database.transact(lambda session: step(session, *args, **options))

    def add(self, *ranges: tuple[int, int], **options: Any) -> list[str]:
        """Add a job; return its id and then its shards' ids."""
        wanted = {"spec": {}, "spec_hash": DIGEST, "kind": "generate", "model": "digits"} | options
        job = self.run(jobs.add, ranges=ranges or [(0, 4)], **wanted)
        return [job.id, *(shard.id for shard in self.run(jobs.shards_of, job.id))]

    def claim(self, shard_id: str, owner: str = "ann", lease_s: float = 60, **options: Any) -> Any:
        return self.run(shards.claim, shard_id, owner=owner, lease_s=lease_s, **options)

    @staticmethod
    def samples_of(claim: Claim) -> list[NewArtifact]:
        """The artifact that a generate shard of this range would commit."""
        samples = range(claim.start, claim.stop)
        index = NewIndex(samples, f"{claim.start:064x}", data=bytes(44 * len(samples)))
        name = f"samples-{claim.idx:05}.tar"
        key = f"jobs/{claim.job_id}/blobs/{claim.fence:064x}"
        return [NewArtifact("samples", name, key, DIGEST, 1024, "application/x-tar", index)]

    def commit(self, claim: Claim) -> None:
        self.run(shards.commit, claim, self.samples_of(claim))
        self.settle(claim.job_id)

    def renew(self, claim: Claim, *, lease_s: float = 60, seq: int = 1, **beat: Any) -> None:
        """Renew one lease; raise why if it is over."""

        def work(session: Any) -> bool:
            beats = {claim.shard_id: shards.Beat(claim.fence, seq, beat.get("progress"))}
            if shards.renew_all(session, claim.owner, beats, lease_s=lease_s):
                return True
            if why := shards.over(session, claim):
                raise why
            return False

        while not self.run(work):  # another transaction has locked it just now
            time.sleep(0.01)

    def progress(self, job_id: str) -> Any:
        return self.run(lambda session: progress.of(session, [jobs.get(session, job_id)]))[job_id]

    def settle(self, job_id: str) -> None:
        for each in self.run(jobs.complete, [job_id]):
            self.run(jobs.settle, each)

    def fail(self, claim: Claim, error: str = "it broke", **options: Any) -> str:
        how = {"final": False, "max_failures": 3, "backoff_s": 0} | options
        return str(self.run(shards.fail, claim, error, **how))

    def release(self, claim: Claim, reason: str = "draining", **options: Any) -> None:
        self.run(shards.release, claim, reason, **options)

    def cancel(self, job_id: str) -> bool:
        return bool(self.run(jobs.cancel, job_id))

    def job(self, job_id: str) -> Job:
        job: Job = self.run(jobs.get, job_id)
        return job

    def shard(self, shard_id: str) -> Shard:
        shard: Shard = self.run(lambda session: session.get(Shard, shard_id))
        return shard

    def together(self, *steps: Any) -> list[Any]:
        """Run the steps, each a function and its arguments, in threads at the same time.

        Returns what each returned or raised.
        """
        start = Barrier(len(steps))

        def run(step: Any) -> Any:
            start.wait()
            try:
                return step[0](*step[1:])
            except Exception as error:  # the outcome is what a test looks at
                return error

        with ThreadPoolExecutor(len(steps)) as threads:
            return list(threads.map(run, steps))


@pytest.fixture
def record(database: Database) -> Record:
    """A record on the kind of database under test."""
    return Record(database)


@pytest.fixture
def each_record(each_database: Database) -> Iterator[Record]:
    """A record on each kind of database in turn."""
    return Record(each_database)


@pytest.fixture(params=["sqlite", "postgresql"])
def unmigrated(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database of each kind in turn, without tables."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'old.db'}"
    else:
        url = new_postgresql(request.getfixturevalue("postgresql_url"))
    database = Database(url)
    yield database
    database.dispose()

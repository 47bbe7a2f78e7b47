"""Some 900 jobs of all kinds under random faults: `make chaos SEED=N`.

The seed fixes the faults, not timing.
"""

import json
import os
import random
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import select
from sqlalchemy.orm import undefer

from db import models, schedules
from db.errors import Unreachable
from db.states import FINAL
from db.tables import DatasetVersion, Job, ScheduleRun
from scheduler.datasets.add import add_dataset
from scheduler.schedules.manage import add_schedule
from scheduler.submission.enqueue import enqueue
from tests.chaos.auditor import Auditor, made_twice
from tests.chaos.storm import Storm
from tests.chaos.system import Outage, System, private_broker
from tests.chaos.table import Row
from tests.faulty_s3 import faulty_s3
from tests.integration.conftest import TINY, add_digits, add_tiny
from tests.integration.test_chains import add_words, enqueue_chain
from worker.data.versions import PREFIX, object_keys
from worker.settings import Settings
from worker.specs import parse_spec

T = TypeVar("T")

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

LEASE_S, LOOP_S, DEADLINE_S = 3.0, 0.5, 4.0
GRACE_S = 30.0  # twice the sum of these, on a machine that is busy with other things
WAVES, JOBS_A_WAVE = 5, 32
FAULTS_A_WAVE = 12
TRAINED_STEPS = 250
PATIENCE_S = 240.0
SLOW = {"micro_batch": 1}
SMALL_JOBS_A_WAVE = 150
SCHEDULED = ["enqueue", "generate", "tiny", "--count", "5"]
TRAINED = {"kind": "train", "family": "vae", "model": "tuned", "dataset": "digits", "max_steps": 8}
TRAINED |= {"seed": 0, "params": TINY}
TINY_JOB = {"kind": "generate", "model": "tiny", "params": SLOW}


@pytest.fixture(scope="module")
def seed() -> int:
    return int(os.environ.get("SEED", "1"))


@pytest.fixture
def store_with_outages(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[dict[str, str], Outage]]:
    """Settings of a store, and what takes it away.

    A folder is a link, which then leads below a file: whatever is asked of it fails. An S3 server
    answers 503.
    """
    if os.environ.get("GENMILL_TEST_DATABASE") == "postgresql":
        s3 = request.getfixturevalue("s3")
        with faulty_s3(s3.endpoint_url) as server:

            def refuse() -> Callable[[], None]:
                server.always["*"] = 503
                return server.always.clear

            yield {"store_url": s3.url, "s3_endpoint_url": server.url}, refuse
        return
    (tmp_path / "objects").mkdir()
    (tmp_path / "file").touch()
    link = tmp_path / "store"
    link.symlink_to(tmp_path / "objects")

    def turn(target: Path) -> None:
        (tmp_path / "link").symlink_to(target)
        (tmp_path / "link").replace(link)

    def lead_astray() -> Callable[[], None]:
        turn(tmp_path / "file" / "nothing")
        return lambda: turn(tmp_path / "objects")

    yield {"store_url": link.as_uri()}, lead_astray


@pytest.fixture
def system(tmp_path: Path, database_url: str, request: pytest.FixtureRequest) -> Iterator[System]:
    broker, url = private_broker(tmp_path / "broker.log")
    places, outage = request.getfixturevalue("store_with_outages")
    settings = Settings(
        _env_file=None,
        home=tmp_path,
        database_url=database_url,
        redis_url=url,
        device="cpu",
        threads=1,
        lease_s=LEASE_S,
        loop_s=LOOP_S,
        deadline_s=DEADLINE_S,
        max_claims=1000,  # here a shard that is lost again and again is not poison
        **places,
    )
    made = System(settings, broker)
    made.outage = outage
    add_digits(made)
    add_tiny(made)
    add_words(made)
    yield made
    made.stop()
    shutil.rmtree(Path(url.partition("@")[2]).parent)


def test_nothing_is_lost_doubled_or_changed_under_random_faults(
    system, seed, table, capsys
) -> None:
    def say(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    say(f"\nchaos with SEED={seed}")
    rng, storm = random.Random(seed), Storm(system, seed, system.outage)
    row = table.row("random faults, one after another", bound_s=PATIENCE_S)
    auditor = Auditor(system.services, grace_s=GRACE_S)
    add_schedule(system.services, "nightly", cron="* * * * *", command=SCHEDULED, overlap="queue")
    system.start()
    for wave in range(WAVES):
        enqueue_wave(system, wave, rng)
        inject_faults(storm, rng, row)
        check(auditor, storm, row)
        system.look()
        say(f"wave {wave + 1}: {dict(states(system))}")
    persist(lambda: system.services.database.transact(lambda s: schedules.pause(s, "nightly")))
    try:
        wait_until_final(system)
    finally:
        count_jobs(system, row)
    say(f"{dict(states(system))}\nfaults: {dict(Counter(storm.struck))}")
    say(f"starts: {[kept.starts for kept in system.all]}")
    check(auditor, storm, row)
    check_outcomes(system, storm)
    check_schedule(system)
    check_datasets(system)


def persist(work: Callable[[], T]) -> T:
    """Do it again as long as a service is away: what was stored in spite of that is welcome."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return work()
        except Unreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def check(auditor: Auditor, storm: Storm, row: Row) -> None:
    storm.store_is_there.wait(PATIENCE_S)
    found = persist(auditor.audit)  # its connection may be one that the last fault has ended
    row.twice += made_twice(found)
    if found:
        pytest.fail("\n".join([f"{len(found)} violations", *found[:20]]))


def enqueue_wave(system: System, wave: int, rng: random.Random) -> None:
    """Submit jobs of all sizes with few seeds, and in every other wave two equal trainings.

    A batch of small jobs is claimed and committed many at a time. The first wave has chains of the
    other kinds of job, and each wave adds data.
    """
    lines = [
        json.dumps({**TINY_JOB, "count": rng.choice([1, 1, 3]), "seed": rng.randrange(8)})
        for _ in range(SMALL_JOBS_A_WAVE)
    ]
    persist(lambda: system.enqueue_batch(lines))
    if wave % 2 == 0:
        for _ in range(2):
            persist(
                lambda: system.train(model=f"trained-{wave}", max_steps=TRAINED_STEPS, seed=wave)
            )
    if wave == 0:
        persist(lambda: enqueue_chain(system))
        tune = {"kind": "finetune", "model": "tuned", "dataset": "digits", "max_steps": 4}
        persist(lambda: enqueue(system.services, parse_spec(TRAINED), then=[parse_spec(tune)]))
    path = system.settings.home / f"added-{wave}.txt"
    path.write_text(f"The cat sees the mat {wave} times. " * 40)
    persist(lambda: add_dataset(system.services, f"added-{wave}", path))
    for _ in range(JOBS_A_WAVE):
        count = rng.choice([1, 20, 60, 150, 400, 1500])
        how = {
            "seed": rng.randrange(8),
            "params": SLOW,
            "priority": rng.choice([0, 0, 5]),
            "shard_size": rng.choice([count, count, -(-count // 2), -(-count // 5)]),
        }
        persist(lambda count=count, how=how: system.generate(count, **how))


def inject_faults(storm: Storm, rng: random.Random, row: Row) -> None:
    for _ in range(FAULTS_A_WAVE):
        time.sleep(rng.uniform(0.2, 2.8))
        storm.strike()
        row.inject()


def count_jobs(system: System, row: Row) -> None:
    row.recovered()
    ended = states(system)
    row.jobs += ended.total()
    row.lost += sum(count for state, count in ended.items() if state not in FINAL)


def states(system: System) -> Counter[str]:
    def read() -> Counter[str]:
        with system.services.database.read() as session:
            return Counter(session.scalars(select(Job.status)))

    return persist(read)


def wait_until_final(system: System) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not (set(states(system)) <= FINAL and system.calm()):
        if time.monotonic() > deadline:
            pytest.fail(
                f"{states(system)} after {PATIENCE_S:g} s of calm\n{system.logs()[-20_000:]}"
            )
        time.sleep(0.2)


def check_outcomes(system: System, storm: Storm) -> None:
    """All but the cancelled jobs succeeded; equal seeds made equal samples and weights."""
    with system.services.database.read() as session:
        rows = select(Job).order_by(Job.id).options(undefer(Job.spec))
        everything = list(session.scalars(rows))
    ended = {job.id: (job.status, job.error) for job in everything}
    expected = {
        job.id: ("cancelled" if job.id in storm.cancelled else "succeeded", None)
        for job in everything
    }
    assert ended == expected
    assert system.contradictions() == []
    by_seed = defaultdict(list)
    for job in everything:
        whole = job.retry_of is None and job.schedule_id is None
        if job.kind == "generate" and job.status == "succeeded" and whole:
            by_seed[job.spec["seed"]].append(system.digests(job.id))
    for made in by_seed.values():
        longest = max(made, key=len)
        assert all(digests == longest[: len(digests)] for digests in made)
    for wave in range(0, WAVES, 2):
        assert weights(system, f"trained-{wave}:1") == weights(system, f"trained-{wave}:2")


def weights(system: System, reference: str) -> str:
    with system.services.database.read() as session:
        return models.resolve(session, reference)[1].weights_sha256


def check_schedule(system: System) -> None:
    """Each due time that fired made one job, and no job of the schedule came otherwise."""
    with system.services.database.read() as session:
        fired = list(
            session.scalars(select(ScheduleRun.job_id).where(ScheduleRun.outcome == "fired"))
        )
        made = list(session.scalars(select(Job.id).where(Job.schedule_id.is_not(None))))
    assert sorted(fired) == sorted(made)


def check_datasets(system: System) -> None:
    """No object of a dataset version was collected."""
    with system.services.database.read() as session:
        manifests = list(session.scalars(select(DatasetVersion.manifest_key)))
    kept = set(system.services.store.keys(PREFIX))
    assert {key for each in manifests for key in object_keys(system.services.store, each)} <= kept

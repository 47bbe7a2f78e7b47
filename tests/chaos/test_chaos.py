"""Some 900 jobs under random faults: `make chaos SEED=N`. The seed fixes faults, not timing."""

import json
import os
import random
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import undefer

from db import models
from db.states import FINAL
from db.tables import Job
from tests.chaos.auditor import Auditor
from tests.chaos.storm import Storm
from tests.chaos.system import System, private_broker
from tests.history import check as check_history
from tests.integration.conftest import add_digits, add_tiny
from worker.settings import Settings

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

LEASE_S, LOOP_S, DEADLINE_S = 3.0, 0.5, 4.0
GRACE_S = 30.0  # twice the sum of these, on a machine that is busy with other things
WAVES, JOBS_A_WAVE = 5, 32
FAULTS_A_WAVE = 12
TRAINED_STEPS = 250
PATIENCE_S = 240.0
SLOW = {"micro_batch": 1}
SMALL_JOBS_A_WAVE = 150
TINY_JOB = {"kind": "generate", "model": "tiny", "params": SLOW}


@pytest.fixture(scope="module")
def seed() -> int:
    return int(os.environ.get("SEED", "1"))


@pytest.fixture
def system(tmp_path: Path, database_url: str, request: pytest.FixtureRequest) -> Iterator[System]:
    broker, url = private_broker(tmp_path / "broker.log")
    places = {"store_url": (tmp_path / "store").as_uri()}
    if os.environ.get("GENMILL_TEST_DATABASE") == "postgresql":
        s3 = request.getfixturevalue("s3")
        places = {"store_url": s3.url, "s3_endpoint_url": s3.endpoint_url}
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
    add_digits(made)
    add_tiny(made)
    yield made
    made.stop()
    shutil.rmtree(Path(url.partition("@")[2]).parent)


def test_nothing_is_lost_doubled_or_changed_under_random_faults(system, seed, capsys) -> None:
    def say(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    say(f"\nchaos with SEED={seed}")
    rng, storm = random.Random(seed), Storm(system, seed)
    auditor = Auditor(system.settings, grace_s=GRACE_S)
    system.start()
    for wave in range(WAVES):
        enqueue_wave(system, wave, rng)
        inject_faults(system, storm, rng)
        check(auditor)
        system.look()
        say(f"wave {wave + 1}: {dict(states(system))}")
    wait_until_final(system)
    say(f"{dict(states(system))}\nfaults: {dict(Counter(storm.struck))}")
    say(f"starts: {[kept.starts for kept in system.all]}")
    check(auditor)
    check_outcomes(system, storm)


def check(auditor: Auditor) -> None:
    found = auditor.audit()
    if found:
        pytest.fail("\n".join([f"{len(found)} violations", *found[:20]]))


def enqueue_wave(system: System, wave: int, rng: random.Random) -> None:
    """Submit jobs of all sizes with few seeds, and in every other wave two equal trainings.

    A batch of small jobs is claimed and committed many at a time.
    """
    system.enqueue_batch(
        [
            json.dumps({**TINY_JOB, "count": rng.choice([1, 1, 3]), "seed": rng.randrange(8)})
            for _ in range(SMALL_JOBS_A_WAVE)
        ]
    )
    if wave % 2 == 0:
        for _ in range(2):
            system.train(model=f"trained-{wave}", max_steps=TRAINED_STEPS, seed=wave)
    for _ in range(JOBS_A_WAVE):
        count = rng.choice([1, 20, 60, 150, 400, 1500])
        system.generate(
            count,
            seed=rng.randrange(8),
            params=SLOW,
            priority=rng.choice([0, 0, 5]),
            shard_size=rng.choice([count, count, -(-count // 2), -(-count // 5)]),
        )


def inject_faults(system: System, storm: Storm, rng: random.Random) -> None:
    for _ in range(FAULTS_A_WAVE):
        time.sleep(rng.uniform(0.2, 2.8))
        storm.strike()


def states(system: System) -> Counter[str]:
    with system.services.database.read() as session:
        return Counter(session.scalars(select(Job.status)))


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
        whole = select(Job).order_by(Job.id).options(undefer(Job.spec))
        everything = list(session.scalars(whole))
    ended = {job.id: (job.status, job.error) for job in everything}
    expected = {
        job.id: ("cancelled" if job.id in storm.cancelled else "succeeded", None)
        for job in everything
    }
    assert ended == expected
    assert list(check_history(system.history, system.look(), {})) == []
    by_seed = defaultdict(list)
    for job in everything:
        if job.kind == "generate" and job.status == "succeeded":
            by_seed[job.spec["seed"]].append(system.digests(job.id))
    for made in by_seed.values():
        longest = max(made, key=len)
        assert all(digests == longest[: len(digests)] for digests in made)
    for wave in range(0, WAVES, 2):
        assert weights(system, f"trained-{wave}:1") == weights(system, f"trained-{wave}:2")


def weights(system: System, reference: str) -> str:
    with system.services.database.read() as session:
        return models.resolve(session, reference)[1].weights_sha256

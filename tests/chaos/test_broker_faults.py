"""Redis is restarted, wiped, slow, full or away; doorbells are lost, late or doubled."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
import redis

from db import jobs, shards
from scheduler.dispatch.rounds import run_round
from tests.chaos.proxy import Proxy, proxied
from tests.chaos.scenarios import GENERATE, command, start
from tests.chaos.system import Supervised, private_broker
from tests.chaos.trial import (
    FOLDER,
    LEASE_BOUND_S,
    ONE_BY_ONE,
    RING_BOUND_S,
    SERVERS,
    START_S,
    Trial,
)
from tests.integration.conftest import PATIENCE_S
from worker.broker.app import KEY_PREFIX, QUEUE, TASK, celery_app

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

EVERY_S, FOR_S, JOBS = 0.2, 60.0, 50
LIST = f"{KEY_PREFIX}{QUEUE}"


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[tuple[Supervised, str]]:
    """A broker of the test's own, which runs, and its URL."""
    broker, url = private_broker(tmp_path / "broker.log")
    broker.tend()
    yield broker, url
    broker.end()
    shutil.rmtree(Path(url.partition("@")[2]).parent)


@pytest.fixture
def way(broker_url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy before the broker, and the URL by way of it."""
    with proxied(broker_url) as found:
        yield found


def client_of(made: Trial) -> redis.Redis:
    return redis.Redis.from_url(made.settings.broker_client, socket_timeout=5)


def ring(made: Trial, *shard_ids: str) -> None:
    for shard_id in shard_ids:
        celery_app(made.settings).send_task(TASK, args=[shard_id], queue=QUEUE)


def shard_ids(made: Trial, job) -> list[str]:
    with made.services.database.read() as session:
        return [shard.id for shard in jobs.shards_of(session, job.id)]


def test_fifty_jobs_succeed_while_redis_is_wiped_five_times_a_second(trial, places) -> None:
    made = trial("Redis flushed every 200 ms for a minute", places, bound_s=RING_BOUND_S)
    client = client_of(made)
    made.worker()
    made.worker()
    ends = time.monotonic() + FOR_S

    def wipe() -> None:
        while time.monotonic() < ends:
            client.flushall()
            made.inject()
            time.sleep(EVERY_S)

    wiping = threading.Thread(target=wipe)
    wiping.start()
    while (left_s := ends - time.monotonic()) > 0:
        if len(made.mine) < JOBS and left_s < FOR_S * (1 - len(made.mine) / JOBS):
            made.generate(20, seed=len(made.mine), params=ONE_BY_ONE)
        run_round(made.services)
        time.sleep(EVERY_S)
    wiping.join()
    while len(made.mine) < JOBS:
        made.generate(2, seed=len(made.mine))
    made.recover()
    assert all(made.counted(job) == 0 for job in made.everything())


def test_a_broker_that_restarts_empty_loses_nothing(trial, places, own_broker) -> None:
    broker, url = own_broker
    made = trial("Redis restarted", places, bound_s=RING_BOUND_S, redis_url=url)
    worker = made.worker()
    for seed in range(6):
        made.generate(10, seed=seed, params=ONE_BY_ONE)
        broker.end()
        time.sleep(0.5)
        broker.due_at = 0.0
        broker.tend()
        made.inject()
        run_round(made.services)
    made.recover()
    assert worker.poll() is None


def test_a_wipe_costs_a_deadline_at_most(trial, places) -> None:
    made = trial("Redis wiped once", places, bound_s=RING_BOUND_S)
    for seed in range(5):
        made.generate(4, seed=seed)
    client_of(made).flushall()
    made.inject()
    made.worker()
    made.recover()


@pytest.mark.parametrize("places", [FOLDER], indirect=True)
def test_a_slow_broker_slows_and_loses_nothing(trial, places, way) -> None:
    proxy, url = way
    made = trial("Redis slow (300 ms)", places, bound_s=RING_BOUND_S + 10, redis_url=url)
    made.worker()
    proxy.delay_s = 0.3
    for seed in range(4):
        made.generate(4, seed=seed)
        made.inject()
    made.recover()


def test_connections_to_the_broker_that_are_reset_are_made_again(trial, places, way) -> None:
    proxy, url = way
    made = trial("Redis: connections reset", places, bound_s=RING_BOUND_S, redis_url=url)
    worker = made.worker()
    for seed in range(8):
        made.generate(10, seed=seed, params=ONE_BY_ONE)
        proxy.reset()
        made.inject()
        run_round(made.services)
        time.sleep(0.3)
    made.recover()
    assert worker.poll() is None


@pytest.mark.parametrize("places", [FOLDER], indirect=True)
def test_a_half_open_connection_to_the_broker_holds_up_no_running_work(trial, places, way) -> None:
    proxy, url = way
    made = trial("Redis: half-open", places, bound_s=RING_BOUND_S + 32, redis_url=url)
    job = made.generate(50, params=ONE_BY_ONE)
    with made.held():
        made.start(job)
        proxy.half_open = True
        made.inject()
    made.until("the running job's end", lambda: made.job(job.id).status == "succeeded")
    proxy.half_open = False
    proxy.reset()
    made.generate(4, seed=1)
    made.recover()


def test_a_broker_that_is_full_takes_doorbells_again_later(trial, places) -> None:
    made = trial("Redis full", places, bound_s=RING_BOUND_S)
    client = client_of(made)
    made.worker()
    made.generate(2)
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)
    try:
        for seed in range(3):
            made.generate(4, seed=seed + 1)  # stored, with a warning
        made.inject()
        for _ in range(5):
            run_round(made.services)
            time.sleep(0.2)
    finally:
        client.config_set("maxmemory", 0)
    made.recover()


def test_a_job_enqueued_while_the_broker_is_down_is_stored_and_runs_later(
    trial, places, way, caplog
) -> None:
    proxy, url = way
    made = trial("Redis down at enqueue", places, bound_s=RING_BOUND_S, redis_url=url)
    proxy.refusing = True
    proxy.reset()
    job = made.generate(3)
    made.inject()
    assert "stored, but it waits for the broker" in caplog.text
    assert made.job(job.id).status == "queued"
    proxy.refusing = False
    made.worker()
    made.recover()


def test_a_command_killed_before_it_rings_has_stored_its_job(trial, places) -> None:
    made = trial("the command killed before it rings", places, bound_s=RING_BOUND_S)
    process = start(command(*GENERATE), made.settings, "enqueued", os.environ)
    process.join(PATIENCE_S)
    made.inject()
    [job] = made.everything()
    made.expect(job.id)
    assert client_of(made).llen(LIST) == 0
    made.worker()
    made.recover()


def test_doubled_doorbells_make_one_claim(trial, places) -> None:
    made = trial("doorbells doubled", places, bound_s=START_S)
    job = made.generate(50, shard_size=25, params=ONE_BY_ONE)
    for _ in range(10):
        ring(made, *shard_ids(made, job))
    made.worker()
    made.worker()
    made.inject(20)
    made.recover()
    ring(made, *shard_ids(made, job))
    made.generate(2, seed=1)
    made.recover()
    assert made.outcomes(job) == ["succeeded"] * 2


@pytest.mark.parametrize("places", [FOLDER], indirect=True)
def test_a_doorbell_delivered_again_beyond_its_visibility_finds_the_lease_held(
    trial, places
) -> None:
    made = trial("delivery beyond visibility", places, bound_s=START_S)
    client = client_of(made)
    job = made.generate(50, params=ONE_BY_ONE)
    with made.held():
        made.start(job)
        for _ in range(3):  # as a broker does that hands out again what nobody acknowledged in time
            ring(made, *shard_ids(made, job))
        other = made.worker()
        made.wait("the messages taken", lambda: client.llen(LIST) == 0, dispatch=False)
        made.inject(3)
        time.sleep(1)
        assert made.outcomes(job) == [None]
    made.recover()
    assert made.outcomes(job) == ["succeeded"]
    assert other.poll() is None


def test_a_doorbell_that_dies_between_pop_and_unacked_is_rung_again(trial, places) -> None:
    made = trial("the BRPOP window", places, bound_s=RING_BOUND_S)
    for seed in range(3):
        made.generate(3, seed=seed)
    client = client_of(made)
    while client.rpop(LIST) is not None:
        made.inject()
    made.worker()
    made.recover()


def test_four_dispatchers_at_once_have_no_double_effect(trial, places) -> None:
    made = trial("four dispatchers", places, bound_s=LEASE_BOUND_S)
    made.worker()
    made.worker()
    for seed in range(10):
        made.generate(20, seed=seed, shard_size=5, params=ONE_BY_ONE)
    ends = time.monotonic() + PATIENCE_S

    def dispatch(_: int) -> None:
        with closing(made.changed()) as services:
            while time.monotonic() < ends and not all(
                made.job(job_id).status == "succeeded" for job_id in made.mine
            ):
                run_round(services)

    made.inject(4)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(dispatch, range(4)))
    made.recover(dispatch=False)


def test_without_a_dispatcher_an_expired_lease_is_stolen_at_redelivery(trial, places) -> None:
    made = trial("no dispatcher", places, bound_s=LEASE_BOUND_S)
    job = made.generate(4)
    [shard_id] = shard_ids(made, job)
    made.services.database.transact(
        lambda session: shards.claim(session, shard_id, owner="dead", lease_s=0.5)
    )
    made.inject()
    made.worker()
    time.sleep(0.6)
    ring(made, shard_id)  # as Redis delivers again what was not acknowledged
    made.recover(dispatch=False)
    assert made.outcomes(job) == ["lost", "succeeded"]


@pytest.mark.parametrize("places", [SERVERS], indirect=True)
def test_garbage_in_the_queue_costs_no_worker_and_no_job(trial, places) -> None:
    made = trial("garbage in the queue", places, bound_s=RING_BOUND_S)
    client = client_of(made)
    worker = made.worker()
    for seed in range(4):
        for garbage in (b"", b"{", b"[]", b'{"body": 1}', b"\xff\xfe\x00", b"[" * 5000):
            with suppress(redis.RedisError):
                client.lpush(LIST, garbage)
            made.inject()
        made.generate(4, seed=seed)
    made.recover()
    assert worker.poll() is None

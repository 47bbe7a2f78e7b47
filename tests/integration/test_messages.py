"""Whoever can write to the broker can delay work, and no more."""

import base64
import json
import os
import random
from pathlib import Path

import pytest
import redis

from db import jobs
from tests.attempts import attempts_at
from worker.broker.app import KEY_PREFIX, QUEUE
from worker.broker.channel import doorbell

KEY = KEY_PREFIX + QUEUE
UNKNOWN = "01a203d4-cc8f-7501-9719-6017283c9be0"
AT_ONCE = 5000
MANY = int(os.environ.get("GENMILL_MESSAGES", "20000"))  # `make fuzz` sends a million


def hostile(shard_id):
    """A doorbell that rings, with everything in it that Celery would act on."""
    message = doorbell(shard_id)
    message["headers"] |= {"timelimit": [0.01, None], "eta": "2035-01-01T00:00:00", "task": "x"}
    message["properties"] |= {"reply_to": "x", "delivery_info": 1, "priority": [], "expiration": 1}
    return json.dumps(message | {"content-type": "application/data"}).encode()


def plain_body(body):
    return json.dumps(doorbell(UNKNOWN) | {"body": base64.b64encode(body).decode()}).encode()


SHAPES = {  # and how often; one that rings takes the most time
    plain_body(b"1"): 20,
    plain_body(b"\x80\x04."): 20,
    b"{": 10,
    b"[" * 2000: 10,
    b"\xff" * 100: 10,
    hostile(UNKNOWN)[:-20]: 28,
    hostile(UNKNOWN): 2,
}


def mutated(rng):
    """A message of one of these shapes, some bytes of which are others."""
    made = bytearray(rng.choices(list(SHAPES), list(SHAPES.values()))[0])
    for _ in range(rng.randrange(4)):
        made[rng.randrange(len(made))] = rng.randrange(256)
    return bytes(made)


@pytest.fixture
def client(deployment):
    with redis.Redis.from_url(deployment.settings.broker_client) as opened:
        yield opened


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def outcomes(deployment, *job_ids):
    with deployment.services.database.read() as session:
        ids = [shard.id for job_id in job_ids for shard in jobs.shards_of(session, job_id)]
        return [row["outcome"] for each in ids for row in attempts_at(session, each)]


def flood(deployment, client, number):
    """Put so many mutated messages into the queue while jobs run; none may notice."""
    rng = random.Random(number)
    process = deployment.worker()
    deployment.succeed(deployment.generate(2).id)
    child, made, pushed = children(process.pid), [], 0
    while pushed < number or client.llen(KEY):
        if pushed < number and client.llen(KEY) < AT_ONCE:
            client.rpush(KEY, *(mutated(rng) for _ in range(min(AT_ONCE, number - pushed))))
            pushed += AT_ONCE
            made.append(deployment.generate(20, seed=pushed, params={"micro_batch": 1}).id)
        deployment.wait("some room", lambda: client.llen(KEY) < AT_ONCE // 2)
    deployment.succeed(*made)
    assert set(outcomes(deployment, *made)) == {"succeeded"}
    assert (process.poll(), children(process.pid)) == (None, child)
    assert "connects to the broker again" not in deployment.logs()
    assert "Connection to broker lost" not in deployment.logs()


def test_mutated_messages_end_no_worker_and_fail_no_job(deployment, tiny, client) -> None:
    flood(deployment, client, 2000)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_very_many_mutated_messages_do_neither(deployment, tiny, client) -> None:
    flood(deployment, client, MANY)


@pytest.mark.slow
def test_a_doorbell_with_a_time_limit_costs_no_attempt(deployment, tiny, client) -> None:
    job = deployment.generate(50, params={"micro_batch": 1})
    with deployment.services.database.read() as session:
        (shard,) = jobs.shards_of(session, job.id)
    client.delete(KEY)
    client.lpush(KEY, hostile(shard.id))
    with deployment.held():
        process = deployment.worker()
        deployment.wait(
            "samples", lambda: deployment.progress(job.id).get("done", 0) > 0, dispatch=False
        )
    deployment.succeed(job.id)
    assert outcomes(deployment, job.id) == ["succeeded"]
    assert process.poll() is None


def poison(client):
    """Put what is of another type in place of each key that kombu knows."""
    for name in ("unacked", "unacked_index", "unacked_mutex", "_kombu.binding.genmill"):
        client.set(f"{KEY_PREFIX}{name}", "x")
    client.delete(KEY)
    client.set(KEY, "x")


@pytest.mark.slow
def test_keys_of_another_type_stop_neither_ringing_nor_working(deployment, tiny, client) -> None:
    poison(client)
    first = deployment.generate(2)
    poison(client)
    process = deployment.worker()
    deployment.succeed(first.id)
    poison(client)
    deployment.succeed(deployment.generate(2, seed=1).id)
    assert process.poll() is None


@pytest.mark.slow
def test_a_full_broker_delays_and_ends_nothing(deployment, tiny, client) -> None:
    process = deployment.worker()
    deployment.succeed(deployment.generate(2).id)
    client.config_set("maxmemory", 1)
    try:
        waiting = deployment.generate(2, seed=1)
        for _ in range(5):
            deployment.wait("a round", lambda: True)
    finally:
        client.config_set("maxmemory", 0)
    deployment.succeed(waiting.id)
    assert process.poll() is None
    assert "connects to the broker again" not in deployment.logs()

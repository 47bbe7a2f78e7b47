"""What a worker learns of its own speed, and what it records for those who cut jobs."""

import pytest
import torch

from db import rates
from db.shards import Claim
from tests.shards import add_job
from worker.services import Services
from worker.settings import Settings
from worker.shards.claiming import LEAST_TOGETHER, MAX_TOGETHER, Claimer, fair_share
from worker.shards.context import WorkerContext
from worker.shared_memory import SharedState

KEY = 42


@pytest.fixture
def context(tmp_path, database_url):
    services = Services(Settings(_env_file=None, home=tmp_path, database_url=database_url))
    yield WorkerContext(services, torch.device("cpu"))
    services.close()


def claim(samples, key=KEY):
    return Claim(
        "s", "j", 1, "boot", 0, 0, samples, kind="generate", alone=False, work_key=key, group_id="j"
    )


def recorded(context):
    with context.services.database.read() as session:
        return rates.of(session, KEY)


def test_work_that_took_long_enough_is_recorded(context) -> None:
    claimer = Claimer(context, "boot", SharedState())
    claimer.learn([claim(300), claim(100)], 4.0)
    assert (context.rates[KEY], recorded(context)) == (100, 100)


def test_a_rate_is_recorded_once_a_minute_however_many_shards_end(context) -> None:
    for owner in ("boot", "boot"):  # a claimer a doorbell
        claimer = Claimer(context, owner, SharedState())
        claimer.learn([claim(200)], 2.0)
        claimer.learn([claim(400)], 2.0)
    assert (context.rates[KEY], recorded(context)) == (200, 100)


@pytest.mark.parametrize(("key", "elapsed_s"), [(None, 9.0), (KEY, 0.1)])
def test_training_and_short_work_tell_nothing(context, key, elapsed_s) -> None:
    Claimer(context, "boot", SharedState()).learn([claim(200, key)], elapsed_s)
    assert recorded(context) is None


def test_short_work_of_few_samples_does_not_make_the_worker_look_slow(context) -> None:
    claimer = Claimer(context, "boot", SharedState())
    claimer.learn([claim(300)], 0.5)
    claimer.learn([claim(1)], 0.1)
    assert context.rates[KEY] == 600
    claimer.learn([claim(10)], 2.0)  # but this was slow
    assert context.rates[KEY] == 5


def test_less_than_a_forward_pass_tells_nothing(context, monkeypatch) -> None:
    """As when one sample is made again: the pass is padded, and most of the time is overhead."""
    monkeypatch.setattr(context, "rows_of", {KEY: 64}.get)
    claimer = Claimer(context, "boot", SharedState())
    claimer.learn([claim(1)], 3.0)
    assert (context.rates, recorded(context)) == ({}, None)
    claimer.learn([claim(40), claim(24)], 2.0)
    assert (context.rates[KEY], recorded(context)) == (32, 32)


@pytest.mark.parametrize(
    ("sizes", "live", "share"),
    [([1] * 300, 2, 150), ([1] * 300, 8, LEAST_TOGETHER), ([3] * 301, 2, 452), ([], 4, 64)],
)
def test_the_last_shards_are_shared_by_the_live_workers(context, sizes, live, share) -> None:
    if sizes:
        add_job(context.services, sizes=sizes)
    with context.services.database.read() as session:
        assert fair_share(session, live) == share


def test_while_there_is_more_than_enough_nobody_holds_back(context) -> None:
    add_job(context.services, count=MAX_TOGETHER * 2)
    with context.services.database.read() as session:
        assert fair_share(session, 2) == MAX_TOGETHER
        assert fair_share(session, 4) == MAX_TOGETHER // 2

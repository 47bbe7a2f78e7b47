"""What a worker learns of its own speed, and what it records for those who cut jobs."""

import pytest
import torch

from db import rates
from db.shards import Claim
from worker.services import Services
from worker.settings import Settings
from worker.shards.claiming import Claimer
from worker.shards.context import WorkerContext
from worker.shared_memory import SharedState

KEY = 42


@pytest.fixture
def context(tmp_path, database_url):
    services = Services(Settings(_env_file=None, home=tmp_path, database_url=database_url))
    yield WorkerContext(services, torch.device("cpu"))
    services.close()


def claim(samples, key=KEY):
    return Claim("s", "j", 1, "boot", 0, 0, samples, kind="generate", alone=False, work_key=key)


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

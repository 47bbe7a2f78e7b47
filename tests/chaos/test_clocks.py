"""Clocks that are a day off: no decision reads a worker's, and the database's need not be right."""

import os
import signal
from pathlib import Path

import pytest

from tests.chaos.trial import LEASE_BOUND_S, ONE_BY_ONE
from tests.integration.conftest import PATIENCE_S
from tests.servers import create_database, own_postgresql

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
DAY_S = 86_400
FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib", "/usr/local/lib")
LIBRARIES = (
    os.environ.get("FAKETIME_LIBRARY", ""),
    *(f"{folder}/faketime/libfaketime.so.1" for folder in FOLDERS),
)


@pytest.fixture
def faketime() -> str:
    """The path of libfaketime; the test is skipped without it."""
    found = next((path for path in LIBRARIES if path and Path(path).exists()), None)
    if found is None:
        pytest.skip("libfaketime is not installed (or set FAKETIME_LIBRARY)")
    return found


def shifted(library: str, offset: str) -> dict[str, str]:
    """The environment of a process whose wall clock is off; its monotonic clock is not."""
    return {"LD_PRELOAD": library, "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest.mark.parametrize("offset_s", [DAY_S, -DAY_S], ids=["ahead", "behind"])
def test_python_clocks_a_day_off_make_no_duplicates(trial, places, monkeypatch, offset_s) -> None:
    made = trial("a worker's clock a day off", places, bound_s=LEASE_BOUND_S)
    right = made.worker()
    monkeypatch.setenv("CHAOS_SKEW_S", str(offset_s))
    job = made.generate(60, shard_size=20, params=ONE_BY_ONE)
    with made.held():
        wrong = made.worker(path=ROOT / "tests/chaos/skewed")
        made.wait("both at work", lambda: len(made.outcomes(job)) >= 2)
        made.inject()
        os.killpg(right.pid, signal.SIGKILL)
    made.recover()
    assert wrong.poll() is None
    assert made.outcomes(job).count("succeeded") == 3


@pytest.mark.parametrize("offset", ["+1d", "-1d"])
def test_every_clock_of_a_worker_may_be_a_day_off(
    trial, postgresql_database_url, s3, faketime, monkeypatch, offset
) -> None:
    """On PostgreSQL alone: on SQLite a worker's clock is the database's."""
    places = {"database_url": postgresql_database_url, "store_url": s3.url}
    places["s3_endpoint_url"] = s3.endpoint_url
    made = trial("every clock of a worker a day off", places, bound_s=LEASE_BOUND_S)
    made.worker()
    for name, value in shifted(faketime, offset).items():
        monkeypatch.setenv(name, value)
    wrong = made.worker()
    for name in shifted(faketime, offset):
        monkeypatch.delenv(name)
    for seed in range(6):
        made.generate(30, seed=seed, shard_size=10, params=ONE_BY_ONE)
    made.inject()
    made.recover()
    assert wrong.poll() is None


def test_the_clock_of_the_database_may_be_a_day_ahead(trial, tmp_path, faketime) -> None:
    with own_postgresql() as server:
        server.stop()
        server.environment = shifted(faketime, "+1d")
        server.start()
        url = create_database(server.url)
        places = {"database_url": url, "store_url": (tmp_path / "store").as_uri()}
        made = trial("the database's clock a day ahead", places, bound_s=LEASE_BOUND_S)
        job = made.generate(60, params=ONE_BY_ONE)
        with made.held():
            victim = made.start(job)
            made.inject()
            os.killpg(victim.pid, signal.SIGKILL)
        victim.wait(timeout=PATIENCE_S)
        made.worker()
        made.recover()
        assert made.outcomes(job) == ["lost", "succeeded"]
        made.stop()

"""A worker is known to be dead once the kernel says so, and by nothing else."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from db import jobs, shards, workers
from db.errors import Unreachable
from db.tables import Shard
from tests.attempts import attempts_at
from worker.services import Services, dead_workers
from worker.services.dead_workers import reap_dead_workers
from worker.settings import Settings

ROOT = Path(__file__).parents[4]
BOOT = "01a203d4-cc8f-7501-9719-6017283c9be0"
OTHER = "01a203d4-cc8f-7501-9719-6017283c9be1"

PROGRAM = """
import sys, time
from pathlib import Path
from worker.services.dead_workers import end_life, show_life
show_life(Path(sys.argv[1]), sys.argv[2])
print("alive", flush=True)
sys.stdin.read()
end_life(Path(sys.argv[1]), sys.argv[2])
"""


@pytest.fixture
def services(tmp_path, database_url):
    opened = Services(
        Settings(_env_file=None, home=tmp_path / "home", database_url=database_url, max_claims=2)
    )
    yield opened
    opened.close()


@pytest.fixture
def worker(services):
    """A process that shows that the boot `BOOT` is alive."""
    command = [sys.executable, "-c", PROGRAM, services.settings.home, BOOT]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"alive\n"
    yield process
    process.kill()
    process.communicate()


def add_shard(services):
    return services.database.transact(
        lambda session: (
            jobs.shards_of(
                session,
                jobs.add(
                    session, spec={}, spec_hash="0" * 64, kind="train", model="m", ranges=[(0, 1)]
                ).id,
            )[0].id
        )
    )


def claim(services, shard_id, owner=BOOT):
    services.database.transact(
        lambda session: workers.start(session, boot_id=owner, host="h", pid=1, device="cpu")
    )
    return services.database.transact(
        lambda session: shards.claim(session, shard_id, owner=owner, lease_s=600)
    )


def shard(services, shard_id):
    with services.database.read() as session:
        return session.get(Shard, shard_id)


def outcomes(services, shard_id):
    with services.database.read() as session:
        return [row["outcome"] for row in attempts_at(session, shard_id)]


def kill(process):
    process.kill()
    process.wait()


def test_the_shards_of_a_dead_worker_are_given_back_as_lost(services, worker) -> None:
    first, second = add_shard(services), add_shard(services)
    claim(services, first)
    claim(services, second, owner=OTHER)
    kill(worker)
    assert reap_dead_workers(services) == 1
    given = shard(services, first)
    assert (given.status, given.claims, given.failures, given.releases) == ("queued", 1, 0, 0)
    assert outcomes(services, first) == ["lost"]
    assert shard(services, second).status == "running"
    with services.database.read() as session:
        assert [each.boot_id for each in workers.live(session)] == [OTHER]
    assert reap_dead_workers(services) == 0


@pytest.mark.parametrize("frozen", [False, True])
def test_a_worker_that_lives_keeps_its_shards_even_if_it_is_frozen(
    services, worker, frozen
) -> None:
    held = add_shard(services)
    claim(services, held)
    if frozen:
        os.kill(worker.pid, signal.SIGSTOP)
    assert reap_dead_workers(services) == 0
    assert shard(services, held).status == "running"


def test_a_worker_that_ended_in_order_is_not_taken_for_dead(services, worker, caplog) -> None:
    worker.communicate()
    assert reap_dead_workers(services) == 0
    assert "died" not in caplog.text


def test_a_lost_claim_counts_towards_the_limit(services, worker) -> None:
    lost = add_shard(services)
    claim(services, lost)
    services.database.transact(lambda session: shards.reap_worker(session, BOOT))
    claim(services, lost)
    kill(worker)
    reap_dead_workers(services)
    assert shard(services, lost).status == "failed"


def test_what_belongs_to_another_machine_is_not_judged(services, worker, monkeypatch) -> None:
    held = add_shard(services)
    claim(services, held)
    kill(worker)
    monkeypatch.setattr(dead_workers, "_machine", lambda: "another boot")
    assert reap_dead_workers(services) == 0
    assert shard(services, held).status == "running"


def test_a_database_that_is_away_leaves_it_to_the_next_time(services, worker, monkeypatch) -> None:
    held = add_shard(services)
    claim(services, held)
    kill(worker)
    with monkeypatch.context() as patch:

        def away(*_):
            raise Unreachable("away")

        patch.setattr(services.database, "transact", away)
        assert reap_dead_workers(services) == 0
    assert reap_dead_workers(services) == 1


def test_other_files_are_left_alone(services) -> None:
    folder = services.settings.home / "run" / "workers"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / OTHER).symlink_to(folder / "notes.txt")
    assert reap_dead_workers(services) == 0
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_home_that_cannot_be_written_only_costs_the_quick_recovery(tmp_path, caplog) -> None:
    (tmp_path / "run").touch()
    dead_workers.show_life(tmp_path, BOOT)
    assert "its leases must run out" in caplog.text


def test_nobody_takes_a_worker_that_just_starts_for_dead(services) -> None:
    """Its file has its name only once it is locked."""
    command = [sys.executable, "-c", PROGRAM, services.settings.home, BOOT]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        held = add_shard(services)
        claim(services, held)
        end = time.monotonic() + 30
        file = services.settings.home / "run" / "workers" / BOOT
        while not file.exists() and time.monotonic() < end:
            assert reap_dead_workers(services) == 0
        assert reap_dead_workers(services) == 0
        assert shard(services, held).status == "running"
    finally:
        process.kill()
        process.communicate()

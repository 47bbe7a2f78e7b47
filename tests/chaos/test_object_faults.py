"""The store is full, slow, refusing, or answers with errors and with wrong or half of the bytes."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from db import workers
from db.states import FINAL
from tests.chaos.scenarios import start
from tests.chaos.trial import AWAY_S, ONE_BY_ONE, RING_BOUND_S, START_S, Trial
from tests.faulty_s3 import FaultyS3, faulty_s3
from tests.integration.conftest import PATIENCE_S
from tests.integration.test_faults import running
from worker.services import Services
from worker.settings import Settings
from worker.store import s3 as stores

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

FAULT_S = 4.0  # of a fault that lasts
LONGEST_PAUSE_S = 60.0  # before another try
BACKOFF_S = 8.0  # the pause after a third release
DISK = 8 << 20
PIECE = 5 << 20  # the least part of a multipart upload
# when every upload in parts has begun, says moto
MOTO_BEGAN_S = datetime(2010, 11, 10, 20, 48, 33, tzinfo=UTC).timestamp()


@contextmanager
def small_disk(folder: Path, size: int = DISK) -> Iterator[Path]:
    """A file system of its own at `folder`; the test is skipped if this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user may not mount a small disk: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """The disk of `folder` has no byte left within the block."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    yield
    filler.unlink()


@pytest.fixture
def s3_proxy(s3) -> Iterator[FaultyS3]:
    with faulty_s3(s3.endpoint_url) as server:
        yield server


@pytest.fixture
def remote(s3, s3_proxy, postgresql_database_url) -> dict[str, object]:
    """Settings of PostgreSQL, and of S3 by way of what fails."""
    places = {"store_url": s3.url, "s3_endpoint_url": s3_proxy.url}
    return {"database_url": SecretStr(postgresql_database_url), **places}


def nothing_counted(made: Trial) -> None:
    assert [made.counted(job) for job in made.everything()] == [0] * len(made.mine)


def is_live(made: Trial) -> bool:
    with made.services.database.read() as session:
        return bool(workers.live(session, within_s=60))


@pytest.mark.parametrize("which", ["the store's", "the home's"])
def test_a_full_disk_pauses_jobs_which_resume(trial, sqlite_url, tmp_path, which) -> None:
    with small_disk(tmp_path / "disk") as disk:
        store = disk if which == "the store's" else tmp_path / "store"
        places = {"database_url": sqlite_url, "store_url": store.as_uri()}
        home = disk / "home" if which == "the home's" else tmp_path / "home"
        home.mkdir()
        made = trial(f"{which} disk full", places, home=home, bound_s=RING_BOUND_S + BACKOFF_S)
        worker = made.worker()
        # one whose model is not in the cache yet needs room for it
        made.wait("a live worker", lambda: is_live(made))
        with filled(disk):
            job = made.generate(200, seed=1)
            made.wait("a release", lambda: "released" in made.outcomes(job))
            assert made.job(job.id).status in {"queued", "running"}
        made.inject()
        made.recover()
        assert worker.poll() is None
        nothing_counted(made)
        made.stop()


@pytest.mark.parametrize("fault", [500, 503, "reset", "slow", 403, "cut"], ids=str)
def test_an_s3_server_that_fails_for_a_while_counts_nothing(trial, remote, s3_proxy, fault) -> None:
    made = trial(f"S3: {fault}", remote, bound_s=RING_BOUND_S + BACKOFF_S)
    worker = made.worker()
    if fault != "cut":  # or everything that is read would be in the cache
        made.generate(2)
        made.recover()
    s3_proxy.slow_s = 2.0
    s3_proxy.always["GET" if fault == "cut" else "*"] = fault
    before, ends = s3_proxy.injected, time.monotonic() + FAULT_S
    jobs = [made.generate(30, seed=seed + 1, params=ONE_BY_ONE) for seed in range(3)]
    made.wait(
        "the time of the fault",
        lambda: (
            time.monotonic() > ends
            and (s3_proxy.injected > before or all(made.job(j.id).status in FINAL for j in jobs))
        ),
    )
    if fault == 403:
        made.wait("a pause", lambda: any("released" in made.outcomes(job) for job in jobs))
        assert "access refused" in made.logs()
    s3_proxy.always.clear()
    made.inject(s3_proxy.injected - before)
    made.recover()
    assert worker.poll() is None
    nothing_counted(made)


@pytest.mark.timeout(300 + 2 * AWAY_S)
@pytest.mark.parametrize("fault", [503, 403], ids=str)
def test_an_s3_server_that_refuses_for_minutes_counts_nothing(
    trial, remote, s3_proxy, fault
) -> None:
    bound_s = RING_BOUND_S + LONGEST_PAUSE_S
    made = trial(f"S3: {fault} for {AWAY_S:g} s", remote, bound_s=bound_s)
    worker = made.worker()
    made.generate(2)
    made.recover()
    s3_proxy.always["*"] = fault
    before, ends = s3_proxy.injected, time.monotonic() + AWAY_S
    jobs = [made.generate(30, seed=seed + 1, params=ONE_BY_ONE) for seed in range(3)]
    made.wait("the end of the time", lambda: time.monotonic() > ends)
    assert all(made.job(job.id).status in {"queued", "running"} for job in jobs)
    s3_proxy.always.clear()
    made.inject(s3_proxy.injected - before)
    made.recover()
    assert worker.poll() is None
    nothing_counted(made)


def test_truncated_reads_are_read_on(trial, remote, s3_proxy) -> None:
    made = trial("S3: reads truncated", remote, bound_s=START_S + BACKOFF_S)
    s3_proxy.faults.extend([("GET", "cut")] * 4)
    made.generate(4)
    made.worker()
    made.inject(4)
    made.recover()
    assert not s3_proxy.faults
    nothing_counted(made)


def test_bytes_with_a_wrong_digest_are_never_used(trial, remote, s3_proxy) -> None:
    made = trial("S3: a wrong byte", remote, bound_s=START_S)
    right = made.generate(4)
    made.worker()
    made.recover()
    s3_proxy.always["GET"] = "flipped"
    wrong = made.generate(4)
    fresh = made.settings.home / "elsewhere"  # nothing is cached there
    fresh.mkdir()
    for process in made.processes:
        os.killpg(process.pid, signal.SIGKILL)
    made.worker(home=fresh)
    made.wait("a wrong byte", lambda: made.outcomes(wrong) not in ([], [None]))
    made.inject()
    s3_proxy.always.clear()
    if made.job(wrong.id).status == "failed":  # said, not used
        assert "SHA-256" in str(made.job(wrong.id).error)
    made.recover(ends=FINAL)
    if made.job(wrong.id).status == "succeeded":
        assert made.digests(wrong.id) == made.digests(right.id)


def test_an_upload_in_parts_that_is_cut_is_aborted(trial, remote, s3_proxy, tmp_path) -> None:
    made = trial("a multipart upload cut", remote, bound_s=START_S)
    (tmp_path / "large").write_bytes(os.urandom(3 * PIECE))
    s3_proxy.slow_s = 2.0
    process = start(upload, made.settings, "", os.environ)
    store = made.services.store
    made.until("the first parts", lambda: uploads(store))
    s3_proxy.always["PUT"] = "slow"
    os.killpg(process.pid, signal.SIGKILL)
    process.join(PATIENCE_S)
    made.inject()
    s3_proxy.always.clear()
    assert uploads(store) == 1
    aged_s = time.time() - MOTO_BEGAN_S
    assert store.abort_uploads("jobs/cut", older_than_s=aged_s + 86_400) == 0  # it may still go on
    assert store.abort_uploads("jobs/cut", older_than_s=aged_s - 86_400) == 1
    made.row.recovered()
    assert uploads(store) == 0
    assert list(store.keys("jobs/cut")) == []


def upload(settings: Settings) -> int:
    """Upload a large file in parts, slowly."""
    stores.MULTIPART_BYTES = stores.PART_BYTES = PIECE
    stores.UPLOAD_THREADS = 1
    store = Services(settings).store
    while True:
        store.put("jobs/cut", settings.home / "large")
        store.delete(next(store.keys("jobs/cut")))


def uploads(store: stores.S3Store) -> int:
    found = store.client.list_multipart_uploads(Bucket=store.bucket)
    return len(found.get("Uploads", []))


def test_work_under_way_goes_on_while_the_store_is_away(trial, remote, s3_proxy) -> None:
    made = trial("S3 away under a worker", remote, bound_s=RING_BOUND_S + BACKOFF_S)
    job = made.generate(50, params=ONE_BY_ONE)
    with made.held():
        worker = made.worker()
        made.wait("samples", lambda: running(made, job))
        s3_proxy.always["*"] = 503
    made.wait("requests that failed", lambda: s3_proxy.injected > 3)
    s3_proxy.always.clear()
    made.inject(s3_proxy.injected)
    made.recover()
    assert worker.poll() is None
    nothing_counted(made)

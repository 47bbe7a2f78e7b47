"""Jobs that lead every part of the system past its failpoints, each part in a quick process.

A worker is a child with a parent of its own, as it is under Celery.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess

import torch
from celery.exceptions import Reject
from sqlalchemy import select

from db import jobs, schedules, shards
from db.session import clock
from db.states import FINAL
from db.tables import Shard, Worker
from scheduler.dispatch import loop, rounds
from scheduler.dispatch.garbage import collect_jobs
from scheduler.publishing.manage import add_target
from scheduler.schedules.manage import add_schedule
from scheduler.submission import batches
from tests.chaos.trial import Trial
from tests.forked import Part, changed, command, fork, guarded, run_words
from tests.integration.conftest import TINY
from worker.process.child import Child
from worker.services import Services
from worker.settings import Settings
from worker.shards import attempt, lease, reports, train
from worker.shared_memory import SharedState
from worker.specs import parse_spec

QUIET_S = 1.2  # how long a scheduler runs
GENERATE = ["enqueue", "generate", "tiny", "--count", "3", "--seed", "1"]


def worker(settings: Settings) -> int:
    """A worker: a parent, and a child that answers doorbells until nothing is due."""
    child = os.fork()
    if child == 0:
        os._exit(guarded(_answer, settings))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def trainer(settings: Settings) -> int:
    """A worker that writes a checkpoint after each step."""
    train.Training = partial(train.Training, checkpoint_every_s=0.0)
    return worker(settings)


def scheduler(settings: Settings) -> int:
    """A scheduler that collects the garbage of jobs at once, for a while."""
    rounds.collect_jobs = partial(collect_jobs, older_than_s=-1)
    stop = threading.Event()
    threading.Timer(QUIET_S, stop.set).start()
    loop.run_scheduler(settings, stop)
    return 0


def start(
    part: Part, settings: Settings, failpoint: str, environment: Mapping[str, str]
) -> BaseProcess:
    """Start a part that does not wait long before another try; its output is `part.out`, `.log`."""
    given = changed(settings, failpoint=failpoint)
    return fork(partial(_hurried, part), given, environment, settings.home / "part.log")


def _hurried(part: Part, settings: Settings) -> int:
    hurry()
    return part(settings)


def hurry() -> None:
    """Shorten the pauses before another try, in this process."""
    reports.MAX_BACKOFF_S = 0.2
    lease.FAILURE_BACKOFF_S = 0.1
    attempt.COMMIT_EVERY_S = 0.1
    batches.ABANDONED_S = 1.0


def _answer(settings: Settings) -> int:
    calm = Services(changed(settings, failpoint=""))
    child = Child(settings, SharedState())
    child.begin()
    parent = os.getppid()
    while not _is_present(calm, child.boot_id):
        if os.getppid() != parent:
            return os.EX_UNAVAILABLE  # killed meanwhile
        time.sleep(0.01)
    with contextlib.suppress(Reject):
        child.work(due_shard(calm))
    child.end()
    return 0


def _is_present(services: Services, boot_id: str) -> bool:
    with services.database.read() as session:
        return session.get(Worker, boot_id) is not None


def due_shard(services: Services) -> str | None:
    """The id of a shard that waits."""
    with services.database.read() as session:
        return session.scalar(select(Shard.id).where(Shard.status == "queued").limit(1))


@dataclass(frozen=True)
class Scenario:
    """A part, the jobs that lead it past `points`, and failpoints that lead it there."""

    name: str
    points: tuple[str, ...]
    part: Part
    prepare: Callable[[Trial], None] = lambda _: None
    also: str = ""
    repeated: bool = False  # a command that a user gives again

    def __str__(self) -> str:
        return self.name


def _two_shards(trial: Trial) -> None:
    trial.generate(12, shard_size=6, params={"micro_batch": 2})


def _held(trial: Trial) -> None:
    _two_shards(trial)
    (trial.settings.home / "hold").touch()


def _training(trial: Trial) -> None:
    trial.digits().train(max_steps=3)


def _due_schedule(trial: Trial) -> None:
    services = trial.services
    add_schedule(services, "nightly", cron="@yearly", command=GENERATE)  # due once, below

    def make_due(session):
        schedule = schedules.get(session, "nightly")
        schedules.set_next_due(session, schedule.id, clock(session))

    services.database.transact(make_due)


def _expired_lease(trial: Trial) -> None:
    job = trial.generate(4)

    def claim(session):
        [shard] = jobs.shards_of(session, job.id)
        shards.claim(session, shard.id, owner="a worker that died", lease_s=0.01)

    trial.services.database.transact(claim)


def _chain(trial: Trial) -> None:
    """The first job of a chain has succeeded, and the second waits to be moved on."""
    train = {"kind": "train", "family": "vae", "model": "line", "dataset": "digits"}
    tune = {"kind": "finetune", "model": "line", "dataset": "digits", "max_steps": 1}
    trial.digits()
    first = trial.enqueue(
        {**train, "max_steps": 2, "params": TINY, "seed": 0}, then=[parse_spec(tune)]
    )
    work_through(trial, lambda: trial.job(first.id).status in FINAL, dispatch=False)


def _garbage(trial: Trial) -> None:
    job = trial.generate(2)
    work_through(trial, lambda: trial.job(job.id).status in FINAL)
    trial.services.store.put_bytes(f"jobs/{job.id}/blobs", b"of an attempt that was lost")


def _finished(trial: Trial) -> None:
    job = trial.generate(100)
    work_through(trial, lambda: trial.job(job.id).status in FINAL)
    (trial.settings.home / "last").write_text(job.id)


def _publication(trial: Trial) -> None:
    """Samples that are to be published in a folder."""
    job = trial.generate(6)
    work_through(trial, lambda: trial.job(job.id).status in FINAL)
    folder = trial.settings.home / "shelf"
    folder.mkdir()
    add_target(trial.services, "shelf", "folder", str(folder), settings=["concurrency=2"])
    trial.enqueue({"kind": "publish", "job": job.id, "target": "shelf"})


def _published(trial: Trial) -> None:
    """Samples that are published, and are to be taken down."""
    _publication(trial)
    work_through(trial, lambda: all(trial.job(each).status in FINAL for each in trial.mine))
    spec = {"kind": "publish", "job": trial.mine[0], "target": "shelf", "take_down": True}
    trial.enqueue(spec)


def _lines(trial: Trial) -> None:
    line = {"kind": "generate", "model": "tiny", "count": 1}
    lines = [json.dumps(line | {"seed": seed}) for seed in range(5)]
    (trial.settings.home / "lines.jsonl").write_text("\n".join(lines))


def _texts(trial: Trial) -> None:
    (trial.settings.home / "texts.txt").write_text("The cat sees the mat. " * 40)


def _download(settings: Settings) -> int:
    """A download, into a folder of its own each time: one that is frozen holds its folder."""
    job_id = (settings.home / "last").read_text()
    folder = "copy" if settings.failpoint else "copy-again"
    return run_words(("artifact", "download", job_id, "--output", folder), settings)


def _up(settings: Settings) -> int:
    """A machine of its own, with the embedded broker."""
    own = changed(settings, redis_url=None)
    return run_words(("up", "--workers", "1"), own)


def work_through(trial: Trial, done: Callable[[], object], *, dispatch: bool = True) -> None:
    """Work in this process, and dispatch, until `done`."""
    hurry()
    torch.set_num_threads(trial.settings.threads)  # sums depend on it
    home = trial.settings.home / "elsewhere"  # another machine's: it shares no locks
    home.mkdir(exist_ok=True)
    key = trial.settings.master_key  # which all machines share
    services = trial.changed(failpoint="", home=home, key_file=key)
    context = attempt.WorkerContext(services, torch.device("cpu"))
    try:
        while not done():
            if dispatch:
                rounds.run_round(trial.services)
            if (shard_id := due_shard(services)) is not None:
                attempt.work(context, shard_id, owner=f"calm-{os.getpid()}", shared=SharedState())
    finally:
        services.close()


OF_ANY = ("record_write", "record_written")
OF_STORE = ("store_write", "store_written")
SCENARIOS = (
    Scenario(
        "generating",
        (
            *("booting", "received", "claimed", "step", "put_after", "flushed", "committed"),
            *("settled", "manifest_stored", "finalized", "store_read", *OF_ANY, *OF_STORE),
        ),
        worker,
        _two_shards,
    ),
    Scenario("beating", ("beat",), worker, _held, also="hold"),
    Scenario("reporting", ("reporting",), worker, _two_shards, also="claimed:unreachable:1"),
    Scenario(
        "training",
        ("step", "checkpoint_stored", "put_after", "committed", *OF_ANY, *OF_STORE),
        trainer,
        _training,
    ),
    Scenario(
        "publishing",
        (
            *("publication_begun", "publication_put", "publication_fetched"),
            *("publication_recorded", "publication_finished", "put_after", "committed"),
            *("finalized", *OF_ANY),
        ),
        worker,
        _publication,
    ),
    Scenario(
        "taking down",
        ("publication_removed", "publication_finished", "committed", *OF_ANY),
        worker,
        _published,
    ),
    Scenario("firing", ("schedule_prepared", *OF_ANY), scheduler, _due_schedule),
    Scenario("reaping", ("reaped", "dispatched", "rung", *OF_ANY), scheduler, _expired_lease),
    Scenario("chaining", ("chain_pinned", "chain_released", *OF_ANY), scheduler, _chain),
    Scenario(
        "collecting", ("store_delete", "store_deleted", "collected", *OF_ANY), scheduler, _garbage
    ),
    Scenario(
        "enqueueing",
        ("enqueued", "dispatched", "rung", *OF_ANY),
        command(*GENERATE, "--idempotency-key", "once"),
        repeated=True,
    ),
    Scenario(
        "a batch",
        ("batch_piece", "enqueued", *OF_ANY),
        command("enqueue", "batch", "lines.jsonl", "--idempotency-key", "once"),
        _lines,
        repeated=True,
    ),
    Scenario(
        "adding data",
        ("dataset_stored", *OF_ANY, *OF_STORE),
        command("dataset", "add", "words", "texts.txt"),
        _texts,
        repeated=True,
    ),
    Scenario(
        "importing",
        ("model_stored", *OF_ANY, *OF_STORE),
        command("model", "import", "tiny", "--name", "copied"),
        repeated=True,
    ),
    Scenario("downloading", ("part_fetched", "store_read"), _download, _finished, repeated=True),
    Scenario("starting", ("broker_started", "child_started"), _up),
)
NAMED = {scenario.name: scenario for scenario in SCENARIOS}

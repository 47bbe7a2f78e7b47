"""A whole deployment: database, store and broker of the kinds under test, and real workers.

`GENMILL_TEST_DATABASE=postgresql` puts the record on PostgreSQL and the objects on S3 over HTTP.
"""

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import redis
import torch
from sqlalchemy import text
from sqlalchemy.orm import Session

from db import jobs, models, progress, schema
from db.session import Database
from db.states import FINAL
from db.tables import Batch, Job
from scheduler.datasets.add import add_dataset
from scheduler.dispatch.rounds import run_round
from scheduler.submission.batches import enqueue_batch
from scheduler.submission.enqueue import enqueue, retry
from tests.forked import Forked, changed, command, fork
from worker.data.dataset import Shape
from worker.engine.weights import save
from worker.failpoints import HOLD
from worker.families import find_family
from worker.services import Services
from worker.services.samples import entries
from worker.settings import Settings
from worker.specs import parse_spec

Process = subprocess.Popen[bytes] | Forked

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0

TINY = {"channels": 4, "hidden": 8, "latent": 2, "batch_size": 16}


class Deployment:
    """The services of a test, and the worker processes that it starts and signals."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.services = Services(settings)
        self.processes: list[Process] = []

    def worker(self, *, path: Path | None = None, **settings: object) -> Process:
        """Start `genmill worker` as the leader of its own session.

        Forked, which takes no time, unless modules in `path` come before all others, or its clock
        is another.
        """
        log = self.settings.home / f"worker-{len(self.processes)}.log"
        process: Process
        if path is None and "LD_PRELOAD" not in os.environ:
            given = changed(self.settings, **settings)
            process = Forked(fork(command("worker"), given, os.environ, log))
        else:
            found = os.pathsep.join(str(each) for each in (path, ROOT) if each)
            environment = self.settings.child_environment(**settings) | {"PYTHONPATH": found}
            with log.open("ab") as file:
                process = subprocess.Popen(
                    [sys.executable, "-m", "scheduler", "worker"],
                    env=environment,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    cwd=self.settings.home,
                    start_new_session=True,
                )
        self.processes.append(process)
        return process

    def logs(self) -> str:
        """What the workers have logged."""
        return "\n".join(p.read_text() for p in sorted(self.settings.home.glob("worker-*.log")))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the workers at their first sample or step, unless they are told to stop."""
        file = self.settings.home / HOLD
        file.touch()
        try:
            yield
        finally:
            file.unlink()

    def wait(self, what: str, done: Callable[[], object], *, dispatch: bool = True) -> None:
        """Dispatch, as a scheduler would, until `done`; fail after `PATIENCE_S`, naming `what`."""
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not in {PATIENCE_S:g} s\n{self.logs()}")
            if dispatch:
                run_round(self.services)
            time.sleep(0.1)

    def finish(self, *job_ids: str) -> list[Job]:
        """Wait until all the jobs are final; return them."""
        self.wait("final jobs", lambda: all(self.job(i).status in FINAL for i in job_ids))
        return [self.job(job_id) for job_id in job_ids]

    def succeed(self, *job_ids: str) -> list[Job]:
        """Wait until all the jobs are final; fail unless all succeeded."""
        finished = self.finish(*job_ids)
        assert [(job.status, job.error) for job in finished] == [("succeeded", None)] * len(
            job_ids
        ), self.logs()
        return finished

    def job(self, job_id: str) -> Job:
        with self.services.database.read() as session:
            return jobs.get(session, job_id)

    def progress(self, job_id: str) -> dict[str, object]:
        with self.services.database.read() as session:
            return progress.of(session, [jobs.get(session, job_id)])[job_id]

    def digests(self, job_id: str) -> list[str]:
        return [entry.sha256 for entry in entries(self.services, job_id)]

    def enqueue(self, spec: dict[str, object], **how: object) -> Job:
        return enqueue(self.services, parse_spec(spec), **how)

    def enqueue_batch(self, lines: list[str]) -> Batch:
        return enqueue_batch(self.services, lines)

    def retry(self, job_id: str) -> Job:
        return retry(self.services, self.job(job_id))

    def generate(self, count: int, **words: object) -> Job:
        """Enqueue `count` samples of the model `tiny`."""
        how = {key: words.pop(key) for key in ("shard_size", "priority") if key in words}
        spec = {"kind": "generate", "model": "tiny", "count": count, "seed": 0, **words}
        return self.enqueue(spec, **how)

    def train(self, **spec: object) -> Job:
        """Enqueue training of the model `small`."""
        data = {"kind": "train", "family": "vae", "model": "small", "dataset": "digits", "seed": 0}
        return self.enqueue({**data, "max_steps": 4, "params": TINY, **spec})

    def stop(self) -> None:
        for process in self.processes:
            # one that was forked may end, and be reaped by the server of forks, at any moment
            with suppress(ProcessLookupError):
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.services.close()


@pytest.fixture
def deployment(
    tmp_path: Path, database_url: str, broker_url: str, request: pytest.FixtureRequest
) -> Iterator[Deployment]:
    """A deployment for one test, without workers and data yet."""
    places = {"store_url": (tmp_path / "store").as_uri()}
    if os.environ.get("GENMILL_TEST_DATABASE") == "postgresql":
        s3 = request.getfixturevalue("s3")
        places = {"store_url": s3.url, "s3_endpoint_url": s3.endpoint_url}
    made = Deployment(quick_settings(tmp_path, database_url, broker_url, **places))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def shared_deployment(
    tmp_path_factory: pytest.TempPathFactory, broker_server: str, request: pytest.FixtureRequest
) -> Iterator[Deployment]:
    """A deployment for a file whose tests break nothing, with a worker, digits and `tiny`."""
    home = tmp_path_factory.mktemp("deployment")
    url = f"sqlite:///{home / 'genmill.db'}"
    if os.environ.get("GENMILL_TEST_DATABASE") == "postgresql":
        url = request.getfixturevalue("postgresql_url")
        empty(url)  # the record of another file knows another store
    schema.upgrade(url)
    redis.Redis.from_url(broker_server).flushall()
    made = Deployment(quick_settings(home, url, broker_server, store_url=(home / "store").as_uri()))
    made.worker()
    add_digits(made)
    add_tiny(made)
    yield made
    made.stop()


def empty(url: str) -> None:
    """Drop the tables of a PostgreSQL database."""
    database = Database(url)
    with database.connect() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    database.dispose()


@pytest.fixture
def digits(deployment: Deployment) -> str:
    """The name of a small labelled image dataset in the deployment."""
    return add_digits(deployment)


@pytest.fixture
def tiny(deployment: Deployment) -> str:
    """The name of an untrained model with labels."""
    return add_tiny(deployment)


def quick_settings(home: Path, database_url: str, broker_url: str, **places: object) -> Settings:
    """Settings with every waiting time short."""
    return Settings(
        _env_file=None,
        home=home,
        database_url=database_url,
        redis_url=broker_url,
        device="cpu",
        threads=1,
        lease_s=5,
        loop_s=0.2,
        deadline_s=2,
        failpoint=HOLD,
        **places,
    )


def add_digits(deployment: Deployment) -> str:
    rng = np.random.default_rng(0)
    labels = np.arange(60, dtype=np.uint8) % 3
    images = rng.integers(0, 60, (60, 28, 28)) + labels[:, None, None] * 80
    folder = deployment.settings.home / "idx"
    folder.mkdir()
    _write_idx(folder / "train-images-idx3-ubyte", images.astype(np.uint8))
    _write_idx(folder / "train-labels-idx1-ubyte", labels)
    add_dataset(deployment.services, "digits", folder)
    return "digits"


def add_tiny(deployment: Deployment) -> str:
    family = find_family("vae")
    params = family.params.model_validate(TINY)
    folder = deployment.settings.home / "tiny"
    folder.mkdir()
    torch.manual_seed(0)
    network = family.network()(params, Shape("image", labels=("a", "b", "c"), size=28, channels=1))
    save(network, folder, family=family)
    blobs = {path.name: deployment.services.store.put("imports", path) for path in folder.iterdir()}

    def add(session: Session) -> None:
        models.add_version(
            session,
            name="tiny",
            family="vae",
            params=params.model_dump(mode="json"),
            files={name: vars(blob) for name, blob in blobs.items()},
            weights_sha256=blobs["model.safetensors"].sha256,
            metrics={"samples_per_second": 1000.0},
        )

    deployment.services.database.transact(add)
    return "tiny"


def _write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    path.write_bytes(header + array.tobytes())

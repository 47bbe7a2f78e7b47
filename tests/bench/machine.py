"""A system of its own for a benchmark: `genmill up` in a temporary home, and commands in it."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from sqlalchemy import func, select

from db.states import FINAL
from db.tables import Job
from worker.services import Services
from worker.settings import Settings

GENMILL = str(Path(sys.executable).with_name("genmill"))
CHECKOUT = Path(__file__).parents[2]
MODEL = "digits"
POLL_S = 0.05


@dataclass
class Machine:
    """A home, its environment, and the number of workers that run in it now."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)  # GENMILL_..., beyond the home
    workers: int = 0

    @property
    def home(self) -> Path:
        """The home folder."""
        return self.folder / "home"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of commands: nothing of the caller's own settings.

        Byte code is cached, as for anything that is installed.
        """
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GENMILL_")}
        unset = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"}
        kept = {name: value for name, value in kept.items() if name not in unset}
        own = {"GENMILL_HOME": str(self.home), "GENMILL_DEVICE": "cpu"}
        return kept | own | self.settings

    def run(self, *words: str | Path) -> str:
        """Run a command that must succeed; return its stdout."""
        return self.process(GENMILL, *map(str, words))

    def process(self, *command: str) -> str:
        """Run any program that must succeed in this machine's environment; return its stdout."""
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout.strip()

    def python(self, *words: str) -> str:
        """Run Python in the checkout, with this machine's environment; return its stdout."""
        done = subprocess.run(
            [sys.executable, *words],
            env=self.environment,
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def up(self, workers: int, **settings: str) -> None:
        """Have this many workers running, with these settings."""
        wanted = {f"GENMILL_{name.upper()}": value for name, value in settings.items()}
        if self.workers == workers and self.settings == wanted:
            return
        self.down()
        self.settings = wanted
        self.run("up", "--detach", "--workers", str(workers))
        self.workers = workers

    def down(self) -> None:
        """Stop what runs."""
        if self.workers:
            self.run("down")
        self.workers = 0

    def services(self) -> Services:
        """The services of this home, for reading figures in this process."""
        places = {
            name.removeprefix("GENMILL_").lower(): value for name, value in self.settings.items()
        }
        return Services(Settings(_env_file=None, home=self.home, **places))

    def wait(self, **columns: str) -> float:
        """Wait for all jobs with these columns to end; the last one's end, in seconds of the epoch.

        The end is the record's own time, so that polling here does not coarsen it. Raises if a job
        did not succeed.
        """
        jobs = [getattr(Job, name) == value for name, value in columns.items()]
        open_jobs = select(func.count()).where(*jobs, Job.status.not_in(FINAL))
        services = self.services()
        try:
            while True:
                with services.database.read() as session:
                    if not session.scalar(open_jobs):
                        break
                time.sleep(POLL_S)
            with services.database.read() as session:
                failed = session.scalar(select(Job.error).where(*jobs, Job.status != "succeeded"))
                ended = session.scalar(select(func.max(Job.finished_at)).where(*jobs))
        finally:
            services.close()
        if failed is not None or ended is None:
            raise RuntimeError(f"a job did not succeed: {failed}")
        return ended.timestamp()

    def duration(self, job_id: str) -> float:
        """Seconds from a job's first claim to its end."""
        job = json.loads(self.run("job", "show", job_id, "--json"))
        began, ended = (datetime.fromisoformat(job[key]) for key in ("started_at", "finished_at"))
        return (ended - began).total_seconds()

    def worker_pids(self) -> list[int]:
        """The worker processes that the supervisor started; each has children."""
        state = json.loads((self.home / "run" / "state.json").read_text("utf-8"))
        return [each["pid"] for each in state["processes"] if each["name"].startswith("worker")]

    def close(self) -> None:
        """Stop everything and delete the home."""
        try:
            self.down()
        except RuntimeError:
            for pid in self.worker_pids():
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


def add_model(machine: Machine, name: str = MODEL, *options: str) -> None:
    """Train a network of the image benchmarks for a moment, so that its speed is on record.

    `options` are those of adding its images, which by default are grey and of 28x28 pixels.
    """
    source = machine.folder / f"{name}-idx"
    source.mkdir()
    draw = np.random.default_rng(0)
    labels = np.arange(1000, dtype=np.uint8) % 10
    images = draw.integers(0, 60, (1000, 28, 28)) + labels[:, None, None] * 19
    write_idx(source / "train-images-idx3-ubyte", images.astype(np.uint8))
    write_idx(source / "train-labels-idx1-ubyte", labels)
    machine.run("dataset", "add", name, source, *options)
    budget = ["--max-steps", "20", "--seed", "1", "--wait"]
    machine.run("enqueue", "train", "gan", "--dataset", name, "--name", name, *budget)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an IDX file, the format of MNIST."""
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim)
    path.write_bytes(header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())

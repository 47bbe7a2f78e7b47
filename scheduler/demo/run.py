"""`genmill demo`: the main job on real data, start to end, through the functions the commands call.

Handwritten digits (scikit-learn's, 1,797 of 8x8) and Python's own documentation are added as
datasets; workers train a GAN, a VAE and a GPT on them; digits and texts are generated, a retraining
is scheduled and triggered, and everything is downloaded and verified.
"""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import jobs, schedules
from db.errors import GenmillError, JobFailed
from db.states import FINAL, JobState
from db.tables import Job
from scheduler.datasets.add import add_dataset
from scheduler.demo.data import write_digits, write_documentation
from scheduler.demo.sheet import draw_sheet
from scheduler.machine import system
from scheduler.machine.supervisor import Say
from scheduler.results.download import download
from scheduler.results.follow import wait
from scheduler.results.verify import verify
from scheduler.schedules.manage import add_schedule, trigger_schedule
from scheduler.submission.enqueue import enqueue
from worker.services import Services, open_services
from worker.settings import Settings

FOLDER = Path("genmill-demo")
WORKERS = 2
DIGITS, TEXTS = 1000, 50
SIZE = 16  # twice the original: enough to look smooth, and quick to learn
PROMPTS = ("The ", "If the ", "An object ", "A class ", "Note that ")
TELL_S = 15.0  # between two lines about jobs that go on

GAN = {"kind": "train", "family": "gan", "model": "digits", "dataset": "digits", "max_seconds": 150}
VAE = {"kind": "train", "family": "vae", "model": "vae", "dataset": "digits", "max_seconds": 45}
GPT = {
    "kind": "train",
    "family": "gpt",
    "model": "prose",
    "dataset": "documentation",
    "max_seconds": 90,
    # many and long tokens, so that what it writes are words after a minute
    "params": {
        "tokenizer": "bpe",
        "vocabulary": 4096,
        "context": 64,
        "batch_size": 12,
        "lr": 0.008,
    },
}
NIGHTLY = "retrain-digits"
RETRAIN = "enqueue finetune digits --dataset digits --max-seconds 15"


def run_demo(settings: Settings, *, folder: Path = FOLDER, say: Say = system.say_on_stderr) -> None:
    """Do all of it in `folder`, with a home of its own there, and say where the results lie.

    Raises `JobFailed` where a job ends otherwise than succeeded.
    """
    began = time.monotonic()
    folder = folder.absolute()
    with _everything_up(_own_settings(settings, folder / "home"), say) as services:
        demo = _Demo(services, folder, say)
        demo.clear()
        demo.add_datasets()
        demo.train()
        demo.generate()
        demo.retrain_by_schedule()
        demo.fetch()
        demo.show()
    say(f"done in {time.monotonic() - began:.0f} s")


@dataclass
class _Demo:
    """What the steps share."""

    services: Services
    folder: Path
    say: Say
    made: dict[str, Job] = field(default_factory=dict)  # of generation, by the folder's name

    def clear(self) -> None:
        """Cancel what an earlier demo, cut short, has left waiting."""

        def work(session: Session) -> None:
            for state in set(JobState) - FINAL:
                for job in jobs.listing(session, status=state, limit=100):
                    jobs.cancel(session, job.id, reason="left by an earlier demo")

        self.services.database.transact(work)

    def add_datasets(self) -> None:
        """Digits as a folder of pictures, one sub-folder a class; documentation as a text file."""
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            sources = {
                "digits": write_digits(Path(scratch) / "digits"),
                "documentation": write_documentation(Path(scratch) / "documentation.txt"),
            }
            for name, source in sources.items():
                size = SIZE if name == "digits" else None
                added = add_dataset(self.services, name, source, size=size)
                self.say(
                    f"dataset {name}:{added.version.number}  {added.version.summary['counts']}"
                )

    def train(self) -> None:
        """Three models at once, on two workers."""
        specs = {"gan": GAN, "gpt": GPT, "vae": VAE}
        self._make({name: enqueue(self.services, spec) for name, spec in specs.items()})

    def generate(self) -> None:
        """Digits of every class in turn, by both models, and texts that go on from prompts."""
        pictures = {"kind": "generate", "count": DIGITS, "seed": 1}
        texts = {
            "kind": "generate",
            "model": "prose",
            "count": TEXTS,
            "prompts": [{"prompt": prompt} for prompt in PROMPTS],
            "params": {"max_tokens": 80, "temperature": 0.7, "top_p": 0.9},
        }
        started = {
            "digits": enqueue(self.services, pictures | {"model": "digits"}),
            "vae-digits": enqueue(self.services, pictures | {"model": "vae", "count": 200}),
            "texts": enqueue(self.services, texts),
        }
        self.made = self._make(started)

    def retrain_by_schedule(self) -> None:
        """A nightly fine-tuning, triggered once now: a new version of the GAN."""
        with self.services.database.read() as session:
            known = [schedule.name for schedule in schedules.listing(session)]
        if NIGHTLY not in known:  # as it is after an earlier demo
            add_schedule(self.services, NIGHTLY, cron="0 3 * * *", command=RETRAIN.split())
            self.say(f"schedule {NIGHTLY}: every night at three, {RETRAIN}")
        (job,) = trigger_schedule(self.services, NIGHTLY)
        self._make({NIGHTLY: job})

    def fetch(self) -> None:
        """Download and verify what was generated."""
        for name, job in self.made.items():
            shutil.rmtree(self.folder / name, ignore_errors=True)  # of an earlier demo
            done = download(self.services, [job], self.folder / name)
            found = verify(self.services, job)
            if found.problems:
                raise GenmillError(f"{name}: {'; '.join(found.problems)}")
            self.say(f"{name}: {done.samples} samples downloaded and verified")

    def show(self) -> None:
        """Draw the contact sheets, and say where everything lies."""
        for name in ("digits", "vae-digits"):
            sheet = draw_sheet(self.folder / name, self.folder / f"{name}.png")
            self.say(f"contact sheet, one row a class: {sheet}")
        self.say(f"pictures: {self.folder / 'digits'}")
        self.say(f"texts:    {self.folder / 'texts' / 'samples.jsonl'}")
        self.say(f"to go on with these models: GENMILL_HOME={self.folder / 'home'} genmill up")

    def _make(self, started: dict[str, Job]) -> dict[str, Job]:
        """Wait for jobs, telling now and then how far they are; `JobFailed` if one fails."""
        self.say(", ".join(f"{name} is job {job.id}" for name, job in started.items()))
        told = time.monotonic()

        def tell(now: list[Job]) -> None:
            nonlocal told
            if time.monotonic() - told > TELL_S:
                told = time.monotonic()
                self.say(
                    "  " + ", ".join(_how_far(*pair) for pair in zip(started, now, strict=True))
                )

        ended = wait(self.services, [job.id for job in started.values()], tell)
        for name, job in zip(started, ended, strict=True):
            if job.status != JobState.SUCCEEDED:
                raise JobFailed(f"{name}: job {job.id} {job.status}: {job.error}")
        return dict(zip(started, ended, strict=True))


def _how_far(name: str, job: Job) -> str:
    if job.status != JobState.RUNNING or not job.progress.get("total"):
        return f"{name} {job.status}"
    return f"{name} {job.progress['done'] / job.progress['total']:.0%}"


def _own_settings(settings: Settings, home: Path) -> Settings:
    """The embedded default in a home of its own, whatever else is configured here."""
    services = ("database_url", "redis_url", "store_url", "s3_endpoint_url")
    threads = max(1, (os.cpu_count() or 1) // WORKERS)
    own: dict[str, Any] = {**dict.fromkeys(services), "home": home, "threads": threads, "loop_s": 1}
    return Settings(**(settings.model_dump() | own))


@contextlib.contextmanager
def _everything_up(settings: Settings, say: Say) -> Iterator[Services]:
    """Broker, database, workers and scheduler for as long as the demo lasts."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # stop what runs, as Ctrl-C does
    system.up(settings, workers=WORKERS, detach=True, say=say)
    services = open_services(settings)
    try:
        yield services
    finally:
        services.close()
        system.down(settings, say=say)

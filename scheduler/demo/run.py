"""`genmill demo`: all of it on real data, through the functions that the commands call.

Handwritten digits (scikit-learn's, 1,797 of 8x8) and Python's own documentation are added as
datasets; workers train a GAN, a VAE and a GPT on them; digits and texts are generated, a retraining
is scheduled and triggered, and what was generated is downloaded and verified.
"""

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy.orm import Session

from db import jobs, schedules
from db.errors import GenmillError, JobFailed
from db.states import FINAL, JobState
from db.tables import Job
from scheduler.datasets.add import add_dataset
from scheduler.demo.data import write_digits, write_documentation
from scheduler.machine import system
from scheduler.machine.supervisor import Say
from scheduler.results.download import download
from scheduler.results.verify import verify
from scheduler.results.waiting import wait
from scheduler.schedules.manage import add_schedule, trigger_schedule
from scheduler.submission.enqueue import enqueue
from worker.media.samples.contact_sheet import contact_sheet
from worker.services import Services, open_services
from worker.settings import Settings
from worker.specs import parse_spec

FOLDER = Path("genmill-demo")
WORKERS = 2
DIGITS, TEXTS = 1000, 50
SIZE = 16  # twice the original: enough to look smooth, and quick to learn
PROMPTS = ("The ", "If the ", "An object ", "A class ", "Note that ")
REPORT_S = 15.0  # between two lines about running jobs

GAN = {"kind": "train", "family": "gan", "model": "digits", "dataset": "digits", "max_seconds": 150}
VAE = {"kind": "train", "family": "vae", "model": "vae", "dataset": "digits", "max_seconds": 45}
GPT = {
    "kind": "train",
    "family": "gpt",
    "model": "prose",
    "dataset": "documentation",
    "max_seconds": 90,
    # a large vocabulary of long tokens, so that it writes words after a minute
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
    """Run the demo in `folder`, with a home of its own there, and say where the results are.

    Raises `JobFailed` where a job does not succeed.
    """
    began = time.monotonic()
    folder = folder.absolute()
    # the embedded default, whatever else is configured here
    own: dict[str, Any] = dict.fromkeys(("database_url", "redis_url", "store_url"))
    own |= {"s3_endpoint_url": None, "home": folder / "home", "loop_s": 1}
    own |= {"threads": max(1, (os.cpu_count() or 1) // WORKERS)}
    with _everything_up(Settings(**(settings.model_dump() | own)), say) as services:
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
    """The demo's steps, and what they share."""

    services: Services
    folder: Path
    say: Say
    generated: dict[str, Job] = field(default_factory=dict)  # by the name of the folder

    def clear(self) -> None:
        """Cancel the jobs that an interrupted demo has left."""

        def work(session: Session) -> None:
            for state in set(JobState) - FINAL:
                for job in jobs.listing(session, status=state, limit=100):
                    jobs.cancel(session, job.id, reason="left by an earlier demo")

        self.services.database.transact(work)

    def add_datasets(self) -> None:
        """Add the digits, a folder of pictures, and the documentation, a text file."""
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
        """Train three models, two at a time."""
        specs = {"gan": GAN, "gpt": GPT, "vae": VAE}
        self._make({name: enqueue(self.services, parse_spec(spec)) for name, spec in specs.items()})

    def generate(self) -> None:
        """Generate digits of every class with both models, and texts that continue prompts."""
        pictures = {"kind": "generate", "count": DIGITS, "seed": 1}
        texts = {
            "kind": "generate",
            "model": "prose",
            "count": TEXTS,
            "prompts": [{"prompt": prompt} for prompt in PROMPTS],
            "params": {"max_tokens": 80, "temperature": 0.7, "top_p": 0.9},
        }
        started = {
            "digits": enqueue(self.services, parse_spec(pictures | {"model": "digits"})),
            "vae-digits": enqueue(
                self.services, parse_spec(pictures | {"model": "vae", "count": 200})
            ),
            "texts": enqueue(self.services, parse_spec(texts)),
        }
        self.generated = self._make(started)

    def retrain_by_schedule(self) -> None:
        """Schedule a nightly fine-tuning and trigger it once: a new version of the GAN."""
        with self.services.database.read() as session:
            known = [schedule.name for schedule in schedules.listing(session)]
        if NIGHTLY not in known:  # as it is after an earlier demo
            add_schedule(self.services, NIGHTLY, cron="0 3 * * *", command=RETRAIN.split())
            self.say(f"schedule {NIGHTLY}: every night at three, {RETRAIN}")
        (job,) = trigger_schedule(self.services, NIGHTLY)
        self._make({NIGHTLY: job})

    def fetch(self) -> None:
        """Download and verify what was generated."""
        for name, job in self.generated.items():
            shutil.rmtree(self.folder / name, ignore_errors=True)  # of an earlier demo
            done = download(self.services, [job], self.folder / name)
            found = verify(self.services, job)
            if found.problems:
                raise GenmillError(f"{name}: {'; '.join(found.problems)}")
            self.say(f"{name}: {done.samples} samples downloaded and verified")

    def show(self) -> None:
        """Draw the contact sheets, and say where the results are."""
        for name in ("digits", "vae-digits"):
            sheet = self.folder / f"{name}.png"
            draw_sheet(self.folder / name, sheet)
            self.say(f"contact sheet, one row a class: {sheet}")
        self.say(f"pictures: {self.folder / 'digits'}")
        self.say(f"texts:    {self.folder / 'texts' / 'samples.jsonl'}")
        self.say(f"to use these models: GENMILL_HOME={self.folder / 'home'} genmill up")

    def _make(self, started: dict[str, Job]) -> dict[str, Job]:
        """Wait for jobs, reporting their progress now and then. Raises `JobFailed`."""
        self.say(", ".join(f"{name} is job {job.id}" for name, job in started.items()))
        reported = time.monotonic()

        def report(now: list[Job]) -> None:
            nonlocal reported
            if time.monotonic() - reported < REPORT_S:
                return
            reported = time.monotonic()
            parts = []
            for name, job in zip(started, now, strict=True):
                runs = job.status == JobState.RUNNING and job.progress.get("total")
                share = (
                    f"{job.progress['done'] / job.progress['total']:.0%}" if runs else job.status
                )
                parts.append(f"{name} {share}")
            self.say("  " + ", ".join(parts))

        ended = wait(self.services, [job.id for job in started.values()], report)
        for name, job in zip(started, ended, strict=True):
            if job.status != JobState.SUCCEEDED:
                raise JobFailed(f"{name}: job {job.id} {job.status}: {job.error}")
        return dict(zip(started, ended, strict=True))


def draw_sheet(folder: Path, path: Path, *, columns: int = 16) -> None:
    """Draw the first `columns` images of each label that were downloaded into `folder`."""
    rows: dict[str, list[Any]] = defaultdict(list)
    for record in sorted(folder.glob("*.json")):
        row = rows[json.loads(record.read_text("utf-8"))["label"]]
        if len(row) < columns:
            with Image.open(record.with_suffix(".png")) as image:
                row.append(np.atleast_3d(np.asarray(image)))
    contact_sheet([rows[label] for label in sorted(rows)]).save(path)


@contextlib.contextmanager
def _everything_up(settings: Settings, say: Say) -> Iterator[Services]:
    """Broker, database, workers and scheduler run inside the block."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # stop what runs, as Ctrl-C does
    system.up(settings, workers=WORKERS, detach=True, say=say)
    services = open_services(settings)
    try:
        yield services
    finally:
        services.close()
        system.down(settings, say=say)

"""`genmill demo`: the main job on real data, through the functions that the commands call.

Handwritten digits (scikit-learn's, 1,797 of 8x8) and Python's own documentation are added as
datasets; workers train a GAN, a VAE and a GPT on them. The GAN is evaluated and becomes the
champion. Digits and texts are generated, downloaded and verified; a scheduled retraining is
triggered, and the gate decides whether its version is better.
"""

import contextlib
import json
import os
import shlex
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

from db import jobs, models, schedules
from db.errors import GenmillError, JobFailed
from db.states import JobState
from db.tables import Job
from scheduler.datasets.add import add_dataset
from scheduler.demo.data import write_digits, write_documentation
from scheduler.demo.specs import GENERATION, RETRAIN, SCHEDULE, SPLIT, THEN, TRAINING
from scheduler.demo.verdict import chain_of, tell_verdict
from scheduler.machine import control
from scheduler.machine.supervisor import Say
from scheduler.results.download import download
from scheduler.results.verify import verify
from scheduler.results.waiting import Watched, wait
from scheduler.schedules.manage import add_schedule, trigger_schedule
from scheduler.submission.enqueue import enqueue
from worker.cleaning.recipe import Recipe
from worker.files import inside
from worker.media.samples.contact_sheet import contact_sheet
from worker.services import Services, open_services
from worker.settings import Settings
from worker.specs import parse_spec

FOLDER = Path("genmill-demo")
WORKERS = 2
SIZE = 16  # twice the original: enough to look smooth, and quick to learn
REPORT_S = 15.0  # between two lines about running jobs


def run_demo(settings: Settings) -> None:
    """Run the demo in `FOLDER`, with a home of its own there, and say where the results are.

    Nothing of it runs on after the call, however that ends. Raises `MissingPackage` without a
    worker's packages, and `JobFailed` if a job does not succeed.
    """
    began, folder, say = time.monotonic(), FOLDER.absolute(), control.say_on_stderr
    # the embedded defaults, whatever else is configured here
    own: dict[str, Any] = dict.fromkeys(("database_url", "redis_url", "store_url"))
    own |= {"s3_endpoint_url": None, "home": folder / "home", "loop_s": 1}
    own |= {"threads": max(1, (os.cpu_count() or 1) // WORKERS)}
    with _running_system(Settings(**(settings.model_dump() | own)), say) as services:
        demo = _Demo(services, folder, say)
        demo.cancel_earlier_jobs()
        demo.add_datasets()
        demo.train()
        demo.generate()
        demo.judge(demo.trained["gan"])
        demo.download_and_verify()
        demo.draw_contact_sheets()
        demo.retrain_by_schedule()
        demo.name_champion()
    say(f"pictures: {folder / 'digits'}")
    say(f"texts:    {folder / 'texts' / 'samples.jsonl'}")
    say(f"to use these models: GENMILL_HOME={folder / 'home'} genmill up")
    say(f"done in {time.monotonic() - began:.0f} s")


@dataclass
class _Demo:
    """The demo's steps, and what they share."""

    services: Services
    folder: Path
    say: Say
    trained: dict[str, Job] = field(default_factory=dict)  # by the name in `TRAINING`
    generated: dict[str, Job] = field(default_factory=dict)  # by the name of the folder

    def cancel_earlier_jobs(self) -> None:
        """Cancel what an interrupted demo left unfinished."""

        def work(session: Session) -> None:
            for job in jobs.unfinished(session, limit=100):
                jobs.cancel(session, job.id, reason="left by an earlier demo")

        self.services.database.transact(work)

    def add_datasets(self) -> None:
        """Add the digits, a folder of images, and the documentation, a text file."""
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            digits = write_digits(Path(scratch) / "digits")
            self._add_dataset("digits", digits, Recipe(size=SIZE, split=SPLIT))
            documentation = write_documentation(Path(scratch) / "documentation.txt")
            self._add_dataset("documentation", documentation, Recipe())

    def train(self) -> None:
        """Train three models, two at a time; the GAN is then evaluated and promoted."""
        self.trained = self._run(TRAINING)

    def generate(self) -> None:
        """Generate digits of every class with two models, and texts that continue prompts."""
        self.generated = self._run(GENERATION)

    def retrain_by_schedule(self) -> None:
        """Schedule a nightly retraining of the GAN and trigger it once; the gate decides."""
        with self.services.database.read() as session:
            known = {schedule.name for schedule in schedules.listing(session)}
        if SCHEDULE not in known:  # an earlier demo has added it
            add_schedule(self.services, SCHEDULE, cron="0 3 * * *", command=RETRAIN)
            self.say(f"schedule {SCHEDULE}: every night at three, {shlex.join(RETRAIN)}")
        training, *_ = trigger_schedule(self.services, SCHEDULE)
        self._wait({SCHEDULE: training})
        self.judge(training)

    def judge(self, training: Job) -> None:
        """Wait until the gate has decided about a trained version; say what it went by.

        A refusal ends a promotion as failed: it is an answer here.
        """
        _, evaluation, promotion = chain_of(self.services, training)
        self._wait({"evaluation": evaluation})
        wait(self.services, [promotion.id])
        for line in tell_verdict(self.services, [training.id, evaluation.id, promotion.id]):
            self.say(line)
        folder = inside(self.folder / "evaluations", evaluation.id)
        download(self.services, [evaluation], folder)
        self.say(f"the report, to be opened in a browser: {folder / 'report.html'}")

    def name_champion(self) -> None:
        """Say which version the bare name means from now on."""
        with self.services.database.read() as session:
            _, version = models.resolve(session, f"digits@{models.CHAMPION}")
        self.say(f"champion: the bare name digits now means digits:{version.number}")

    def download_and_verify(self) -> None:
        """Download the samples, each job's into a folder of its own, and verify them."""
        for name, job in self.generated.items():
            shutil.rmtree(self.folder / name, ignore_errors=True)  # of an earlier demo
            done = download(self.services, [job], self.folder / name)
            if problems := verify(self.services, job).problems:
                raise GenmillError(f"{name}: {', '.join(problems)}")
            self.say(f"{name}: {done.samples} samples downloaded and verified")

    def draw_contact_sheets(self) -> None:
        """Draw a contact sheet of the images of each model."""
        for name in ("digits", "vae-digits"):
            sheet = self.folder / f"{name}.png"
            draw_sheet(self.folder / name, sheet)
            self.say(f"contact sheet, one row per class: {sheet}")

    def _add_dataset(self, name: str, source: Path, recipe: Recipe) -> None:
        added = add_dataset(self.services, name, source, recipe)
        self.say(f"dataset {name}:{added.version.number}  {added.version.summary['counts']}")

    def _run(self, specs: dict[str, dict[str, Any]]) -> dict[str, Job]:
        started = {}
        for name, spec in specs.items():
            then = [parse_spec(each) for each in THEN.get(name, ())]
            started[name] = enqueue(self.services, parse_spec(spec), then=then)
        return self._wait(started)

    def _wait(self, started: dict[str, Job]) -> dict[str, Job]:
        """Wait for jobs, reporting their progress now and then. Raises `JobFailed`."""
        self.say(", ".join(f"{name} is job {job.id}" for name, job in started.items()))
        reported = time.monotonic()

        def report(latest: list[Watched]) -> None:
            nonlocal reported
            if time.monotonic() - reported >= REPORT_S:
                reported = time.monotonic()
                parts = zip(started, map(_describe, latest), strict=True)
                self.say("  " + ", ".join(f"{name} {state}" for name, state in parts))

        ended = wait(self.services, [job.id for job in started.values()], report)
        for name, job in zip(started, ended, strict=True):
            if job.status != JobState.SUCCEEDED:
                raise JobFailed(f"{name}: job {job.id} {job.status}: {job.error}")
        return dict(zip(started, ended, strict=True))


def _describe(watched: Watched) -> str:
    """The share of a running job that is done, or the state of any other."""
    job, progress = watched
    if job.status == JobState.RUNNING and progress.get("total"):
        return f"{progress['done'] / progress['total']:.0%}"
    return job.status


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
def _running_system(settings: Settings, say: Say) -> Iterator[Services]:
    """Run broker, database, workers and scheduler inside the block, whatever ends it."""
    with _stopped_by_signals(), control.running(settings, workers=WORKERS, say=say):
        services = open_services(settings)
        try:
            yield services
        finally:
            services.close()


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM and a terminal that closes end the block as Ctrl-C does."""
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # `nohup` makes it ignored
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

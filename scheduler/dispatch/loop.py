"""The scheduler process: a round every `loop_s` seconds, until SIGTERM or SIGINT."""

import contextlib
import logging
import signal
import threading
import time
from typing import Any

from db.sharing import folder_mode
from scheduler.dispatch.garbage import collect_datasets, collect_packs, collect_prompts
from scheduler.dispatch.rounds import Steps, run_round
from scheduler.dispatch.step_threads import STEP_S, StepThreads
from worker.log import set_up_logging
from worker.services import Services
from worker.settings import Settings
from worker.watched import Watched, end_process

log = logging.getLogger(__name__)

COLLECT_UPLOADS_S = 3600.0  # between two collections: each lists all objects of a kind
LOOK_S = 1.0  # between two looks at a round
FROZEN_S = 10.0  # between two looks: the whole process stood still, and no thread is to blame
STOP_S = 10.0  # for the last round; the database undoes what it leaves half done


def run_scheduler(settings: Settings, stop: threading.Event | None = None) -> None:
    """Run until `stop` is set; without one, until SIGTERM or SIGINT. Any number may run.

    A round, or a step of it, that has not got on for `hang_s` ends the process with exit code 75.
    """
    set_up_logging(settings)
    if stop is None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_, event=stop: event.set())
    scheduler = _Scheduler(settings)
    log.info("scheduler started")
    while not stop.is_set():
        touch_scheduler_file(settings)
        scheduler.run_round(stop)
        stop.wait(settings.loop_s)
    with contextlib.suppress(OSError):
        settings.scheduler_file.unlink(missing_ok=True)
    scheduler.services.close()
    log.info("scheduler stopped")


class _Scheduler:
    """Its rounds, and the watch over them."""

    def __init__(self, settings: Settings) -> None:
        self.services = Services(settings)
        self._hang_s = settings.hang_s
        self._steps = StepThreads(step_s=min(STEP_S, settings.hang_s / 3))
        self._collect_at = self._looked_at = time.monotonic()

    def run_round(self, stop: threading.Event) -> None:
        """Run a round in a thread of its own, and watch it; once told to stop, wait no longer."""
        this_round = Watched("the round", self._round)
        this_round.start()
        self._looked_at = time.monotonic()
        while this_round.is_alive() and not stop.is_set():
            this_round.join(LOOK_S)
            self._end_if_stuck(this_round)
        this_round.join(STOP_S)
        if not this_round.is_alive():
            this_round.outcome()

    def _round(self) -> None:
        run_round(self.services, self._steps.run)
        collectors = {
            "collecting garbage of datasets": collect_datasets,
            "collecting garbage of prompts": collect_prompts,
            "collecting garbage of packs": collect_packs,
        }
        are_due = time.monotonic() >= self._collect_at
        # those that still run are asked in each round whether they have ended
        if called := [name for name in collectors if are_due or self._steps.has(name)]:
            with Steps(self.services, self._steps.run) as steps:
                for name in called:
                    steps.run(name, collectors[name])
        if are_due:
            self._collect_at = time.monotonic() + COLLECT_UPLOADS_S

    def _end_if_stuck(self, this_round: Watched[Any]) -> None:
        now, looked_at = time.monotonic(), self._looked_at
        self._looked_at = now
        for thread in (this_round, *self._steps.running()):
            if now - looked_at > FROZEN_S:
                thread.pulsed_at = now
            if thread.silent_s > self._hang_s:
                end_process(f"{thread.name} has hung for {self._hang_s:g} s", stuck=thread)


def touch_scheduler_file(settings: Settings) -> None:
    """Touch the file that shows `genmill doctor` that a scheduler is alive, if it is writable."""
    with contextlib.suppress(OSError):
        mode = folder_mode(settings.home)
        settings.scheduler_file.parent.mkdir(mode=mode, parents=True, exist_ok=True)
        settings.scheduler_file.touch()

"""The scheduler process: a round every `loop_s` seconds, until SIGTERM or SIGINT."""

import contextlib
import logging
import signal
import threading
import time

from db.sharing import folder_mode
from scheduler.dispatch.garbage import collect_datasets, collect_packs, collect_prompts
from scheduler.dispatch.rounds import Steps, run_round
from worker.log import set_up_logging
from worker.services import Services
from worker.settings import Settings

log = logging.getLogger(__name__)

COLLECT_UPLOADS_S = 3600.0  # between two collections: each lists all objects of a kind


def run_scheduler(settings: Settings, stop: threading.Event | None = None) -> None:
    """Run until `stop` is set; without one, until SIGTERM or SIGINT. Any number may run."""
    set_up_logging(settings)
    if stop is None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_, event=stop: event.set())
    services = Services(settings)
    log.info("scheduler started")
    collect_at = time.monotonic()
    while not stop.is_set():
        touch_scheduler_file(settings)
        run_round(services)
        if time.monotonic() >= collect_at:
            with Steps(services) as steps:
                steps.run("collecting garbage of datasets", collect_datasets)
                steps.run("collecting garbage of prompts", collect_prompts)
                steps.run("collecting garbage of packs", collect_packs)
            collect_at = time.monotonic() + COLLECT_UPLOADS_S
        stop.wait(settings.loop_s)
    with contextlib.suppress(OSError):
        settings.scheduler_file.unlink(missing_ok=True)
    services.close()
    log.info("scheduler stopped")


def touch_scheduler_file(settings: Settings) -> None:
    """Touch the file that shows `genmill doctor` that a scheduler is alive, if it is writable."""
    with contextlib.suppress(OSError):
        mode = folder_mode(settings.home)
        settings.scheduler_file.parent.mkdir(mode=mode, parents=True, exist_ok=True)
        settings.scheduler_file.touch()

"""The scheduler process: a round of dispatching and of schedules every `loop_s` seconds."""

import logging
import signal
import threading

from db.errors import GenmillError
from scheduler.dispatch.rounds import dispatch_once
from scheduler.schedules.firing import fire_due
from worker.log import set_up_logging
from worker.services import Services
from worker.settings import Settings

log = logging.getLogger(__name__)


def run_scheduler(settings: Settings, stop: threading.Event | None = None) -> None:
    """Run until `stop` is set; without one, until SIGTERM or SIGINT. Any number may run."""
    set_up_logging(settings)
    stop = stop or _stop_on_signal()
    services = Services(settings)
    log.info("scheduler started")
    while not stop.is_set():
        run_once(services)
        stop.wait(settings.loop_s)
    services.close()
    log.info("scheduler stopped")


def run_once(services: Services) -> None:
    """One round. Nothing ends the loop: what failed is logged and tried again in the next one."""
    for step in (fire_due, dispatch_once):
        try:
            step(services)
        except GenmillError as error:
            log.warning("the round goes on without %s: %s", step.__name__, error)
        except Exception:
            log.exception("the round goes on without %s", step.__name__)


def _stop_on_signal() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop

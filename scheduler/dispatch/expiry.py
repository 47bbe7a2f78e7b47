"""Expiry: what has been at a target for as long as it may be is taken down, by jobs."""

import logging

from db import published
from db.session import clock
from scheduler.submission.take_downs import key_of, take_down
from worker.services import Services
from worker.services.loops import Loop

log = logging.getLogger(__name__)

AT_ONCE = 20  # jobs


def take_down_expired(services: Services) -> int:
    """Enqueue jobs that take down what has expired; return how many.

    Nothing is asked for twice within an hour, also if the first job failed.
    """
    with Loop(services, "taking down what has expired") as loop:
        with services.database.read() as session:
            hour = f"expiry {clock(session):%Y-%m-%dT%H}"
            due = {key_of(hour, each): each for each in published.expired(session)}
            asked = published.known_keys(session, due)
        new = [key for key in due if key not in asked][:AT_ONCE]
        made = loop.each(new, lambda key: take_down(services, due[key], key=key, expired=True))
    for job_id in made:
        log.info("what has expired is taken down", extra={"job": job_id})
    return len(made)

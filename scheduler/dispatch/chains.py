"""Moving chains on: a job that waits is queued or cancelled once the one before it has ended.

Any number of schedulers may do it at once: the last step is one transaction that a job's state
guards, so that a crash leaves all of it or nothing.
"""

import logging
from functools import partial

from db import chains, jobs
from scheduler.submission.chains import names_of_chain, without_missing
from scheduler.submission.requests import Preparer
from worker.failpoints import reach
from worker.services import Services
from worker.services.loops import Loop
from worker.services.prompts import load_spec

log = logging.getLogger(__name__)

ROUND_S = 2.0  # at most this long in one round; the last step may take a little longer


def move_chains_on(services: Services, *, within_s: float = ROUND_S) -> int:
    """Queue or cancel jobs whose predecessor has ended; return how many.

    One that can never run fails with the reason, another is left for a later round; neither holds
    up the rest.
    """

    def fail(job_id: str, reason: str) -> None:
        told = f"it could not begin: {reason}"
        log.warning("job failed", extra={"job": job_id, "reason": told})
        services.database.transact(partial(jobs.fail, job_id=job_id, reason=told))
        moved.append(True)

    moved: list[bool] = []
    found: dict[str, chains.Ready] = {}

    def move(job_id: str) -> bool:
        return _move(services, found[job_id])

    loop = Loop(services, "moving chains on", give_up=fail, within_s=within_s)
    with loop:
        while not loop.is_over:
            with services.database.read() as session:
                page = chains.ready(session, after=max(found, default=""))
            if not page:
                break
            found = {each.id: each for each in page}
            moved += loop.each(found, move)
    return sum(moved)


def _move(services: Services, ready: chains.Ready) -> bool:
    if ready.reason is not None:
        cancel = partial(jobs.cancel, job_id=ready.id, reason=ready.reason)
        cancelled = services.database.transact(cancel)
        log.info("job cancelled", extra={"job": ready.id, "reason": ready.reason})
        return cancelled
    return _release(services, ready.id)


def _release(services: Services, job_id: str) -> bool:
    """Pin a job that waits and queue it, with its shards."""
    with services.database.read() as session:
        job = jobs.get(session, job_id)
        names = names_of_chain(session, job_id)
        spec = without_missing(session, load_spec(services.store, job.spec))
    new = Preparer(services, names).prepare(spec, priority=job.priority).new_job()
    reach(services.settings, "chain_pinned")
    released = services.database.transact(partial(chains.release, job_id=job_id, new=new))
    reach(services.settings, "chain_released")
    if released:
        log.info("job queued after the one before it", extra={"job": job_id})
    return released

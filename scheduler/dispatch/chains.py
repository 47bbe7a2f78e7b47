"""Moving chains on: a job that waits is queued or cancelled once the one before it has ended.

Any number of schedulers may do it at once: the last step is one transaction that a job's state
guards, so that a crash leaves all of it or nothing.
"""

import logging
import time
from functools import partial

from db import chains, jobs
from db.errors import DigestMismatch, NotFound, Refused
from scheduler.submission.chains import names_of_chain, without_missing
from scheduler.submission.requests import Preparer
from worker.failpoints import reach
from worker.services import Services
from worker.services.prompts import load_spec

log = logging.getLogger(__name__)

ROUND_S = 2.0  # at most this long in one round; the last step may take a little longer
NEVER = (Refused, NotFound, DigestMismatch)  # the same tomorrow


def move_chains_on(services: Services, *, within_s: float = ROUND_S) -> int:
    """Queue or cancel jobs whose predecessor has ended; return how many.

    One that can never run fails with the reason, another is left for the next round; neither holds
    up the rest.
    """
    deadline = time.monotonic() + within_s
    moved, last = 0, ""
    while time.monotonic() < deadline:
        with services.database.read() as session:
            found = chains.ready(session, after=last)
        if not found:
            break
        moved += sum(_try_move(services, each) for each in found)
        last = found[-1].id
    return moved


def _try_move(services: Services, ready: chains.Ready) -> bool:
    try:
        return _move(services, ready)
    except NEVER as error:
        reason = f"it could not begin: {error}"
        log.warning("job failed", extra={"job": ready.id, "reason": reason})
        fail = partial(jobs.fail, job_id=ready.id, reason=reason)
        return services.database.transact(fail)
    except Exception:
        log.exception("job %s could not be moved on, will be retried", ready.id)
        return False


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

"""What becomes of a claim that was not committed: it failed, or the shard is given back."""

import logging
import time
import traceback
from collections.abc import Callable, Sequence

from sqlalchemy.orm import Session

from db import jobs, shards
from db.causes import Cause, cause_of
from db.errors import GenmillError, NotPromoted, Stopped, Unreachable, WrongKey
from db.path_errors import as_genmill
from db.shards import Claim
from worker.engine import device_errors  # noqa: F401 - has `cause_of` know torch's errors
from worker.failpoints import reach
from worker.publishing.base import TargetAway
from worker.services import Services
from worker.shards.lease import fail

log = logging.getLogger(__name__)

MAX_BACKOFF_S = 60.0
PAUSE_S = 1.0
LOGGED_ALONE = 4  # claims; more have a line together


class RefusedByGate(NotPromoted):
    """The gate refused a version; `write` notes it in the transaction that fails the job."""

    cause = Cause.WORK
    lasting = True

    def __init__(self, message: str, write: Callable[[Session], object]) -> None:
        super().__init__(message)
        self.write = write


def report_error(services: Services, claim: Claim, error: Exception) -> bool:
    """Report why a claim's work did not succeed; the error's `Cause` decides how.

    False if the database did not answer in time.
    """
    if isinstance(error, Stopped):
        log.info("shard dropped: %s", error, extra=log_fields(claim))
        return True
    cause, lasting = cause_of(error), isinstance(error, GenmillError) and error.lasting
    if cause is Cause.SERVICE:
        backoff_s = min(MAX_BACKOFF_S, 2.0 ** min(claim.fence, 10))
        if isinstance(error, WrongKey):  # this worker waits, and another need not
            backoff_s = PAUSE_S
        asked_s = error.retry_after_s if isinstance(error, TargetAway) else None
        backoff_s = max(backoff_s, asked_s or 0)
        return report_release(services, claim, _text(error), backoff_s=backoff_s)
    if cause is Cause.MACHINE:
        return _report_decline(services, claim, _text(error), lasting=lasting)
    return _report_failure(services, claim, error, final=cause is Cause.WORK and lasting)


def report_release(services: Services, claim: Claim, reason: str, *, backoff_s: float) -> bool:
    """Give the shard back without counting a failure; False if the database did not answer."""

    def give_back(session: Session) -> None:
        shards.release(session, claim, reason, backoff_s=backoff_s)
        _log_end(session, claim, f"given back: {reason}")

    log.info("shard released: %s", reason, extra=log_fields(claim))
    return _report(services, claim, lambda: services.database.transact(give_back))


def _report_decline(services: Services, claim: Claim, reason: str, *, lasting: bool) -> bool:
    max_failures = services.settings.max_failures

    def give_back(session: Session) -> None:
        shards.decline(session, claim, reason, lasting=lasting, max_failures=max_failures)
        _log_end(session, claim, f"declined by this worker: {reason}")

    log.warning("shard declined: %s", reason, extra=log_fields(claim))
    return _report(services, claim, lambda: services.database.transact(give_back))


def log_claims(what: str, claims: Sequence[Claim]) -> None:
    """Log what became of claims: each alone, or many small ones together."""
    if len(claims) <= LOGGED_ALONE or log.isEnabledFor(logging.DEBUG):
        for claim in claims:
            log.info("shard %s", what, extra=log_fields(claim))
        return
    jobs_among = {claim.job_id for claim in claims}
    fields = {"shards": len(claims), "jobs": len(jobs_among), "first": min(jobs_among)}
    log.info("shards %s", what, extra=fields)


def log_fields(claim: Claim) -> dict[str, object]:
    """What a log line about a claim says of it."""
    return {"job": claim.job_id, "shard": claim.idx, "claim": claim.fence}


def _report_failure(services: Services, claim: Claim, error: Exception, *, final: bool) -> bool:
    text = _text(error)
    trace = None if final else error
    log.warning("shard failed: %s", text, extra=log_fields(claim), exc_info=trace)

    def write_more(session: Session) -> None:
        if isinstance(error, RefusedByGate):
            error.write(session)
        _log_end(session, claim, f"attempt {claim.fence} failed: {text}")
        if cause_of(error) is Cause.UNKNOWN:
            lines = "".join(traceback.format_exception(error))
            jobs.log(session, claim.job_id, lines, level="error")

    return _report(
        services, claim, lambda: fail(services, claim, text, final=final, also=write_more)
    )


def _log_end(session: Session, claim: Claim, message: str) -> None:
    """Write why an attempt ended into the log of a job that is one shard."""
    if claim.kind != "generate":
        jobs.log(session, claim.job_id, message, level="warning")


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and cause_of(error) is not Cause.UNKNOWN:
        return str(as_genmill(error))
    return str(error) if isinstance(error, GenmillError) else f"{type(error).__name__}: {error}"


def _report(services: Services, claim: Claim, step: Callable[[], object]) -> bool:
    """Run `step` until the database answers; after `lease_s`, the reaper reports instead."""
    deadline = time.monotonic() + services.settings.lease_s
    while True:
        try:
            reach(services.settings, "reporting")
            step()
        except Stopped as order:  # perhaps an earlier try was recorded and its reply lost
            log.info("nothing left to report: %s", order, extra=log_fields(claim))
        except Unreachable as error:
            log.warning("the report waits for the database: %s", error, extra=log_fields(claim))
            if time.monotonic() >= deadline:
                return False
            time.sleep(PAUSE_S)
            continue
        except Exception:  # the shards beside it are to be reported all the same
            log.exception("left to the reaper", extra=log_fields(claim))
        return True

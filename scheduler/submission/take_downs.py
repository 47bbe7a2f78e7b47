"""Taking down what is published, by jobs: what has expired, what was made from withdrawn data."""

import hashlib
from collections.abc import Sequence

from db.errors import GenmillError
from db.published import Shown
from scheduler.submission.enqueue import enqueue
from worker.services import Services
from worker.specs import Publish


def take_down(
    services: Services, shown: Shown, *, expired: bool = False, key: str | None = None
) -> str:
    """Enqueue a job that takes down what is shown; its id.

    With `expired`, only what has been there for as long as it may be. A job with the same `key`
    that was enqueued before is taken in its place.
    """
    what = {"job": shown.job_id} if shown.job_id else {"model": shown.model}
    spec = Publish.model_validate(
        {"target": shown.target, "take_down": True, "expired": expired, **what}
    )
    return enqueue(services, spec, idempotency_key=key).id


def take_all_down(services: Services, shown: Sequence[Shown]) -> list[str]:
    """Enqueue a job for each; return their ids. Errors are raised once all others are enqueued."""
    jobs, failed = list[str](), list[str]()
    for each in shown:
        try:
            jobs.append(take_down(services, each))
        except GenmillError as error:
            failed.append(f"{each.remedy}: {error.message}")
    if failed:
        raise GenmillError(f"not everything is being taken down: {'; '.join(failed)}")
    return jobs


def key_of(occasion: str, shown: Shown) -> str:
    """A key that says on which occasion something is taken down."""
    digest = hashlib.sha256(f"{shown.target} {shown.reference}".encode()).hexdigest()
    return f"{occasion} {digest[:32]}"

"""Ending publish jobs: one of which no item was published has failed, with a reason."""

from functools import partial

from db import jobs, publications, published, targets
from db.errors import NotFound
from db.publications import PUBLISHED, REFUSED, Chosen
from db.published import BEFORE, PUT_BACK, REPAIRED, UNCHANGED
from worker.services.connections import Services


def settle_publications(services: Services, job_ids: list[str]) -> list[str]:
    """The finalizing jobs that can succeed; a publish job without a published item fails here."""
    with services.database.read() as session:
        publishing = publications.publish_jobs(session, job_ids)
    failed = {job_id: reason for job_id in publishing if (reason := _all_refused(services, job_id))}
    for job_id, reason in failed.items():
        services.database.transact(partial(jobs.fail, job_id=job_id, reason=reason))
    return [job_id for job_id in job_ids if job_id not in failed]


def _all_refused(services: Services, job_id: str) -> str | None:
    """Why a publish job has failed; None unless all of its items were refused."""
    with services.database.read() as session:
        spec = jobs.get(session, job_id, kept=True).spec
        try:
            target = targets.get(session, spec["target"])
        except NotFound:
            return None
        made = {"job_id": spec["job"]} if spec["job"] else {}
        chosen = Chosen(target.id, by_job_id=job_id, state=REFUSED)
        item = session.scalar(publications.select_chosen(chosen, limit=1))
        if item is None:
            return None
        found = published.counts(
            session, target.id, version_id=item.version_id, by_job_id=job_id, **made
        )
    if found.keys() & {PUBLISHED, BEFORE, UNCHANGED, PUT_BACK, REPAIRED}:
        return None
    number = found[REFUSED]
    return f"none of {number:,} items was published; {item.item}: {item.reason}"

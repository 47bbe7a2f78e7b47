"""Removing ended jobs and batches, some at a time: what names others goes before what is named."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from sqlalchemy.orm import Session

from db import holders, job_lists, job_removal, tombstones
from db.errors import Gone
from db.holders import Held
from db.lookup import by_prefix
from db.tables import Job, Tombstone
from scheduler.output.render import to_count
from scheduler.removal.objects import delete_garbage_of, delete_packs, sweep
from scheduler.removal.plan import Item, Plan, refuse_held
from scheduler.results.waiting import find_groups
from worker.identity import who
from worker.services import Services

AT_ONCE = 200  # jobs in one transaction
REMEDY = (
    "remove what names it first, or together with it; --keep-artifacts only takes it off the lists"
)

Groups = dict[str, list[Job]]  # by the id of a job or a batch


@dataclass
class JobPlan(Plan):
    """The jobs to remove, the newest first; `references` are the jobs and batches asked for."""

    references: list[str] = field(default_factory=list)
    kept: bool = False

    @property
    def names(self) -> list[str]:
        """See `Plan.names`; a batch stands for its jobs."""
        return [*self.finished, *self.references]

    def carry_out(self, services: Services) -> None:
        """Remove them. Raises `Refused` if something has come to name one: that one stayed."""
        services.store.verify()  # before anything goes
        held = remove_jobs(services, [item.id for item in self.items], kept=self.kept)
        names = {each: f"job {each}" for each in held}
        gone = f"{len(self.items) - len(held)} of {to_count(len(self.items), 'job')} were removed"
        refuse_held(held, names, remedy=REMEDY, removed=gone)


def plan_jobs(
    services: Services, references: Sequence[str], *, kept: bool, dry_run: bool
) -> JobPlan:
    """What removing jobs and batches, by their ids, would do.

    Finishes removals of them that were interrupted, unless this is a `dry_run`. Raises `Refused`
    for a job that is held, `NotFound`, and `Gone` for one that has been removed.
    """
    plan, groups = JobPlan(kept=kept), Groups()
    for reference in references:
        try:
            with services.database.read() as session:
                groups |= find_groups(session, [reference], kept=True)
        except Gone:
            finished = [] if dry_run else _finish(services, reference)
            if not finished:
                raise
            plan.finished += finished
    jobs = {job.id: job for group in groups.values() for job in group}
    ids = sorted(jobs, reverse=True)
    with services.database.read() as session:
        held = _held(session, ids, kept=kept)
        refuse_held(held, {each: f"job {each}" for each in held}, remedy=REMEDY)
        for some in _pieces(ids):
            for job_id, size in job_removal.job_sizes(session, some, kept=kept).items():
                plan.items.append(Item("job", job_id, job_id, *size, kept=kept))
    plan.references = list(groups)
    made = sum(job.samples or 0 for job in jobs.values() if job.status == "succeeded")
    if made and not kept:
        plan.follows.append(f"{made:,} samples can no longer be downloaded, verified or reproduced")
    keys = sum(job.idempotency_key is not None for job in jobs.values())
    if keys and not kept:
        plan.follows.append(f"can be used again: {to_count(keys, 'idempotency key')}")
    return plan


def remove_jobs(services: Services, ids: Sequence[str], *, kept: bool) -> Held:
    """Remove jobs, given newest first, and then their objects; return those that are held."""
    leaving, held, packs = set(ids), Held(), set[int]()
    for some in _pieces(ids):
        work = partial(job_removal.remove_jobs, ids=some, leaving=leaving, who=who(), kept=kept)
        done = services.database.transact(work)
        held |= done.held
        packs |= done.packs
        leaving -= done.held.keys()  # it stays, and so does what it names
        gone = [each for each in some if each not in done.held]
        for job_id in gone:
            delete_garbage_of(services, job_id)
        services.database.transact(partial(tombstones.swept, ids=gone))
    delete_packs(services, packs)
    return held


def prune_jobs(services: Services, keep: timedelta, *, dry_run: bool) -> tuple[JobPlan, Held]:
    """Remove the ended jobs that are older than `keep` and that nothing holds; and what is held."""
    plan, held, leaving = JobPlan(), Held(), set[str]()
    place: job_lists.EndedJob | None = None
    while True:
        with services.database.read() as session:
            page = job_lists.ended_before(session, keep, after=place, limit=AT_ONCE)
            ids = [each.id for each in page]
            leaving.update(ids)
            stay = holders.of_jobs(session, ids, leaving, kept=False)
            leaving -= stay.keys()
            going = [each for each in ids if each not in stay]
            sizes = job_removal.job_sizes(session, going, kept=False)
        held |= stay
        held |= {} if dry_run else remove_jobs(services, going, kept=False)
        plan.items += [Item("job", each, each, *sizes[each]) for each in going if each not in held]
        if len(page) < AT_ONCE:
            return plan, held
        place = page[-1]


def _held(session: Session, ids: Sequence[str], *, kept: bool) -> Held:
    leaving, held = set(ids), Held()
    for some in _pieces(ids):
        held |= holders.of_jobs(session, some, leaving, kept=kept)
    return held


def _finish(services: Services, reference: str) -> list[str]:
    """Delete what an interrupted removal of a job has left; its id if there was anything."""
    of_jobs = Tombstone.kind.in_(("job", "batch"))
    with services.database.read() as session:
        found = by_prefix(session, Tombstone, reference, noun="job", visible=of_jobs)
    return [found.id] if sweep(services, found) else []


def _pieces(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), AT_ONCE):
        yield ids[start : start + AT_ONCE]

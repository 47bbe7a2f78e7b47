"""Errors for what a download did not get: not made yet, damaged, missing, or nothing at all."""

from collections.abc import Sequence
from pathlib import Path

from db.artifacts import Stored
from db.errors import DigestMismatch, GenmillError, NotFound, Refused
from db.states import FINAL
from db.tables import Artifact, Job
from scheduler.results.choice import show_ranges

SHOWN = 10  # damaged objects or missing samples


def not_ended(
    jobs: Sequence[Job], unfinished: Sequence[Job], stored: Stored, expected: int
) -> Refused:
    """The error for jobs that have not ended; `expected` samples are to come of all jobs."""
    so_far = f"{stored.objects:,} objects are stored so far"
    if expected:
        so_far = f"{stored.samples:,} of {expected:,} samples are there so far"
    first = unfinished[0]
    what, name = f"job {first.id} is {first.status}", first.id
    if len(jobs) > 1:
        what, name = (
            f"{len(unfinished):,} of {len(jobs):,} jobs have not ended",
            str(first.batch_id),
        )
    return Refused(
        f"{what}: {so_far}",
        remedy=f"wait for the rest with `genmill job wait {name}`, or take these with --partial",
    )


def incomplete(
    folder: Path, objects: int, damaged: Sequence[tuple[Artifact, GenmillError]]
) -> GenmillError:
    """The error for some of the `objects` that are damaged or lost."""
    lines = [f"{each.name} of job {each.job_id}: {error}" for each, error in damaged]
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return DigestMismatch(
        f"{len(damaged)} of {objects} objects are damaged or lost; the rest is in "
        f"{folder}:\n  " + "\n  ".join(lines[:SHOWN] + more)
    )


def no_samples(jobs: Sequence[Job], missing: Sequence[int], folder: Path | None) -> NotFound:
    """The error for chosen samples that no job has; the others, if there are any, are in `folder`.

    Of the `missing` numbers, the first `SHOWN` are given.
    """
    job = jobs[0]
    who = f"job {job.id} has" if len(jobs) == 1 else f"the {len(jobs):,} jobs have"
    numbers = show_ranges(missing) + (", ..." if len(missing) == SHOWN else "")
    kind = "accepted sample" if job.wanted is not None else "sample"
    made = f"it has {job.samples:,}, from 0" if job.samples else f"it is a {job.kind} job"
    if job.wanted is not None:
        made = "selection.jsonl of the whole download says why each was rejected"
    elif job.status not in FINAL:
        made = f"the job is {job.status}"
    rest = f"; the others are in {folder}" if folder is not None else ""
    return NotFound(f"{who} no {kind} {numbers}{rest}", remedy=made if len(jobs) == 1 else None)


def nothing(jobs: Sequence[Job], patterns: Sequence[str]) -> NotFound:
    """The error for jobs that have committed nothing, or no file that matches the patterns."""
    names = ", ".join(job.id for job in jobs[:3])
    if patterns:
        return NotFound(
            f"{names}: no file matches {' or '.join(patterns)}",
            remedy=f"`genmill artifact list {jobs[0].id}` has the names of objects; samples are "
            "named after their numbers, as in 000000017.png",
        )
    if jobs[0].wanted is not None and jobs[0].status not in FINAL:
        return NotFound(
            f"no sample of {names} is accepted yet: they are chosen once enough are made"
        )
    return NotFound(f"nothing is committed yet by {names}")

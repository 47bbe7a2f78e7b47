"""A job's samples on record: for each, the object that holds it, its offset and its digest."""

from collections.abc import Iterator
from itertools import groupby

from db import artifacts
from db.tables import Artifact, Member
from worker.services import Services

PAGE = 1000


def samples_by_artifact(services: Services, job_id: str) -> Iterator[tuple[Artifact, list[Member]]]:
    """Yield each samples artifact with its members in the order of their offsets.

    Members are read in the order of samples, so only one shard's are in memory at a time.
    """
    with services.database.read() as session:
        objects = {each.id: each for each in artifacts.of_job(session, job_id, kind="samples")}
    found = groupby(_members(services, job_id), key=lambda member: member.artifact_id)
    for artifact_id, members in found:
        yield objects[artifact_id], sorted(members, key=lambda member: member.offset)


def _members(services: Services, job_id: str) -> Iterator[Member]:
    after = -1
    while True:
        with services.database.read() as session:
            page = artifacts.members(session, job_id, after=after, limit=PAGE)
        if not page:
            return
        yield from page
        after = page[-1].sample

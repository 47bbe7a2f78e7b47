"""Proofs for strangers: the manifest of a job, its place in the ledger, and the signed head.

With the digests of samples, which a manifest sums up, a downloaded file can be followed to the
signature by `docs/verify_proof.py`, without Genmill.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from db import artifacts, jobs, keys, ledger
from db.errors import DigestMismatch, Gone, NotFound, Refused
from db.leaves import MANIFEST, leaf_text, row_data
from db.merkle import consistency_spans, inclusion_spans
from db.tables import Artifact, Job, LedgerHead, LedgerLeaf, Shard
from scheduler.results.heads import Head, head_of
from worker.services import Services
from worker.services.finalize import read_manifest
from worker.services.ledger import seal
from worker.services.samples import read_index, require_digest, sample_objects

T = TypeVar("T")

FORMAT = "genmill-proof-1"
MOST_SAMPLES = 200_000  # whose digests a proof holds: about 13 MB of them


@dataclass(frozen=True)
class Proof:
    """A proof as plain data, and how many samples of the job it says nothing of."""

    job: Job
    document: dict[str, Any]
    left_out: int

    @property
    def brief(self) -> dict[str, Any]:
        """What it proves, in short."""
        head, leaf = self.document["head"], self.document["leaf"]
        size = int(head["text"].split("\n")[1])
        return {"job": self.job.id, "leaf": leaf["index"], "leaves": size, "key": head["key"]}


def make_proof(services: Services, what: str, older: Head | None = None) -> Proof:
    """The proof of an artifact or of a whole job, given by id or prefix.

    With an `older` head, also that the ledger has only grown since. Raises `NotFound`, `Refused`
    for a job that has not succeeded, and `DigestMismatch` if record, store and ledger disagree.
    """
    with services.database.read() as session:
        job, artifact = _find(session, what)
    if job.manifest_sha256 is None:
        raise Refused(
            f"job {job.id} is {job.status}, and only succeeded ones have a manifest",
            remedy=f"wait for it: `genmill job wait {job.id}`",
        )
    head_row = seal(services, job.id)
    manifest = read_manifest(services, job)
    if head_row is None or manifest is None:
        raise NotFound(f"the manifest of job {job.id} is not in the store", remedy=_AUDIT)
    require_digest(f"the manifest of job {job.id}", manifest, job.manifest_sha256)
    members, left_out = _members(services, job, artifact)
    with services.database.read() as session:
        document = _ledger_part(session, job, head_row, older)
    told = {"format": FORMAT, "job": job.id, "manifest": manifest.decode(), "members": members}
    return Proof(job, told | document, left_out)


_AUDIT = "`genmill provenance audit` tells what is wrong"


def _find(session: Session, what: str) -> tuple[Job, Artifact | None]:
    """The job, and the artifact if it is one. Raises `NotFound`, or `Refused` if it may be both."""
    job = _found(lambda: jobs.get(session, what, kept=True))
    artifact = _found(lambda: artifacts.get(session, what))
    if job is not None and artifact is not None:
        raise Refused(
            f"a job and an artifact have ids that begin with {what!r}",
            remedy="give more of the id",
        )
    if artifact is not None:
        return jobs.get(session, artifact.job_id, kept=True), artifact
    if job is None:
        raise NotFound(
            f"no artifact or job {what!r}", remedy="`genmill artifact list JOB` lists artifacts"
        )
    return job, None


def _found(get: Callable[[], T]) -> T | None:
    """What is there, or None; what was removed is told."""
    try:
        return get()
    except Gone:
        raise
    except NotFound:
        return None


def _members(
    services: Services, job: Job, artifact: Artifact | None
) -> tuple[list[dict[str, Any]], int]:
    """The digests of the samples, by artifact, and how many samples are left out."""
    found, count, left_out = list[dict[str, Any]](), 0, 0
    for each, shard in _sample_artifacts(services, job, artifact):
        size = shard.stop - shard.start
        if count + size > MOST_SAMPLES and artifact is None:
            left_out += size
            continue
        count += size
        digests = [entry.sha256 for entry in read_index(services, each, shard)]
        place = {"shard": shard.idx, "name": each.name, "first": shard.start}
        found.append(place | {"digests": digests})
    return found, left_out


def _sample_artifacts(
    services: Services, job: Job, artifact: Artifact | None
) -> Iterator[tuple[Artifact, Shard]]:
    if artifact is not None and artifact.kind != "samples":
        return
    for each, shard in sample_objects(services, job.id):
        if artifact is None or each.id == artifact.id:
            yield each, shard


def _ledger_part(session: Session, job: Job, row: LedgerHead, older: Head | None) -> dict[str, Any]:
    """The leaf, its path to the root, and the head. Raises `DigestMismatch`."""
    log, leaf = ledger.current(session), ledger.leaf_of(session, MANIFEST, job.id)
    assert log is not None and leaf is not None and leaf.idx is not None  # noqa: S101 PT018 - for mypy: it was sealed
    _refuse_other_leaf(session, job, leaf, row)
    inclusion = ledger.proof(session, inclusion_spans(leaf.idx, row.size))
    public_key = keys.get(session, row.key_id).public or ""
    head = head_of(log.id, row, public_key)
    document = {
        "leaf": {"index": leaf.idx, "text": leaf.text},
        "inclusion": [each.hex() for each in inclusion],
        "head": head.document,
    }
    return document | (_consistency(session, older, head) if older else {})


def _refuse_other_leaf(session: Session, job: Job, leaf: LedgerLeaf, row: LedgerHead) -> None:
    if leaf.text != leaf_text(MANIFEST, job.id, row_data(MANIFEST, job)):
        raise DigestMismatch(f"the ledger has another manifest of job {job.id}", remedy=_AUDIT)
    if ledger.root(session, row.size).hex() != row.root:
        raise DigestMismatch(
            f"the ledger no longer has the root of its head of {row.size} leaves", remedy=_AUDIT
        )


def _consistency(session: Session, older: Head, head: Head) -> dict[str, Any]:
    if older.origin != head.origin:
        raise Refused(f"the older head is of another ledger, {older.origin}")
    if older.size > head.size or ledger.root(session, older.size) != older.root:
        raise DigestMismatch(
            f"the ledger does not go on from the older head, of {older.size} leaves", remedy=_AUDIT
        )
    spans = consistency_spans(older.size, head.size)
    path = [each.hex() for each in ledger.proof(session, spans)]
    return {"older": {"head": older.document, "consistency": path}}

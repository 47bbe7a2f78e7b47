"""Where an artifact comes from: the job, the version, the data, the code, the seed.

Asked by a file, its record says so, and the job on record that made it (`finder`) says whether the
bytes are still the same.
"""

import hashlib
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import artifacts, jobs, lineage, tombstones
from db.errors import BadInput, NotFound, Refused
from db.path_errors import reading, require_file
from db.states import JobState
from db.tables import Artifact, Job
from scheduler.results.finder import SampleFinder
from scheduler.results.pieces import Piece, find_piece
from worker.services import Services
from worker.services.prompts import load_data
from worker.services.samples import find_sample, read_record

Origin = dict[str, Any]


def origin_of_file(services: Services, path: Path, line: int = 1) -> Origin:
    """Where a downloaded sample comes from; of JSON Lines, the sample in line `line`.

    Raises `BadInput` if it is no sample of ours.
    """
    data = _read(path, line)
    piece = _piece_in(path, data)
    record, digest = piece.record, hashlib.sha256(data).hexdigest()
    with services.database.read() as session:
        versions = lineage.by_weights(session, record["weights_sha256"])
        found: Origin = {"file": str(path), "sha256": digest, "record": record}
        found["versions"] = [_version(each) for each in versions]
        gone = [
            tombstones.gone(each).message
            for version in versions
            for each in tombstones.of_generation(session, version.reference, record["seed"])
        ]
    maker = SampleFinder(services).find(piece)
    if maker is None:
        return found | {"job": None, "intact": None} | ({"removed": gone} if gone else {})
    return found | {"job": maker.job, "artifact": maker.artifact, "intact": maker.intact}


def origin_of_artifact(services: Services, id_or_prefix: str) -> Origin:
    """Where an artifact on record comes from. Raises `NotFound`, `Refused` or `Removed`."""
    with services.database.read() as session:
        artifact = artifacts.get(session, id_or_prefix)
        job = jobs.get(session, artifact.job_id, kept=True)
        versions = _versions_of(session, job)
    found: Origin = {
        "artifact": artifact.id,
        "kind": artifact.kind,
        "name": artifact.name,
        "sha256": artifact.sha256,
        "job": job.id,
        "spec": load_data(services.store, job.spec),
        "versions": versions,
    }
    record = _first_record(services, artifact)
    return found | ({"record": record} if record else {})


def _read(path: Path, line: int) -> bytes:
    require_file(path)
    with reading(path):
        data = path.read_bytes()
    if path.suffix.lower() != ".jsonl":
        return data
    lines = data.removesuffix(b"\n").split(b"\n")
    if not 1 <= line <= len(lines):
        raise Refused(f"{path} has {len(lines)} lines: there is no line {line}")
    return lines[line - 1]


def _piece_in(path: Path, data: bytes) -> Piece:
    """The sample in a file. Raises `BadInput`, naming the file."""
    try:
        return find_piece(data)
    except BadInput as error:
        raise BadInput(f"{path}: {error.message}", remedy=_AS_DOWNLOADED) from None


_AS_DOWNLOADED = (
    "give a sample as it was downloaded: other programs may drop its record; "
    "`genmill artifact which` knows pictures by their look as well"
)


def _first_record(services: Services, artifact: Artifact) -> Origin | None:
    """The record of an artifact's first sample; None if it has no samples."""
    if artifact.kind != "samples":
        return None
    with services.database.read() as session:
        first = artifacts.shard_of(session, artifact).start
    return read_record(services, *find_sample(services, artifact.job_id, first))


def _versions_of(session: Session, job: Job) -> list[Origin]:
    """The versions that a job made, or the one that it used."""
    made = lineage.made_by(session, job.id)
    if made or (job.status != JobState.SUCCEEDED and job.kind != "generate"):
        return [_version(each) for each in made]
    try:
        return [_version(lineage.named(session, job.spec["model"]))]
    except NotFound:
        return []


def _version(found: lineage.Descent) -> Origin:
    return {
        "version": found.reference,
        "weights_sha256": found.version.weights_sha256,
        "parent": found.parent,
        "dataset": found.dataset,
        "job": found.version.job_id,
    }

"""Downloading what jobs made into a folder: complete, checked against the record, resumable.

File names are generated, or checked to be plain names; nothing is ever written outside the folder.
Files that are there already with the right digest are not fetched again.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from db import artifacts, models
from db.errors import NotFound, Refused
from db.tables import Artifact, Job
from scheduler.results.unpack import already_written, read_samples, write_files
from worker.families import find_family
from worker.files import disk_errors, durable_rename
from worker.media import all_media, find_medium
from worker.media.base import CombinedFiles, Medium, SampleFiles
from worker.media.samples.index import SampleIndex
from worker.services import Services
from worker.services.samples import read_index, sample_objects

FORMS = tuple(dict.fromkeys(form for medium in all_media() for form in medium.downloads))
PARTS = ".genmill-parts"  # folder of objects being fetched; removed at the end
RECORDS = "samples.jsonl"

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")


@dataclass
class Downloaded:
    """What a download has fetched so far."""

    folder: Path
    objects: int = 0
    samples: int = 0
    size_bytes: int = 0
    silent: int = 0  # texts without notes, skipped in a download as MIDI or WAV


def download(
    services: Services,
    jobs: Sequence[Job],
    folder: Path,
    *,
    form: str | None = None,
    on_progress: Callable[[Downloaded], None] = lambda _: None,
) -> Downloaded:
    """Fetch everything that the jobs committed; of several jobs, each into a folder of its id.

    `form` is one of the medium's `downloads`, by default the first. Raises `NotFound` if nothing is
    committed yet, `Refused` for a form that the medium or the samples do not have,
    `DigestMismatch`, and `Unreachable`, also for a full disk.
    """
    done = Downloaded(folder)
    with disk_errors(folder):
        for job in jobs:
            target = folder if len(jobs) == 1 else folder / job.id
            target.mkdir(parents=True, exist_ok=True)
            for size, samples, written in _fetch_job(services, job, target, form):
                done.objects += 1
                done.samples += samples
                done.silent += samples - written
                done.size_bytes += size
                on_progress(done)
    if not done.objects:
        raise NotFound(f"nothing is committed yet by {', '.join(job.id for job in jobs[:3])}")
    if done.samples and done.silent == done.samples:
        chosen = _medium(services, jobs[0]).download(form)
        needs = chosen.needs if isinstance(chosen, SampleFiles) else "anything"
        raise Refused(
            f"none of the {done.samples} samples holds {needs}, so there is nothing to write",
            remedy="use --as jsonl to read them",
        )
    return done


def plain_name(artifact: Artifact) -> str:
    """The artifact's file name, or one derived from its id if that name could lead elsewhere."""
    return artifact.name if _PLAIN.fullmatch(artifact.name) else f"artifact-{artifact.id}"


def _fetch_job(
    services: Services, job: Job, folder: Path, form: str | None
) -> Iterator[tuple[int, int, int]]:
    """Fetch the objects one by one; yield each one's size, samples, and samples written."""
    parts = folder / PARTS
    with services.database.read() as session:
        others = [each for each in artifacts.of_job(session, job.id) if each.kind != "samples"]
    for artifact in others:
        services.store.fetch(artifact.key, folder / plain_name(artifact), sha256=artifact.sha256)
        yield artifact.size, 0, 0
    if job.kind != "generate":
        return
    medium = _medium(services, job)
    chosen = medium.download(form)
    (parts / RECORDS).unlink(missing_ok=True)
    for artifact, shard in sample_objects(services, job.id):
        index = read_index(services.store, artifact, shard)
        written = _fetch_samples(services, artifact, index, folder, medium, chosen)
        yield artifact.size, len(index), written
    if (parts / RECORDS).exists():
        durable_rename(parts / RECORDS, folder / RECORDS)
    if parts.is_dir():
        for part in parts.iterdir():
            part.unlink()
        parts.rmdir()


def _fetch_samples(
    services: Services,
    artifact: Artifact,
    index: SampleIndex,
    folder: Path,
    medium: Medium,
    form: SampleFiles | CombinedFiles,
) -> int:
    """Fetch one object's samples; return how many had anything to write in this form."""
    if form is CombinedFiles.OBJECTS:
        services.store.fetch(artifact.key, folder / plain_name(artifact), sha256=artifact.sha256)
        return len(index)
    if isinstance(form, SampleFiles) and already_written(index, folder, medium, form):
        return len(index)
    part = folder / PARTS / artifact.sha256
    services.store.fetch(artifact.key, part, sha256=artifact.sha256)
    if isinstance(form, SampleFiles):
        written = write_files(part, index, folder, medium, form)
    else:
        with (folder / PARTS / RECORDS).open("ab") as lines:
            for _, _, record in read_samples(part, index, medium):
                lines.write(record + b"\n")
        written = len(index)
    part.unlink()
    return written


def _medium(services: Services, job: Job) -> Medium:
    with services.database.read() as session:
        model = models.get(session, str(job.model))
    return find_medium(find_family(model.family).media)

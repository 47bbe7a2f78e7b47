"""Fetching what jobs made into a folder: whole, checked against the record, and resumable.

File names are generated, or checked to be plain names; nothing is ever written outside the folder.
What is there already with the right digest is not fetched again.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from db import artifacts
from db.errors import NotFound, Refused
from db.tables import Artifact, Job, Member
from scheduler.results.samples import samples_by_artifact
from scheduler.results.unpack import append_records, is_unpacked, unpack
from worker.files import disk_errors, settle
from worker.services import Services

FORMS = ("files", "webdataset", "jsonl", "midi", "wav")
MUSIC = ("midi", "wav")
TAR = "application/x-tar"
PARTS = ".genmill-parts"  # objects on their way; removed at the end

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")


@dataclass
class Downloaded:
    """What a download did."""

    folder: Path
    objects: int = 0
    samples: int = 0
    size_bytes: int = 0
    silent: int = 0  # texts without notes, of which no music was made


Tell = Callable[[Downloaded], None]


def download(
    services: Services,
    jobs: Sequence[Job],
    folder: Path,
    *,
    form: str | None = None,
    tell: Tell = lambda _: None,
) -> Downloaded:
    """Fetch everything that the jobs committed; of several jobs, each into a folder of its id.

    `form` None gives pictures and sounds as files and texts as JSON Lines; midi and wav are for
    texts of notes (`worker.music.notes`). Raises `NotFound` where
    nothing is committed yet, `Refused` where the form does not suit, `DigestMismatch`, and
    `Unreachable` also where the disk is full.
    """
    done = Downloaded(folder)
    with disk_errors(folder):
        for job in jobs:
            target = folder if len(jobs) == 1 else folder / job.id
            target.mkdir(parents=True, exist_ok=True)
            _download_job(services, job, target, form, done, tell)
    if not done.objects:
        raise NotFound(f"nothing is committed yet by {', '.join(job.id for job in jobs[:3])}")
    if done.samples and done.silent == done.samples:
        raise Refused(
            f"none of the {done.samples} texts holds a note such as 60:4: nothing to play; "
            "use --as jsonl to read them"
        )
    return done


def _download_job(
    services: Services, job: Job, folder: Path, form: str | None, done: Downloaded, tell: Tell
) -> None:
    with services.database.read() as session:
        others = [each for each in artifacts.of_job(session, job.id) if each.kind != "samples"]
    for artifact in others:
        services.store.fetch(artifact.key, folder / plain_name(artifact), sha256=artifact.sha256)
        _count(done, artifact, 0, tell)
    lines = folder / PARTS / "samples.jsonl"
    lines.unlink(missing_ok=True)
    for artifact, members in samples_by_artifact(services, job.id):
        if form in MUSIC:
            done.silent += _download_music(services, artifact, members, folder, form)
        else:
            _download_samples(services, artifact, members, folder, form)
        _count(done, artifact, len(members), tell)
    if lines.exists():
        settle(lines, folder / "samples.jsonl")
    _sweep(folder / PARTS)


def _download_samples(
    services: Services, artifact: Artifact, members: list[Member], folder: Path, form: str | None
) -> None:
    form = form or ("files" if artifact.media_type == TAR else "jsonl")
    if form == "webdataset":
        if artifact.media_type != TAR:
            raise Refused("texts are not kept as WebDataset; use --as jsonl or --as files")
        services.store.fetch(artifact.key, folder / plain_name(artifact), sha256=artifact.sha256)
        return
    if form == "files" and is_unpacked(folder, members):
        return
    part = folder / PARTS / artifact.sha256
    services.store.fetch(artifact.key, part, sha256=artifact.sha256)
    if form == "files":
        unpack(part, members, folder, tar=artifact.media_type == TAR)
        part.unlink()
    else:
        append_records(
            part, members, folder / PARTS / "samples.jsonl", tar=artifact.media_type == TAR
        )


def _download_music(
    services: Services, artifact: Artifact, members: list[Member], folder: Path, form: str
) -> int:
    """Write what the texts of an object sound like; returns how many hold no notes."""
    # mido takes long to load, and only music needs it
    from scheduler.results.music import write_music  # noqa: PLC0415

    if artifact.media_type == TAR:
        raise Refused(f"--as {form} is for texts of notes; this job made none: use --as files")
    part = folder / PARTS / artifact.sha256
    services.store.fetch(artifact.key, part, sha256=artifact.sha256)
    written = write_music(part, members, folder, form)
    part.unlink()
    return len(members) - written


def plain_name(artifact: Artifact) -> str:
    """The artifact's file name, or one made of its id where the name is not a plain one."""
    return artifact.name if _PLAIN.fullmatch(artifact.name) else f"artifact-{artifact.id}"


def _count(done: Downloaded, artifact: Artifact, samples: int, tell: Tell) -> None:
    done.objects += 1
    done.samples += samples
    done.size_bytes += artifact.size
    tell(done)


def _sweep(parts: Path) -> None:
    if parts.is_dir():
        for part in parts.iterdir():
            part.unlink()
        parts.rmdir()

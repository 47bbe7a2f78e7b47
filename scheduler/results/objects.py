"""The stored objects of a download: which they are, and what of them is wanted where."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from db import models
from db.artifacts import FINGERPRINTS
from db.errors import NotFound
from db.orders import VERDICTS
from db.tables import Artifact, Job, Shard
from scheduler.results.choice import ALL, Choice
from worker.families import find_family
from worker.files import inside, is_plain
from worker.media import find_medium, medium_of
from worker.media.base import CombinedFiles, Medium, SampleFiles
from worker.media.samples.index import IndexEntry, SampleIndex
from worker.media.samples.parquet import load_pyarrow
from worker.services import Services
from worker.services.orders import read_selection
from worker.services.samples import read_index, read_sample, sample_objects, stored_objects

PARTS = ".genmill-parts"  # folder of objects being fetched; removed at the end
# kinds of artifacts that are about samples, and are kept in the store alone
ABOUT_SAMPLES = frozenset({VERDICTS, FINGERPRINTS})
# files with the samples of all jobs of a download
JOINED = {CombinedFiles.RECORDS: "samples.jsonl", CombinedFiles.TABLE: "samples.parquet"}

Entries = SampleIndex | Sequence[IndexEntry]


@dataclass(frozen=True)
class StoredObject:
    """An object to fetch for `folder`; samples have their shard, medium and format."""

    folder: Path
    artifact: Artifact
    shard: Shard | None = None
    medium: Medium | None = None
    form: SampleFiles | CombinedFiles = CombinedFiles.OBJECTS
    accepted: frozenset[int] | None = None  # of an order; None: all
    choice: Choice = ALL
    beside: str = ""  # where the job's files lie below `folder`, as in `JOB/`

    @property
    def part(self) -> Path:
        """Where the object is kept until its samples are unpacked."""
        return inside(self.folder / PARTS, self.artifact.id)

    @property
    def is_copied(self) -> bool:
        """Whether it is kept as it is stored."""
        return self.shard is None or (self.form is CombinedFiles.OBJECTS and self._takes_all)

    def wants(self, sample: int) -> bool:
        """Whether this sample is to be downloaded."""
        if self.accepted is not None and sample not in self.accepted:
            return False
        return self.choice.has(sample) and any(map(self.choice.takes, self._names(sample)))

    def _names(self, sample: int) -> list[str]:
        """The names of a sample's own files."""
        if isinstance(self.form, SampleFiles):
            return [f"{sample:09d}{suffix}" for suffix in self.form.suffixes]
        return [f"{sample:09d}{self.medium.suffix}" if self.medium else ""]

    def entries(self, index: SampleIndex) -> Entries:
        """The entries of the samples to be downloaded."""
        return index if self._takes_all else [each for each in index if self.wants(each.sample)]

    @property
    def _takes_all(self) -> bool:
        return self.accepted is None and not self.choice


def file_of(artifact: Artifact, folder: Path) -> Path:
    """The artifact's file, named after its id if its own name is no plain one."""
    name = artifact.name if is_plain(artifact.name) else f"artifact-{artifact.id}"
    return inside(folder, name)


class Listing:
    """The objects of jobs, in order. Of several jobs, each has a folder of its id below `folder`.

    Joined forms have one file for all jobs instead.
    """

    def __init__(
        self, services: Services, jobs: Sequence[Job], folder: Path, form: str | None
    ) -> None:
        self._services, self._jobs = services, jobs
        self._folder, self._form = folder, form
        self._media: dict[str | None, Medium] = {}

    def objects(self, choice: Choice) -> Iterator[StoredObject]:
        """Yield what is wanted of every job."""
        for job in self._jobs:
            accepted = read_selection(self._services, job)
            for artifact, shard in stored_objects(self._services, job):
                if shard is None:
                    wanted = artifact.kind not in ABOUT_SAMPLES and not choice.numbers
                    if wanted and choice.takes(artifact.name):
                        yield StoredObject(self._folder_of(job), artifact)
                    continue
                samples = range(shard.start, shard.stop)
                if accepted is not None and accepted.isdisjoint(samples):
                    continue
                if choice.meets(samples):
                    found = self._samples(job, artifact, shard, accepted, choice)
                    yield from [found] if found else []

    def medium(self, job: Job) -> Medium:
        """What a job's samples are, by its model; by the samples if the model was removed."""
        if job.model not in self._media:
            self._media[job.model] = self._find_medium(job)
        return self._media[job.model]

    def _samples(
        self,
        job: Job,
        artifact: Artifact,
        shard: Shard,
        accepted: frozenset[int] | None,
        choice: Choice,
    ) -> StoredObject | None:
        """An object of samples; None if no pattern takes the file that its samples go into."""
        medium = self.medium(job)
        form = medium.download(self._form)
        if form is CombinedFiles.TABLE:
            load_pyarrow("choose another format with --as")  # before anything is fetched
        folder, beside = self._folder_of(job), ""
        if form in JOINED and len(self._jobs) > 1:
            folder, beside = self._folder, f"{job.id}/"
        if (name := _combined_file(form, artifact)) is not None:
            if not choice.takes(name):
                return None
            choice = Choice(choice.numbers)
        return StoredObject(folder, artifact, shard, medium, form, accepted, choice, beside)

    def _folder_of(self, job: Job) -> Path:
        return self._folder if len(self._jobs) == 1 else inside(self._folder, job.id)

    def _find_medium(self, job: Job) -> Medium:
        try:
            with self._services.database.read() as session:
                return find_medium(find_family(models.get(session, str(job.model)).family).media)
        except NotFound:
            for artifact, shard in sample_objects(self._services, job.id):
                first = read_index(self._services, artifact, shard).entry(shard.start)
                return medium_of(read_sample(self._services, artifact, first))
            raise


def _combined_file(form: SampleFiles | CombinedFiles, artifact: Artifact) -> str | None:
    """The name of the one file that an object's samples go into; None if each has its own."""
    if isinstance(form, SampleFiles):
        return None
    return artifact.name if form is CombinedFiles.OBJECTS else JOINED.get(form)

"""Finding the job that made a sample: by the sample's bytes, or by the record that it carries.

A record names no job: it states what the bytes depend on, so that a sample has the same bytes in
whichever job it is made. Jobs of the version and the seed in the record are looked at, and the one
counts that has these bytes under this number, or a sample with an equal record.
"""

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from db import artifacts, jobs, lineage, tombstones
from db.errors import GenmillError, NotFound, Unreachable
from db.tables import Artifact
from scheduler.results.pieces import Piece
from worker.media.samples.index import IndexEntry, SampleIndex
from worker.media.samples.record import CREDENTIALS, Record
from worker.services import Services
from worker.services.samples import read_index, read_record
from worker.specs import REFERENCE_PATTERN

MANY = 20  # jobs that may have the same sample; of more, the first is named alone
INDEXES_KEPT = 1000
FEW_SEEDS = 4  # of a version, each asked for by itself

ByCustomId = dict[str | None, list[str]]  # ids of jobs

_CONTENT = {"text", CREDENTIALS}  # of a record that holds the sample itself
_WHOLE = "sampling"  # of a record that is not only some columns of a table
_MARKS = "marks"  # of the record of a marked sample


class Found(NamedTuple):
    """A sample of a job; `also` are other jobs that have the same bytes."""

    job: str
    artifact: str
    intact: bool | None  # whether the bytes are those on record; None if they were not given
    also: tuple[str, ...] = ()


class SampleFinder:
    """Remembers what it has looked up, so that thousands of files of a job take few queries."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._references: dict[tuple[str, str | None], set[str]] = {}
        self._jobs: dict[tuple[str, int], ByCustomId] = {}
        self._asked: Counter[str] = Counter()  # how many seeds, by reference
        self._indexes: dict[str, tuple[Artifact, SampleIndex]] = {}

    def find(self, piece: Piece) -> Found | None:
        """The oldest job that has the sample; None if no job is known to have it."""
        record, number = piece.record, piece.record["index"]
        same: list[tuple[str, Artifact]] = []
        others: list[tuple[str, Artifact, IndexEntry]] = []
        for job_id in self._candidates(record):
            found = self._entry(job_id, number)
            if found is None:
                continue
            artifact, entry = found
            if entry.sha256 == piece.sha256:
                same.append((job_id, artifact))
                if len(others) + len(same) > MANY:
                    break
            else:
                others.append((job_id, artifact, entry))
        if same:
            job_id, artifact = same[0]
            return Found(job_id, artifact.id, True, tuple(other for other, _ in same[1:]))
        for job_id, artifact, entry in others:
            if self._has_record(artifact, entry, record):
                return Found(job_id, artifact.id, None if piece.sha256 is None else False)
        return None

    def _candidates(self, record: Record) -> list[str]:
        """The jobs of the record's version, seed and custom id, oldest first.

        A custom id is that of a prompt, or of the job. A version that was removed is known by the
        name in the record.
        """
        model, custom_id = (_as_text(record.get(name)) for name in ("model", "custom_id"))
        return sorted(
            job_id
            for reference in self._versions(record["weights_sha256"], model)
            for each in {custom_id, None}
            for job_id in self._jobs_of(reference, record["seed"]).get(each, ())
        )

    def _versions(self, weights: str, model: str | None) -> set[str]:
        """The references of the versions that a record means."""
        if (weights, model) not in self._references:
            with self._services.database.read() as session:
                names = {each.reference for each in lineage.by_weights(session, weights)}
            if model is not None and re.fullmatch(REFERENCE_PATTERN, model):
                names.add(model)
            self._references[weights, model] = names
        return self._references[weights, model]

    def _jobs_of(self, reference: str, seed: int) -> ByCustomId:
        """A version's jobs of a seed; once several seeds were asked for, all are read at once."""
        key = (reference, seed)
        if key in self._jobs or self._asked[reference] > FEW_SEEDS:
            return self._jobs.get(key, {})
        self._asked[reference] += 1
        asked = seed if self._asked[reference] <= FEW_SEEDS else None
        with self._services.database.read() as session:
            made = lineage.generated_with(session, reference, seed=asked)
        found: dict[tuple[str, int], ByCustomId] = {key: {}}
        for job_id, custom_id, own in made:
            found.setdefault((reference, own), {}).setdefault(custom_id, []).append(job_id)
        self._jobs |= found
        return self._jobs[key]

    def _entry(self, job_id: str, number: int) -> tuple[Artifact, IndexEntry] | None:
        """A job's sample in the store; None if it has none of this number, or has it no more."""
        artifact, index = self._indexes.get(job_id, (None, SampleIndex(0, b"")))
        if artifact is None or number not in index.samples:
            try:
                with self._services.database.read() as session:
                    artifact, shard = artifacts.holding(session, job_id, number)
                index = read_index(self._services, artifact, shard)
            except Unreachable:
                raise
            except GenmillError:
                return None
            if len(self._indexes) >= INDEXES_KEPT:
                self._indexes.clear()
            self._indexes[job_id] = (artifact, index)
        return artifact, index.entry(number)

    def _has_record(self, artifact: Artifact, entry: IndexEntry, record: Record) -> bool:
        """Whether a stored sample has the same record, apart from its content."""
        try:
            stored = read_record(self._services, artifact, entry)
        except Unreachable:
            raise
        except GenmillError:
            return False
        if _WHOLE in record and stored.get(_MARKS) != record.get(_MARKS):
            return False  # of a job with other marks, whose samples are other files
        common = (stored.keys() & record.keys()) - _CONTENT
        return all(stored[name] == record[name] for name in common)


def _as_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def model_and_seed(services: Services, job_id: str) -> tuple[str | None, int | None]:
    """The model that a job used or made, and its seed; nothing of a job that was removed."""
    with services.database.read() as session, suppress(NotFound):
        job = jobs.get(session, job_id)
        made = lineage.made_by(session, job_id)
        model = made[0].reference if made else job.spec.get("model")
        return model, job.spec.get("seed")
    return None, None


def removed_makers(services: Services, record: Mapping[str, Any]) -> list[str]:
    """Which jobs that were removed may have made a sample with this model and seed, in words."""
    model, seed = record.get("model"), record.get("seed")
    if not isinstance(model, str) or not model.isprintable() or type(seed) is not int:
        return []
    with services.database.read() as session:
        made = tombstones.of_generation(session, model, seed)
        return [tombstones.gone(each).message for each in made]

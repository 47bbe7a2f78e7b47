"""Requests: jobs that have passed every check and can be stored.

What equal requests have in common (names, settings) is looked up and checked once.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypedDict, Unpack

from db.errors import Refused
from db.new_jobs import NewJob
from scheduler.submission.pinning import Names, pin, refuse_unfit_prompts
from worker.services import Services
from worker.services.pinned import Pinned, PinnedGeneration, PinnedTraining, hash_of
from worker.services.prompts import row_of
from worker.specs import Generate, Spec

UNKNOWN_RATE = 50.0  # samples per second, for a version whose speed was never measured
MAX_SHARDS = 100_000
MAX_PRIORITY = 1_000_000
_KEPT = 1000  # checked combinations of names and settings


class Columns(TypedDict, total=False):
    """The columns of a job's row that do not follow from its spec."""

    priority: int
    idempotency_key: str | None  # the same key returns the same job
    custom_id: str | None
    schedule_id: str | None
    retry_of: str | None


@dataclass(frozen=True)
class Request:
    """A job that has passed every check and can be stored."""

    asked: Spec  # as submitted, before names were pinned
    terms: Pinned  # of this spec, or of one with the same names and settings
    ranges: Sequence[tuple[int, int]]  # of samples, one per shard
    columns: Columns

    @cached_property
    def pinned(self) -> Pinned:
        """The spec with every name pinned."""
        names = {"model": self.terms.spec.model, "dataset": self.terms.spec.dataset}
        spec: Any = self.asked.model_copy(update=names)
        return replace(self.terms, spec=spec)

    def new_job(self) -> NewJob:
        """The job to insert."""
        asked, data = self.asked, self.terms.data_of(self.asked)
        row, prompts_sha256 = row_of(asked, data)
        return NewJob(
            asked.kind,
            json.dumps(row),
            hash_of(data),
            self.terms.model,
            self.ranges,
            work_key=self.terms.work_key,
            prompts_sha256=prompts_sha256,
            **self.columns,
        )


class Preparer:
    """Checks and pins specs and cuts them into shards; stores nothing.

    A name that is used again means the same version again.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._names = Names()
        self._checked: dict[tuple[object, ...], Pinned] = {}

    def prepare(
        self,
        spec: Spec,
        *,
        shard_size: int | None = None,
        ranges: Sequence[tuple[int, int]] | None = None,
        **columns: Unpack[Columns],
    ) -> Request:
        """Check and pin a spec. Raises `Refused` or `NotFound`.

        A shard gets `shard_size` samples, by default as many as a worker makes in the setting
        `shard_s`; `ranges` states the shards' samples explicitly.
        """
        priority = columns.get("priority", 0)
        if abs(priority) > MAX_PRIORITY:
            raise Refused(f"priority {priority}: allowed are -{MAX_PRIORITY} to {MAX_PRIORITY}")
        terms = self._terms(spec)
        if ranges is None:
            ranges = _cut_into_shards(spec, terms, self._services.settings.shard_s, shard_size)
        return Request(spec, terms, ranges, columns)

    def _terms(self, spec: Spec) -> Pinned:
        key = _what_is_checked(spec)
        found = self._checked.get(key)
        if found is None:
            with self._services.database.read() as session:
                found = pin(self._services, session, spec, self._names)
            if len(self._checked) >= _KEPT:
                self._checked.clear()
            self._checked[key] = found
        elif isinstance(spec, Generate):
            refuse_unfit_prompts(spec, found.family)
        return found


def _what_is_checked(spec: Spec) -> tuple[object, ...]:
    """What `pin` looks at, but for the prompts."""
    params = json.dumps(spec.params, sort_keys=True) if spec.params else ""
    own: Any = spec.label if isinstance(spec, Generate) else getattr(spec, "family", None)
    return spec.kind, spec.model, spec.dataset, own, params


def _cut_into_shards(
    spec: Spec, terms: Pinned, shard_s: float, size: int | None
) -> list[tuple[int, int]]:
    """Cut a generate job into shards; any other job is one shard.

    By default, a shard has as many whole micro-batches as take about `shard_s`.
    """
    if not isinstance(spec, Generate) or isinstance(terms, PinnedTraining):
        return [(0, 1)]
    count, micro_batch = spec.count, terms.params.micro_batch
    if not size:
        wanted = max(samples_per_second(terms) * shard_s, count / MAX_SHARDS)
        size = math.ceil(wanted / micro_batch) * micro_batch
    if size < 1 or count > size * MAX_SHARDS:
        least = math.ceil(count / MAX_SHARDS)
        raise Refused(f"shard size {size}: {count} samples need at least {least} per shard")
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def samples_per_second(pinned: PinnedGeneration) -> float:
    """The speed of one worker."""
    # measured at the end of training
    return float(pinned.version.metrics.get("samples_per_second") or UNKNOWN_RATE)

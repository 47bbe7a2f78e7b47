"""Requests: jobs that have passed every check and can be stored.

What equal requests have in common (names, settings) is looked up and checked once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypedDict, Unpack

from pydantic_core import to_json

from db import workers
from db.interventions import check_priority
from db.new_jobs import NewJob
from db.registry import Reference
from scheduler.submission.chains import Families, check_waiting
from scheduler.submission.checks import holds_conversation, refuse_unfit_prompts
from scheduler.submission.pinning import Names, pin
from scheduler.submission.sharding import cut, fitting_size, publish_size, samples_per_second
from scheduler.submission.withdrawn_data import warn_of_job
from worker.identity import who
from worker.mark_profile import Profile
from worker.networks.family import Family
from worker.services import Services
from worker.services.marking import pin_marks_early
from worker.services.pinned import (
    Pinned,
    PinnedGeneration,
    PinnedPublication,
    format_in_row,
    hash_of,
)
from worker.services.prompts import row_of
from worker.specs import Evaluate, Generate, Promote, Publish, Spec

_KEPT = 1000  # checked combinations of names and settings


class Columns(TypedDict, total=False):
    """The columns of a job's row that do not follow from its spec."""

    priority: int
    idempotency_key: str | None  # the same key returns the same job
    custom_id: str | None
    schedule_id: str | None
    retry_of: str | None
    after_id: str | None  # the job before it; in a batch, its custom_id until it is stored
    wanted: int | None  # accepted samples, of an order with rules


@dataclass(frozen=True)
class Request:
    """A job that has passed every check and can be stored."""

    asked: Spec  # as submitted, before names were pinned
    terms: Pinned  # of this spec, or of one with the same names and settings
    rate: float | None  # samples a second of one worker; None unless it generates
    ranges: Sequence[tuple[int, int]]  # of samples, one per shard
    columns: Columns
    ignored: tuple[str, ...] = ()  # keys of a batch's line that change nothing

    @property
    def model(self) -> str:
        """The model's name, without a version."""
        return self.terms.model

    @property
    def family(self) -> Family:
        """The model's family."""
        return self.terms.family

    @cached_property
    def pinned(self) -> Pinned:
        """The spec with every name pinned."""
        spec: Any = self._completed.model_copy(update=self.terms.names)
        return replace(self.terms, spec=spec)

    @property
    def _completed(self) -> Spec:
        """The spec with the marks and the rules that were pinned."""
        asked, terms = self.asked, self.terms.spec
        if not isinstance(asked, Generate) or not isinstance(terms, Generate):
            return asked
        if (asked.marks, asked.accept) == (terms.marks, terms.accept):
            return asked
        return asked.model_copy(update={"marks": terms.marks, "accept": terms.accept})

    def new_job(self) -> NewJob:
        """The job to insert."""
        asked, data = self.asked, self.terms.data_of(self._completed)
        row, prompts_sha256 = row_of(asked, data)
        return NewJob(
            asked.kind,
            to_json(row).decode(),
            hash_of(data),
            self.terms.model,
            self.ranges,
            work_key=self.terms.work_key,
            prompts_sha256=prompts_sha256,
            owner=who(),
            **self.columns,
        )


@dataclass(frozen=True)
class Unchecked:
    """A job that is to wait for another, before anything but its spec's form is checked."""

    asked: Spec
    columns: Columns
    ignored: tuple[str, ...] = ()
    marks: Profile | None = None  # of samples, with their keys

    @property
    def model(self) -> str:
        """The model's name, without a version."""
        return Reference.parse(self.asked.model).name

    @property
    def added(self) -> dict[str, Any]:
        """What the row says besides the spec."""
        return {}

    @property
    def data(self) -> dict[str, Any]:
        """The plain data that the job's row keeps."""
        return _with_marks(self.asked, self.marks).model_dump(mode="json") | self.added

    def new_job(self) -> NewJob:
        """The job to insert, with its spec as it was asked for but for the marks."""
        data = self.data
        row, prompts_sha256 = row_of(self.asked, data)
        return NewJob(
            self.asked.kind,
            to_json(row).decode(),
            hash_of(data),
            self.model or None,
            (),
            prompts_sha256=prompts_sha256,
            owner=who(),
            **self.columns,
        )


@dataclass(frozen=True)
class Waiting(Unchecked):
    """A job that waits for another, of which all has been checked that is known yet."""

    family: Family = field(kw_only=True)

    @property
    def added(self) -> dict[str, Any]:
        """See `Unchecked.added`."""
        return format_in_row(self.family)


class Preparer:
    """Checks and pins specs and cuts them into shards; stores nothing.

    A name that is used again means the same version again.
    """

    def __init__(self, services: Services, names: Names | None = None) -> None:
        self._services = services
        self._names = names or Names()
        self._checked: dict[tuple[object, ...], tuple[Pinned, float | None]] = {}
        self._marks: dict[tuple[str, str], Profile] = {}  # of jobs that wait
        self._workers: int | None = None  # live ones

    def prepare(
        self,
        spec: Spec,
        *,
        shard_size: int | None = None,
        ranges: Sequence[tuple[int, int]] | None = None,
        **columns: Unpack[Columns],
    ) -> Request:
        """Check and pin a spec. Raises `Refused` or `NotFound`.

        A shard gets `shard_size` samples, by default as many as fit the live workers and the
        setting `shard_s` (`sharding`); `ranges` states the shards' samples explicitly.
        """
        check_priority(columns.get("priority", 0))
        terms, rate = self._terms(spec)
        if ranges is None:
            ranges = self._cut(spec, terms, rate, shard_size)
        if isinstance(terms, PinnedPublication):
            spec = terms.spec
        if isinstance(spec, Generate) and spec.accept:
            columns["wanted"] = spec.count
        return Request(spec, terms, rate, ranges, columns)

    def prepare_waiting(self, spec: Spec, made: Families, **columns: Unpack[Columns]) -> Waiting:
        """Check the spec of a job after others, which make versions of the models `made`."""
        check_priority(columns.get("priority", 0))
        marks = self.marks_of(spec)
        marked = _with_marks(spec, marks)
        with self._services.database.read() as session:
            family = check_waiting(self._services, session, marked, made, self._names)
        return Waiting(spec, columns, marks=marks, family=family)

    def marks_of(self, spec: Spec) -> Profile | None:
        """The marks of a job that will wait, with the keys that they have now."""
        if not isinstance(spec, Generate):
            return None
        key = spec.model, _plain(spec.marks)
        if key not in self._marks:
            with self._services.database.read() as session:
                found = pin_marks_early(self._services, session, spec)
            if len(self._marks) >= _KEPT:
                self._marks.clear()
            self._marks[key] = found
        return self._marks[key]

    def _cut(
        self, spec: Spec, terms: Pinned, rate: float | None, size: int | None
    ) -> list[tuple[int, int]]:
        """The ranges of a generate or publish job's shards; any other job is one shard."""
        if isinstance(terms, PinnedPublication):
            fits = publish_size(terms.items, lists_all=terms.lists_all)
            return cut(terms.items, size or (terms.items if terms.spec.job is None else fits))
        if not isinstance(spec, Generate) or not isinstance(terms, PinnedGeneration) or not rate:
            return [(0, 1)]
        if not size:
            size = fitting_size(
                spec.count,
                rate=rate,
                workers=self._workers or 0,
                shard_s=self._services.settings.shard_s,
                step=terms.params.micro_batch,
            )
        return cut(spec.count, size)

    def _terms(self, spec: Spec) -> tuple[Pinned, float | None]:
        key = _what_is_checked(spec)
        found = self._checked.get(key)
        if found is None:
            found = self._look_up(spec)
            if len(self._checked) >= _KEPT:
                self._checked.clear()
            self._checked[key] = found
        elif isinstance(spec, Generate):
            refuse_unfit_prompts(spec, found[0].family)
        return found

    def _look_up(self, spec: Spec) -> tuple[Pinned, float | None]:
        with self._services.database.read() as session:
            pinned = pin(self._services, session, spec, self._names)
            warn_of_job(session, pinned)
            if not isinstance(pinned, PinnedGeneration):
                return pinned, None
            if self._workers is None:
                self._workers = workers.count_live(session)
            return pinned, samples_per_second(session, pinned)


def _what_is_checked(spec: Spec) -> tuple[object, ...]:
    """What `pin` looks at, but for the prompts' content."""
    if isinstance(spec, Evaluate | Promote | Publish):
        return (spec.model_dump_json(),)
    params = json.dumps(spec.params, sort_keys=True) if spec.params else ""
    own: Any = spec.label if isinstance(spec, Generate) else getattr(spec, "family", None)
    talks = isinstance(spec, Generate) and holds_conversation(spec)
    rules = spec.accept if isinstance(spec, Generate) else None
    marks = _plain(spec.marks) if isinstance(spec, Generate) else ""
    return spec.kind, spec.model, spec.dataset, own, params, spec.format, talks, rules, marks


def _plain(marks: Profile | None) -> str:
    return marks.model_dump_json() if marks else ""


def _with_marks(spec: Spec, marks: Profile | None) -> Spec:
    return spec.model_copy(update={"marks": marks}) if marks else spec

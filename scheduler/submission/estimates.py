"""What jobs will cost, before they are enqueued; and what a training can be expected to come to."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from db import past_jobs
from db.past_jobs import PastGeneration, PastTraining
from db.tables import Job
from scheduler.submission.requests import Request, Unchecked, Waiting
from scheduler.submission.sharding import UNKNOWN_RATE
from worker.services import Services
from worker.services.estimates import (
    GenerationEstimate,
    TrainingEstimate,
    of_generation,
    training_estimate,
)
from worker.services.pinned import (
    PinnedGeneration,
    PinnedPublication,
    PinnedTraining,
    pin_model,
)
from worker.specs import Finetune, Generate, Train, is_seed_given, parse_spec

UNKNOWN_EVALUATION_S = 60.0
UNKNOWN_TRAINING_S = 180.0
UNKNOWN_PUBLISHING_RATE = 20.0  # items a second
KEPT = 1000  # estimates


@dataclass(frozen=True)
class Plan:
    """What a job would be: its pinned spec, number of shards and estimated cost.

    Of a training, `outside` are the seconds outside its budget, by stage, `epochs` what the budget
    holds, and `trainings` how many earlier ones both follow from.
    """

    spec: dict[str, Any]
    shards: int
    seconds: float  # of one worker's time
    bytes: int | None  # of samples; None without an earlier job to go by
    ignored: tuple[str, ...] = ()  # keys of a batch's line that change nothing
    outside: dict[str, float] = field(default_factory=dict)
    epochs: float | None = None
    trainings: int = 0
    advice: str | None = None


def estimate_each(
    services: Services, requests: Iterable[Request | Unchecked], *, together: bool = False
) -> Iterator[Plan]:
    """Estimate what each prepared job will cost; those of a batch run `together`."""
    history = _History(services, together=together)
    for request in requests:
        yield _plan(history, request)


def expected_of(services: Services, job: Job) -> TrainingEstimate | None:
    """What a training that is on record can be expected to take; None for any other job."""
    if job.kind not in {"train", "finetune"}:
        return None
    with services.database.read() as session:
        pinned = pin_model(session, parse_spec(job.spec))
        return training_estimate(session, pinned) if isinstance(pinned, PinnedTraining) else None


class _History:
    """What earlier jobs took, read once for each model and family, and what follows from it."""

    def __init__(self, services: Services, *, together: bool) -> None:
        self._services, self._together = services, together
        self._generations: dict[str, list[PastGeneration]] = {}
        self._trainings: dict[str, list[PastTraining]] = {}
        self._evaluations: dict[str, float] = {}
        self._made: dict[tuple[object, ...], GenerationEstimate] = {}

    def of_generation(self, request: Request, terms: PinnedGeneration) -> GenerationEstimate:
        """What making samples will take; a batch has many jobs that are alike."""
        count = request.asked.count if isinstance(request.asked, Generate) else 0
        key = (terms.model, terms.work_key, count)
        if key not in self._made:
            if len(self._made) >= KEPT:
                self._made.clear()
            self._made[key] = of_generation(
                self._past(terms.model),
                work_key=terms.work_key,
                micro_batch=terms.params.micro_batch,
                count=count,
                rate=request.rate or UNKNOWN_RATE,
                alone=not self._together,
            )
        return self._made[key]

    def _past(self, model: str) -> list[PastGeneration]:
        if model not in self._generations:
            with self._services.database.read() as session:
                self._generations[model] = past_jobs.generations(session, model)
        return self._generations[model]

    def evaluation_s(self, model: str) -> float:
        """What an evaluation of the model will take: as the latest did, or else those of others."""
        if model not in self._evaluations:
            with self._services.database.read() as session:
                found = past_jobs.seconds(session, "evaluate", model)
                found = found or past_jobs.seconds(session, "evaluate")
            self._evaluations[model] = median(found) if found else UNKNOWN_EVALUATION_S
        return self._evaluations[model]

    def of_training(self, pinned: PinnedTraining) -> TrainingEstimate:
        """What a training will take."""
        family = pinned.family.name
        with self._services.database.read() as session:
            if family not in self._trainings:
                self._trainings[family] = past_jobs.trainings(session, family)
            return training_estimate(session, pinned, self._trainings[family])


def _plan(history: _History, request: Request | Unchecked) -> Plan:
    if isinstance(request, Unchecked):
        return _plan_of_waiting(request)
    pinned, shards = request.pinned, len(request.ranges)
    # another one is drawn when the job is enqueued
    drawn = {} if is_seed_given(request.asked) else {"seed": None}
    if isinstance(pinned, PinnedTraining):
        made = history.of_training(pinned)
        return Plan(
            pinned.data | drawn,
            shards,
            made.total_s,
            None,
            outside=made.outside,
            epochs=made.epochs,
            trainings=made.trainings,
            advice=made.advice,
        )
    if isinstance(request.terms, PinnedGeneration):
        found = history.of_generation(request, request.terms)
        seconds, size = found.seconds or 0.0, found.size_bytes
        return Plan(pinned.data | drawn, shards, seconds, size, request.ignored)
    if isinstance(pinned, PinnedPublication):
        return Plan(pinned.data, shards, pinned.items / UNKNOWN_PUBLISHING_RATE, None)
    return Plan(pinned.data, shards, history.evaluation_s(pinned.model), None)


def _plan_of_waiting(waiting: Unchecked) -> Plan:
    """What a job will cost whose names may mean nothing yet."""
    asked, seconds = waiting.asked, UNKNOWN_EVALUATION_S
    if isinstance(asked, Train | Finetune):
        family = waiting.family if isinstance(waiting, Waiting) else None
        seconds = asked.max_seconds or (family.default_seconds if family else UNKNOWN_TRAINING_S)
    elif isinstance(asked, Generate):
        seconds = asked.count / UNKNOWN_RATE
    drawn = {} if is_seed_given(asked) or "seed" not in type(asked).model_fields else {"seed": None}
    return Plan(waiting.data | drawn, 1, seconds, None, waiting.ignored)

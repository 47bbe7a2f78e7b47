"""What a job will take, estimated from what earlier ones took, and how wrong such estimates were.

Estimates are pure functions of past jobs, so that one can be made again for a past job from those
before it: that is how `genmill doctor` finds the error.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from sqlalchemy.orm import Session

from db import datasets, past_jobs
from db.past_jobs import PastGeneration, PastTraining
from db.tables import DatasetVersion
from worker.networks.family import Family
from worker.services.pinned import PinnedTraining

STAGES = ("loading", "validating", "measuring speed", "storing")  # outside a training's budget
TRAININGS = 5  # of the latest that are alike


@dataclass(frozen=True)
class GenerationEstimate:
    """What a generate job will take; None where nothing is known to go by."""

    seconds: float | None  # of one worker's time
    size_bytes: int | None


@dataclass(frozen=True)
class Budget:
    """What a training may take: its limits, or the family's default where it states none."""

    max_steps: int | None
    max_seconds: float | None
    default_seconds: float


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training will take: in its budget, and outside of it, by stage.

    `outside` is empty and `epochs` None where no earlier training tells; so are `steps`, unless the
    budget limits them.
    """

    seconds: float  # of the budget
    outside: dict[str, float] = field(default_factory=dict)
    steps: float | None = None
    epochs: float | None = None
    trainings: int = 0  # that it follows from
    advice: str | None = None  # about a budget that is too short

    @property
    def outside_s(self) -> float:
        """Seconds outside the budget."""
        return sum(self.outside.values())

    @property
    def total_s(self) -> float:
        """Seconds in all."""
        return self.seconds + self.outside_s

    @property
    def stages(self) -> str:
        """The stages outside the budget, as in `loading 3 s, storing 1 s`."""
        return describe_stages(self.outside)


def describe_stages(seconds: Mapping[str, float]) -> str:
    """Stages with their times, as in `loading 3 s, storing 0.4 s`; none that takes no time."""
    told = ((name, f"{took:.0f}" if took >= 3 else f"{took:.1f}") for name, took in seconds.items())
    return ", ".join(f"{name} {took} s" for name, took in told if took != "0.0")


def of_generation(
    past: Sequence[PastGeneration],
    *,
    work_key: int | None,
    micro_batch: int,
    count: int,
    rate: float | None = None,
    alone: bool = True,
) -> GenerationEstimate:
    """What making `count` samples will take.

    A job has a fixed cost, of claiming and loading, and one for each sample. Forward passes always
    have `micro_batch` rows, so a job of few samples says little of the second, for which `rate`, in
    samples a second, stands until larger ones tell. Jobs that are not `alone` share both with
    others.
    """
    alike = [each for each in past if each.work_key == work_key]
    timed = [(_rows(each.samples, micro_batch), each.seconds) for each in alike if each.seconds]
    size = _mean_size(alike) or _mean_size(past)
    size_bytes = None if size is None else round(count * size)
    rate = _rate(timed, few=2 * micro_batch) or _at_least(rate, timed)
    if rate is None:
        return GenerationEstimate(None, size_bytes)
    if not timed or not alone:
        return GenerationEstimate(count / rate, size_bytes)
    fixed_s = max(0.0, median(took - rows / rate for rows, took in timed))
    return GenerationEstimate(fixed_s + _rows(count, micro_batch) / rate, size_bytes)


def training_estimate(
    session: Session,
    pinned: PinnedTraining,
    past: Sequence[PastTraining] | None = None,
    *,
    data: DatasetVersion | None = None,
) -> TrainingEstimate:
    """What a training will take.

    `past` are those of its family, if they have been read, and `data` the version of its dataset,
    which may have been hidden since.
    """
    spec, tuned = pinned.spec, pinned.version is not None
    data = data or datasets.resolve(session, spec.dataset)[1]
    found = of_training(
        past_jobs.trainings(session, pinned.family.name) if past is None else past,
        Budget(spec.max_steps, spec.max_seconds, pinned.family.default_seconds),
        dataset_id=data.dataset_id,
        data_bytes=int(data.summary.get("size_bytes") or 0),
        params=pinned.params.model_dump(mode="json"),
        tuned=tuned,
    )
    # a parent knows something already
    return found if tuned else replace(found, advice=advice_on(pinned.family, found))


def advice_on(family: Family, expected: TrainingEstimate) -> str | None:
    """What to know of a training from nothing whose budget is too short; None of any other."""
    steps, epochs = expected.steps, expected.epochs
    if steps is None or not family.is_short(steps, epochs):
        return None
    told = f"the budget holds about {steps:,.0f} steps"
    if not epochs:
        return f"{told}; {family.least}"
    took = f"An epoch takes about {expected.seconds / epochs:,.0f} s of training here"
    return f"{told}, {epochs:.2g} epochs; {family.least}. {took}"


def of_training(
    past: Sequence[PastTraining],
    budget: Budget,
    *,
    dataset_id: str,
    data_bytes: int,
    params: Mapping[str, Any],
    tuned: bool,
) -> TrainingEstimate:
    """What a training will take, from earlier ones of its family, the most similar ones first."""
    known = [each for each in past if each.metrics.get("stage_seconds")]
    near = [each for each in known if (each.dataset_id, each.tuned) == (dataset_id, tuned)]
    alike = [each for each in near if each.params == params][:TRAININGS]
    speed = _median(_speed(each) for each in alike)
    seconds = budget.max_seconds or math.inf
    if budget.max_steps is not None and speed:
        seconds = min(seconds, budget.max_steps / speed)
    if seconds == math.inf:
        seconds = budget.default_seconds
    steps = seconds * speed if speed else budget.max_steps
    like = (alike or near or known)[:TRAININGS]
    outside = {name: _median(_stage(each, name) for each in like) or 0.0 for name in STAGES}
    epochs = _median(_epochs_a_step(each, data_bytes) for each in alike)
    return TrainingEstimate(
        seconds,
        outside if like else {},
        steps,
        steps * epochs if steps and epochs else None,
        len(like),
    )


@dataclass(frozen=True)
class Misjudged:
    """How far estimates were from what jobs took: the median factor, and over how many jobs."""

    what: str
    factor: float
    jobs: int


def misjudged_generations(by_model: Iterable[Sequence[PastGeneration]]) -> list[Misjudged]:
    """How wrong the estimates of past generate jobs were; each model's come newest first.

    What nothing was known of before is left out.
    """
    times, sizes = list[float](), list[float]()
    for past in by_model:
        for place, each in enumerate(past):
            made = of_generation(
                past[place + 1 :],
                work_key=each.work_key,
                micro_batch=each.micro_batch,
                count=each.samples,
            )
            times += _factor(made.seconds, each.seconds)
            sizes += _factor(made.size_bytes, each.size_bytes)
    return [*_misjudged("time to generate", times), *_misjudged("size of samples", sizes)]


def misjudged_trainings(past: Sequence[PastTraining]) -> list[Misjudged]:
    """How wrong the estimates of past trainings were, which come newest first."""
    factors = list[float]()
    for place, each in enumerate(past):
        earlier = [other for other in past[place + 1 :] if other.family == each.family]
        made = of_training(
            earlier,
            # what it used of its budget stands for that: the rest is what is estimated
            Budget(None, each.metrics.get("seconds"), 0.0),
            dataset_id=each.dataset_id or "",
            data_bytes=each.data_bytes,
            params=each.params,
            tuned=each.tuned,
        )
        factors += _factor(made.total_s if made.trainings else None, each.seconds)
    return _misjudged("time to train", factors)


def _rows(samples: int, micro_batch: int) -> int:
    """The rows of the forward passes that make so many samples."""
    return -(-samples // micro_batch) * micro_batch


def _rate(timed: Sequence[tuple[int, float]], few: int) -> float | None:
    """Rows a second of the largest jobs; None if all have less than `few` rows."""
    most = max((rows for rows, _ in timed), default=0)
    if most < few:
        return None
    largest = [(rows, took) for rows, took in timed if 2 * rows >= most]
    return sum(rows for rows, _ in largest) / sum(took for _, took in largest)


def _at_least(rate: float | None, timed: Sequence[tuple[int, float]]) -> float | None:
    """A rate that no large job tells, but that is no lower than that of any small one."""
    return max([rate, *(rows / took for rows, took in timed)]) if rate else None


def _mean_size(past: Iterable[PastGeneration]) -> float | None:
    """The mean size of a sample over all of the jobs: a job of one sample counts as one."""
    found = [(each.samples, each.size_bytes) for each in past if each.size_bytes]
    samples = sum(count for count, _ in found)
    return sum(size for _, size in found) / samples if samples else None


def _speed(past: PastTraining) -> float | None:
    steps, seconds = past.metrics.get("steps"), past.metrics.get("seconds")
    return steps / seconds if steps and seconds else None


def _epochs_a_step(past: PastTraining, data_bytes: int) -> float | None:
    """Epochs of a dataset version of so many bytes that one step is, as past steps were."""
    epochs, steps = past.metrics.get("epochs"), past.metrics.get("steps")
    if not epochs or not steps:
        return None
    grown = past.data_bytes / data_bytes if past.data_bytes and data_bytes else 1.0
    return float(epochs / steps * grown)


def _stage(past: PastTraining, name: str) -> float | None:
    found: float | None = past.metrics["stage_seconds"].get(name)
    return found


def _median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return median(found) if found else None


def _factor(predicted: float | None, real: float | None) -> list[float]:
    """By which factor a prediction was wrong, in either direction; none without both."""
    if not predicted or not real or predicted <= 0 or real <= 0:
        return []
    return [abs(math.log(predicted / real))]


def _misjudged(what: str, logs: Sequence[float]) -> list[Misjudged]:
    return [Misjudged(what, math.exp(median(logs)), len(logs))] if logs else []

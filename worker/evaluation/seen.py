"""Made, held-out and training pictures, and what a judge finds in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from db.errors import Refused
from worker.evaluation import asking, samples
from worker.evaluation.judge import Judge, Judged, Labels, Pixels, look
from worker.evaluation.numbers import Numbers
from worker.evaluation.pictures import MAX_TRAIN, Items, choose, read_items
from worker.evaluation.request import Request
from worker.evaluation.samples import Asked
from worker.evaluation.stages import Stage
from worker.media import find_medium
from worker.metrics import ssim
from worker.metrics.distances import nearest
from worker.metrics.samples import Indices, Values
from worker.networks.network import Output


@dataclass(frozen=True)
class Seen:
    """Items and what the judge finds in them."""

    items: Items
    judged: Judged

    def first(self, count: int) -> "Seen":
        """The first of the items."""
        features, probabilities = self.judged
        return Seen(self.items.first(count), Judged(features[:count], probabilities[:count]))


@dataclass(frozen=True)
class Neighbours:
    """The nearest training item of each made and of each held-out item."""

    made: Values
    made_places: Indices  # in the training items
    held_out: Values


@dataclass(frozen=True)
class Pictures:
    """Everything that the numbers of pictures are computed from."""

    made: Pixels
    judged: Judged
    asked: Labels  # by the judge's numbers; -1: none
    held_out: Seen  # as many
    train: Seen
    neighbours: Neighbours
    names: Sequence[str]  # of the classes

    @property
    def other(self) -> Seen | None:
        """As many training items, in place of made ones: real against real."""
        count = len(self.made)
        return self.train.first(count) if len(self.train.items) >= count else None

    @cached_property
    def dissimilarities(self) -> tuple[Values, Values]:
        """1 - SSIM of random pairs of made and of held-out pictures, two or more of each."""
        made, real = self.made, self.held_out.items.pixels
        return ssim.pair_dissimilarities(made), ssim.pair_dissimilarities(real)


def require_judge(request: Request) -> Judge:
    """The request's judge, which pictures need."""
    assert request.judge is not None  # noqa: S101 - for mypy: whoever evaluates pictures has one
    return request.judge


def choose_held_out(request: Request) -> Items:
    """As many held-out items as samples. Raises `Refused` if there are fewer."""
    protocol = request.protocol
    chosen = choose(request.dataset, protocol.split, most=protocol.count, seed=protocol.seed)
    if len(chosen) < protocol.count:
        raise Refused(
            f"split {protocol.split} of {protocol.dataset} has {len(chosen):,} items, but "
            f"{protocol.count:,} samples are asked for: only equal numbers can be compared",
            remedy=f"use --count {len(chosen)} or fewer, or another split",
        )
    return read_items(request.dataset, chosen)


def ask(request: Request, held_out: Items) -> tuple[Asked, Labels]:
    """What samples are asked for, and their labels by the data's numbers, -1 where none."""
    none = np.full(len(held_out), -1, np.int64)
    known, names = request.network.shape.labels, request.dataset.manifest["shape"]["labels"]
    asked = request.protocol.asked
    if asked == asking.CAPTIONS:
        prompts = samples.captions_of(request.dataset, held_out.numbers.tolist())
        return Asked(prompts=prompts), none if held_out.labels is None else held_out.labels
    if asked == asking.LABELS and held_out.labels is not None:
        return Asked(samples.asked_labels(names, known, held_out.labels)), held_out.labels
    return Asked(), none


def see(
    request: Request,
    judge: Judge,
    held_out: Items,
    outputs: Sequence[Output],
    labels: Labels,
    stage: Stage,
) -> Pictures:
    """Look at made, held-out and training pictures, and find each one's nearest training item."""
    dataset, shape = request.dataset, request.network.shape
    made = find_medium(shape.media).pictures(outputs, shape)
    chosen = choose(dataset, "train", most=MAX_TRAIN, seed=request.protocol.seed)
    train = read_items(dataset, chosen)
    judged = look(judge, made, stage.part("judging samples", 0, 0.1).tick)
    real = look(judge, held_out.pixels, stage.part("judging held-out items", 0.1, 0.2).tick)
    known = look(judge, train.pixels, stage.part("judging training items", 0.2, 0.6).tick)
    near, places = nearest(judged.features, known.features)
    stage.tick(0.8, 1)
    neighbours = Neighbours(near, places, nearest(real.features, known.features)[0])
    stage.tick(1, 1)
    names = dataset.manifest["shape"]["labels"]
    return Pictures(
        made, judged, labels, Seen(held_out, real), Seen(train, known), neighbours, names
    )


def arrays_of(pictures: Pictures, numbers: Numbers) -> dict[str, npt.NDArray[Any]]:
    """The arrays that comparisons resample."""
    made, real = pictures.judged, pictures.held_out.judged
    arrays: dict[str, npt.NDArray[Any]] = {
        "made_features": made.features,
        "made_labels": pictures.asked.astype(np.int64),
        "made_nearest_train": pictures.neighbours.made.astype(np.float64),
        "made_probabilities": made.probabilities,
        "real_features": real.features,
        "real_nearest_train": pictures.neighbours.held_out.astype(np.float64),
        "real_probabilities": real.probabilities,
    }
    if "ssim_diversity" in numbers.found:
        pairs = pictures.dissimilarities
        arrays |= {"made_dissimilarity": pairs[0], "real_dissimilarity": pairs[1]}
    return arrays

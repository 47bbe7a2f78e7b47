"""Judging the samples of an order while its shards are made.

Pictures are judged by the network that the order names, which was trained on the data of the model;
texts by their characters. What is found is stored beside the shard's samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from db import evaluations
from db.commits import NewArtifact, blob_prefix
from db.orders import VERDICTS
from worker.acceptance import Acceptance
from worker.cleaning.rows import texts_of
from worker.data.dataset import DOCUMENTS, TRAIN, LocalDataset, Shape
from worker.engine.generate import Sample
from worker.evaluation import judge, stored_judges
from worker.evaluation.pictures import MAX_TRAIN, choose, read_items
from worker.media import find_medium
from worker.metrics.distances import nearest
from worker.services.verdicts import (
    AGREEMENT,
    CONFIDENCE,
    COPY,
    LONG,
    PASSED,
    SHORT,
    Codes,
    Signatures,
    Verdicts,
)
from worker.shards import wordings
from worker.shards.context import WorkerContext
from worker.shards.lease import Lease, hang_checks_paused
from worker.shards.storing import Part

RADIUS_QUANTILE = 0.01  # of the distances from held-out items to their nearest training items

Values = npt.NDArray[np.float32]
Found = tuple[Codes, Values, Signatures]


class Look(Protocol):
    """Judges a batch of samples."""

    radius: float

    def __call__(self, samples: Sequence[Sample]) -> Found:
        """Codes (N,), values (N,) and signatures (N, D)."""


class Judging:
    """The verdicts on one shard's samples."""

    def __init__(self, part: Part, look: Look) -> None:
        self._part, self._look = part, look
        self._waiting: list[Sample] = []
        self._found: list[Found] = []

    def add(self, samples: Sequence[Sample]) -> None:
        """Judge the next samples, once there are enough for a forward pass."""
        self._waiting += samples
        while len(self._waiting) >= judge.ROWS:
            self._judge(judge.ROWS)

    def store(self, context: WorkerContext) -> NewArtifact:
        """Judge the rest, and store the verdicts; the caller records them."""
        if self._waiting:
            self._judge(len(self._waiting))
        claim = self._part.lease.claim
        codes, values, signatures = (
            np.concatenate(each) for each in zip(*self._found, strict=True)
        )
        data = Verdicts(claim.start, codes, values, signatures, self._look.radius).encode()
        prefix = blob_prefix(claim.job_id)
        blob = context.services.store.put_bytes(prefix, data, durable=False)
        name = f"verdicts-{claim.idx:06d}.npz"
        return NewArtifact(
            VERDICTS, name, blob.key, blob.sha256, blob.size, "application/octet-stream"
        )

    def _judge(self, count: int) -> None:
        some, self._waiting = self._waiting[:count], self._waiting[count:]
        self._found.append(self._look(some))
        self._part.lease.raise_if_stopped()


@dataclass(frozen=True)
class Training:
    """The features of training items, and the distance within which a sample is a copy of one."""

    features: npt.NDArray[np.float32]
    radius: float


class PictureLook:
    """Judges pictures by a network; the features are the signatures."""

    def __init__(
        self,
        rules: Acceptance,
        network: judge.Judge,
        shape: Shape,
        labels: Sequence[str],
        training: Callable[[], Training],
    ) -> None:
        """`labels` are the judge's classes; `training` is asked where the rules need it."""
        self._rules, self._network, self._shape = rules, network, shape
        self._numbers = {label: number for number, label in enumerate(labels)}
        compares = not (rules.near_duplicates and rules.copies_of_training)
        self._training = training() if compares else None
        distance = self._training.radius if self._training else 0.0
        self.radius = distance**2 / network.width

    def __call__(self, samples: Sequence[Sample]) -> Found:
        """See `Look`."""
        outputs = [sample.output for sample in samples]
        pixels = find_medium(self._shape.media).pictures(outputs, self._shape)
        seen = judge.look(self._network, pixels, lambda _, __: None)
        codes, values = np.full(len(samples), PASSED, np.uint8), np.zeros(len(samples), np.float32)
        rules = self._rules
        if rules.copies_of_training is False and self._training is not None:
            found = nearest(seen.features, self._training.features)[0]
            _mark(codes, values, COPY, found <= self._training.radius, found)
        if seen.probabilities.shape[1]:
            asked = self._asked(samples, seen)
            if rules.agreement:
                wrong = seen.labels != asked
                _mark(codes, values, AGREEMENT, wrong, seen.labels)
            if rules.confidence is not None:
                known = seen.probabilities[np.arange(len(samples)), asked]
                sure = np.where(asked < 0, 0, known)
                _mark(codes, values, CONFIDENCE, sure < rules.confidence, sure)
        signatures = seen.features if not rules.near_duplicates else seen.features[:, :0]
        return codes, values, signatures

    def _asked(self, samples: Sequence[Sample], seen: judge.Judged) -> npt.NDArray[np.int64]:
        """The class that each sample should show: the one asked for, else the likeliest.

        -1 for a label that the judge does not know.
        """
        pairs = zip(samples, seen.labels.tolist(), strict=True)
        asked = [
            likeliest if sample.label is None else self._numbers.get(sample.label, -1)
            for sample, likeliest in pairs
        ]
        return np.array(asked, np.int64)


class TextLook:
    """Judges texts by their length, and by the runs of characters that they share with others."""

    radius = wordings.RADIUS

    def __init__(self, rules: Acceptance, training: Callable[[], wordings.Runs]) -> None:
        self._rules = rules
        self._training = None if rules.copies_of_training else training()

    def __call__(self, samples: Sequence[Sample]) -> Found:
        """See `Look`."""
        texts = [str(sample.output) for sample in samples]
        rules = self._rules
        codes, values = np.full(len(texts), PASSED, np.uint8), np.zeros(len(texts), np.float32)
        if self._training is not None:
            shared = np.array([self._training.share(text) for text in texts], np.float32)
            _mark(codes, values, COPY, shared > 0, shared)
        lengths = np.array([len(text) for text in texts], np.float32)
        if rules.min_length is not None:
            _mark(codes, values, SHORT, lengths < rules.min_length, lengths)
        if rules.max_length is not None:
            _mark(codes, values, LONG, lengths > rules.max_length, lengths)
        if rules.near_duplicates:
            return codes, values, np.zeros((len(texts), 0), np.float32)
        return codes, values, np.stack([wordings.signature(text) for text in texts])


def begin_judging(context: WorkerContext, part: Part, shape: Shape, folder: Path) -> Judging | None:
    """Judge a part's samples of this shape, if its job has rules; `folder` is scratch space."""
    rules = part.pinned.spec.accept
    return (
        None if rules is None else Judging(part, look_of(context, rules, part.lease, shape, folder))
    )


def look_of(
    context: WorkerContext, rules: Acceptance, lease: Lease, shape: Shape, folder: Path
) -> Look:
    """What judges samples of this shape by rules; `folder` is scratch space."""
    if not find_medium(shape.media).pictured:
        return TextLook(rules, lambda: _training_texts(context, rules))
    with hang_checks_paused([lease]):
        network = _network(context, rules, folder)
        dataset = context.dataset(str(rules.dataset))[1]
        training = partial(_training_items, context, rules, network, dataset)
        labels = dataset.manifest["shape"]["labels"]
        return PictureLook(rules, network, shape, labels, training)


def _mark(
    codes: Codes, values: Values, code: int, where: npt.NDArray[np.bool_], found: Any
) -> None:
    """Note a rule's verdict on samples that no earlier rule has rejected."""
    chosen = where & (codes == PASSED)
    codes[chosen], values[chosen] = code, np.asarray(found, np.float32)[chosen]


def _network(context: WorkerContext, rules: Acceptance, folder: Path) -> judge.Judge:
    """The judge that an order names."""
    key = f"judge {rules.judge}"
    if key not in context.kept:
        with context.services.database.read() as session:
            found = evaluations.judge_of_digest(session, str(rules.judge))
        path = folder / "judge.safetensors"
        context.services.store.fetch(found.key, path, sha256=found.sha256)
        context.keep(key, stored_judges.load(path, context.device))
    loaded: judge.Judge = context.kept[key]
    return loaded


def _training_items(
    context: WorkerContext,
    rules: Acceptance,
    network: judge.Judge,
    dataset: LocalDataset,
) -> Training:
    """The training items as the judge sees them; held-out ones show how near is near."""
    key = f"training {rules.judge} {rules.dataset}"
    if key not in context.kept:
        train = _features(dataset, "train", network)
        held_out = next(
            items
            for split in ("validation", "test", "train")
            if len(items := _features(dataset, split, network))
        )
        distances = nearest(held_out, train)[0]
        context.keep(key, Training(train, float(np.quantile(distances, RADIUS_QUANTILE))))
    found: Training = context.kept[key]
    return found


def _features(dataset: LocalDataset, split: str, network: judge.Judge) -> npt.NDArray[np.float32]:
    items = read_items(dataset, choose(dataset, split, most=MAX_TRAIN, seed=0))
    return judge.look(network, items.pixels, lambda _, __: None).features


def _training_texts(context: WorkerContext, rules: Acceptance) -> wordings.Runs:
    """The runs of characters of the training texts."""
    key = f"runs {rules.dataset}"
    if key not in context.kept:
        dataset = context.dataset(str(rules.dataset))[1]
        texts = (" ".join(texts_of(row)) for row in dataset.documents(TRAIN))
        size = (dataset.folder / DOCUMENTS).stat().st_size
        context.keep(key, wordings.Runs(texts, characters=size))
    found: wordings.Runs = context.kept[key]
    return found

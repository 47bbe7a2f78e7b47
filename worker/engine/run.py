"""One training run: what was asked, and the parts that it is made of."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from db.errors import Refused, TooLarge
from worker.data.dataset import LocalDataset, Shape
from worker.engine import memory
from worker.engine.budget import Budget
from worker.engine.checkpoints import Checkpoint, State
from worker.engine.device import deterministic
from worker.engine.weights import fill
from worker.feeds.feed import Arrays, Feed
from worker.files import digest_of, weights_digest
from worker.networks.family import Family
from worker.networks.network import Batch, Draw, Network
from worker.networks.params import TrainingParams
from worker.networks.version_folder import CONFIG, WEIGHTS_SUFFIX, read_record

VERSION = "version"  # the sub-folder of the version's files


@dataclass(frozen=True)
class Training:
    """What to train, and an empty work folder, where the version's files are written too.

    `parent` is the folder of the version to go on from; `resume` is a checkpoint of this very run.
    """

    family: Family
    params: TrainingParams
    dataset: LocalDataset
    folder: Path
    seed: int = 0
    max_steps: int | None = None
    max_seconds: float | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "fp32"
    parent: Path | None = None
    resume: Path | None = None
    checkpoint_every_s: float = 60.0

    @property
    def budget(self) -> Budget:
        """The limits asked for, or the family's default where there are none."""
        if self.max_steps is None and self.max_seconds is None:
            return Budget(None, self.family.default_seconds)
        return Budget(self.max_steps, self.max_seconds)

    def identity(self) -> str:
        """A hash of all that decides the run's numbers: a checkpoint fits this run alone."""
        asked = {
            "family": self.family.name,
            "params": self.params.model_dump(mode="json"),
            "seed": self.seed,
            "budget": [self.max_steps, self.max_seconds],
            "precision": self.precision,
            "dataset": digest_of(self.dataset.folder / "manifest.json"),
            "parent": _digest_of_weights(self.parent) if self.parent else None,
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


@dataclass
class Run:
    """The parts of a run under way."""

    training: Training
    network: Network
    feed: Feed
    parts: Checkpoint
    relabel: npt.NDArray[np.int64] | None
    identity: str

    @property
    def version(self) -> Path:
        """The folder of the files that will make the version."""
        return self.training.folder / VERSION

    def batch(self, step: int) -> Batch:
        """The training batch of a step: a pure function of (dataset, seed, step)."""
        seed_torch(self.training.seed, "step", step)
        return self._batch(self.feed.train(step), "train", step)

    def validation(self, *, whole: bool = True) -> Iterator[Batch]:
        """The validation batches that the network asks for, the same each time.

        Not `whole`: about every eighth of them, four at least, for the looks along the way.
        """
        limit, stride = self.network.validation_batches, 1 if whole else self._stride
        for place, arrays in enumerate(self.feed.validation()):
            if limit and place >= limit:
                return
            if place % stride == 0:
                yield self._batch(arrays, "validation", place)

    @cached_property
    def _stride(self) -> int:
        if self.network.validation_batches:
            return 1
        return min(8, max(1, sum(1 for _ in self.feed.validation()) // 4))

    def _batch(self, arrays: Arrays, purpose: str, place: int) -> Batch:
        data, labels = arrays
        if labels is not None and self.relabel is not None:
            labels = self.relabel[labels]
        device = self.training.device
        return Batch(
            torch.from_numpy(data).to(device),
            None if labels is None else torch.from_numpy(labels).to(device),
            Draw(derive(self.training.seed, purpose), [place], device),
        )


def begin(training: Training) -> Run:
    """Build a run's parts: from nothing, from a parent version, or from a checkpoint."""
    deterministic()
    files = training.folder / VERSION
    files.mkdir(parents=True, exist_ok=True)
    make = training.family.network()
    if training.parent:
        _copy_files(training.parent, files)
    feed = make.feed(training.params, training.dataset, seed=training.seed, files=files)
    shape = _shape(training, feed.shape)
    memory.require(
        memory.network_bytes(make, training.params, shape),
        training.device,
        what=f"training this {training.family.name}",
        remedy="take smaller parameters",
    )
    seed_torch(training.seed, "weights", 0)
    network = make(training.params, shape)
    if training.parent:
        _fill_from(training.parent, network, training.device)
    network.load_files(files)
    if training.parent:
        network.begin_finetuning()
    network.to(training.device)
    parts = Checkpoint(network, network.optimizers(), State(), {})
    identity = training.identity()
    if training.resume:
        parts.restore(training.resume, identity=identity)
    return Run(training, network, feed, parts, _relabelling(feed.shape, shape), identity)


def derive(seed: int, purpose: str) -> int:
    """Another seed for each purpose, so that no two share their numbers."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_torch(seed: int, purpose: str, step: int) -> None:
    """Seed torch's own generator, which initial weights and dropout draw from, by (seed, step)."""
    torch.manual_seed(derive(seed, f"{purpose}/{step}"))


def _shape(training: Training, found: Shape) -> Shape:
    """The network's shape: the parent's where there is one, which the dataset must then fit."""
    if training.parent is None:
        return found
    config = read_record(training.parent)
    shape = Shape.from_json(config["shape"])
    if config["family"] != training.family.name:
        raise Refused(f"the parent is a {config['family']}, not a {training.family.name}")
    for key in ("media", "size", "channels", "vocabulary", "sample_rate"):
        was, now = getattr(shape, key), getattr(found, key)
        if was != now:
            raise Refused(f"the dataset's {key} is {now!r}; the parent version's is {was!r}")
    if strange := set(found.labels) - set(shape.labels):
        raise Refused(
            f"the dataset has labels that the parent version has not: {sorted(strange)[:10]}; "
            f"it has: {', '.join(shape.labels) or 'none'}"
        )
    if shape.labels and not found.labels:
        raise Refused("the parent version has labels and the dataset has none")
    return shape


def _fill_from(parent: Path, network: Network, device: torch.device) -> None:
    try:
        fill(network, parent, device=device)
    except TooLarge:
        raise
    except Refused as error:
        raise Refused(
            f"the parent's weights do not fit these parameters ({error}); leave parameters that "
            "change the network as the parent has them"
        ) from None


def _relabelling(found: Shape, shape: Shape) -> npt.NDArray[np.int64] | None:
    """The network's label number for each of the dataset's, where they differ."""
    if found.labels == shape.labels:
        return None
    return np.array([shape.labels.index(name) for name in found.labels], dtype=np.int64)


def _copy_files(parent: Path, folder: Path) -> None:
    """Bring what the family keeps beside the weights, a tokenizer say, into `folder`."""
    for path in sorted(parent.iterdir()):
        if path.suffix != WEIGHTS_SUFFIX and path.name != CONFIG:
            shutil.copyfile(path, folder / path.name)


def _digest_of_weights(folder: Path) -> str:
    weights = sorted(folder.glob(f"*{WEIGHTS_SUFFIX}"))
    return weights_digest({path.name: digest_of(path) for path in weights})

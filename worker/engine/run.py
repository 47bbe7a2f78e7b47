"""One training run: its request, and the network, feed and optimiser states that it consists of."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from db.errors import BadInput, Refused
from worker.data.dataset import LocalDataset, Shape
from worker.engine import memory
from worker.engine.budget import Budget, cadences
from worker.engine.checkpoints import Checkpoint, State
from worker.engine.device import deterministic
from worker.engine.monitor import Monitor
from worker.engine.weights import fill
from worker.feeds.feed import Arrays, Feed
from worker.files import digest_of, weights_digest
from worker.networks.family import Family
from worker.networks.network import Batch, Draw, Network
from worker.networks.params import TrainingParams
from worker.networks.version_folder import CONFIG, WEIGHTS_SUFFIX, format_of, read_record

VALIDATION_SHARE = 0.03  # of the time of the steps between two validations
FORWARDS = 3  # passes that take as long as a step on as many rows
VERSION = "version"  # the sub-folder of the version's files


@dataclass(frozen=True)
class Training:
    """A request to train, and the empty folder to work in.

    `parent` is the folder of the version to fine-tune; `resume` is a checkpoint of this same run.
    Once `ends_early` says so, given the steps or seconds of the budget that are spent, the run ends
    as if all were.
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
    ends_early: Callable[[float], bool] = lambda _: False

    @property
    def budget(self) -> Budget:
        """The requested limits, or the family's default if there are none."""
        if self.max_steps is None and self.max_seconds is None:
            return Budget(None, self.family.default_seconds)
        return Budget(self.max_steps, self.max_seconds)

    def fingerprint(self) -> str:
        """A hash of everything that determines the run's numbers; its checkpoints carry it."""
        weights = sorted(self.parent.glob(f"*{WEIGHTS_SUFFIX}")) if self.parent else []
        parent = weights_digest({path.name: digest_of(path) for path in weights})
        request = {
            "family": self.family.name,
            "params": self.params.model_dump(mode="json"),
            "seed": self.seed,
            "budget": [self.max_steps, self.max_seconds],
            "precision": self.precision,
            "dataset": digest_of(self.dataset.folder / "manifest.json"),
            "parent": parent if self.parent else None,
        }
        if self.family.format > 1:  # so that the checkpoints of runs before that still fit
            request["format"] = self.family.format
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


@dataclass
class Run:
    """A run in progress. `label_map`: the network's number of each of the dataset's labels."""

    training: Training
    network: Network
    feed: Feed
    parts: Checkpoint
    label_map: npt.NDArray[np.int64] | None
    fingerprint: str

    @property
    def version(self) -> Path:
        """The folder that the version's files are written into."""
        return self.training.folder / VERSION

    def batch(self, step: int) -> Batch:
        """The training batch of a step: a pure function of (dataset, seed, step)."""
        seed_torch(self.training.seed, "step", step)
        return self._batch(self.feed.train(step), "train", step)

    def validation(self, *, whole: bool = True) -> Iterator[Batch]:
        """The validation batches that the network asks for, the same each time.

        With `whole=False` every eighth of them, or more often so that there are at least four; and
        fewer where a validation would take more than a few percent of the steps before it. For
        validations during training.
        """
        stride = 1 if whole else self._stride
        for index, arrays in enumerate(self._held_out()):
            if index % stride == 0:
                yield self._batch(arrays, "validation", index)

    def validation_count(self, *, whole: bool = True) -> int:
        """How many batches `validation` yields."""
        return -(-len(self._sizes) // (1 if whole else self._stride))

    def epochs(self, steps: int) -> float:
        """How often as much data as the training split holds was seen in so many steps."""
        return steps * self.training.params.batch_size / max(self.feed.train_count, 1)

    @cached_property
    def _sizes(self) -> list[int]:
        """The rows of each validation batch."""
        return [len(data) for data, _ in self._held_out()]

    @cached_property
    def _stride(self) -> int:
        sizes = self._sizes
        stride = min(8, max(1, len(sizes) // 4))
        affordable = self._affordable_rows
        if affordable is None or not sizes:
            return stride
        return max(stride, math.ceil(sum(sizes) / max(affordable, 1)))

    @property
    def _affordable_rows(self) -> float | None:
        """Rows of a validation during training; None: any number.

        A pure function of the request, because validations decide which weights are kept.
        """
        params, steps = self.training.params, self.training.max_steps
        # a network that is judged needs many rows, and a user who says how often accepts the cost
        if self.network.rolls_back or params.validate_every or steps is None:
            return None
        between = cadences(params)["validation"].steps_apart(steps)
        return VALIDATION_SHARE * FORWARDS * between * params.batch_size

    def _held_out(self) -> Iterator[Arrays]:
        return islice(self.feed.validation(), self.network.validation_batches or None)

    def _batch(self, arrays: Arrays, purpose: str, index: int) -> Batch:
        data, labels = arrays
        if labels is not None and self.label_map is not None:
            labels = self.label_map[labels]
        device = self.training.device
        return Batch(
            torch.from_numpy(data).to(device),
            None if labels is None else torch.from_numpy(labels).to(device),
            Draw([(derive_seed(self.training.seed, purpose), index)], device),
        )


def build_run(training: Training) -> Run:
    """Build a run: from scratch, from a parent version, or from a checkpoint.

    Raises `Refused` if parameters, dataset and parent do not fit together, `TooLarge` or
    `ShortOfMemory` if the network does not fit into memory.
    """
    deterministic()
    files = training.folder / VERSION
    files.mkdir(parents=True, exist_ok=True)
    make = training.family.network()
    if training.parent:
        for path in sorted(training.parent.iterdir()):  # a tokenizer, for example
            if path.suffix != WEIGHTS_SUFFIX and path.name != CONFIG:
                shutil.copyfile(path, files / path.name)
    feed = make.feed(training.params, training.dataset, seed=training.seed, files=files)
    shape = _shape(training, feed.shape)
    memory.require(
        memory.network_bytes(make, training.params, shape),
        training.device,
        what=f"training this {training.family.name}",
        remedy="choose a smaller network",
    )
    seed_torch(training.seed, "weights", 0)
    network = make(training.params, shape)
    if training.parent:
        _load_parent(network, training, training.parent)
    network.load_files(files)
    network.examples = network.examples or feed.examples
    if training.parent:
        network.begin_finetuning()
    network.to(training.device)
    parts = Checkpoint(network, network.optimizers(), State(), {})
    fingerprint = training.fingerprint()
    if training.resume:
        parts.restore(training.resume, fingerprint=fingerprint)
    label_map = None
    if feed.shape.labels != shape.labels:
        label_map = np.array([shape.labels.index(name) for name in feed.shape.labels], np.int64)
    return Run(training, network, feed, parts, label_map, fingerprint)


def require_memory(run: Run, monitor: Monitor) -> memory.Footprint:
    """Measure what the run takes, and log it. Raises as `memory.require`."""
    training, network, batch = run.training, run.network, run.batch(0)
    rows = min(len(batch.data), network.rows_at_once or len(batch.data))
    found = memory.footprint(network, batch, precision=training.precision)
    held_out = next(run.validation(whole=False), batch)
    needed = found.training_bytes(rows) + memory.beside_bytes(network, found, held_out)
    setting = "micro_batch" if "micro_batch" in type(training.params).model_fields else "batch_size"
    memory.require(
        needed,
        training.device,
        what=f"training on {rows} rows at once",
        remedy=f"choose a {setting} below {rows}, or a smaller network",
    )
    monitor.log(f"needs about {memory.to_gb(needed)} of memory on {training.device}")
    return found


def derive_seed(seed: int, purpose: str) -> int:
    """A seed for one purpose, so that no two purposes share random numbers."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_torch(seed: int, purpose: str, step: int) -> None:
    """Seed torch's global generator, which initial weights and dropout draw from."""
    number = derive_seed(seed, f"{purpose}/{step}")
    # `torch.manual_seed` takes longer: it looks for every kind of device
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.cuda.manual_seed_all(number)


def _shape(training: Training, found: Shape) -> Shape:
    """The network's shape: the parent's if there is one, which the dataset must then fit."""
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
            f"the parent version does not know the dataset's labels {sorted(strange)[:10]}; "
            f"it knows: {', '.join(shape.labels) or 'none'}"
        )
    if shape.labels and not found.labels:
        raise Refused("the parent version has labels, and the dataset has none")
    return shape


def _load_parent(network: Network, training: Training, parent: Path) -> None:
    number = format_of(read_record(parent))
    steps = training.family.steps_from(number, what=f"{CONFIG} of the parent")
    try:
        fill(network, parent, steps, device=training.device)
    except BadInput as error:
        remedy = "keep the parent's values of the parameters that change the network"
        raise BadInput(error.message, remedy=error.remedy or remedy) from None

"""Shared by tests of families and of the engine: tiny datasets, small networks, a monitor."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from db.errors import Draining
from worker.data.dataset import CAPTIONS, LocalDataset, Shape
from worker.engine.generate import Generation, Sample, generate
from worker.engine.train import Trained, Training, train
from worker.networks.family import Family
from worker.networks.network import Network
from worker.networks.params import SamplingParams, TrainingParams
from worker.specs import parse_params

# for each family those that it has, so that a new family needs no line here
SMALL: dict[str, Any] = {
    "channels": 8, "latent": 8, "hidden": 32, "layers": 1, "heads": 2, "width": 32, "context": 16,
    "batch_size": 16, "restarts": 1, "iwae_samples": 1, "stacks": 1, "dilations": 3,
}  # fmt: skip
SMALL_SAMPLING = {"max_tokens": 12, "seconds": 0.03, "micro_batch": 16}
SENTENCES = [
    f"The {animal} {verb} the {thing}. "
    for animal in ("cat", "dog", "hen")
    for verb in ("sees", "has", "likes")
    for thing in ("mat", "hat", "box", "car")
]


class Recorder:
    """A `Monitor` that keeps everything, and drains the run once `drain_at` steps are done."""

    def __init__(self, *, drain_at: int | None = None, keep: Path | None = None) -> None:
        self.drain_at = drain_at
        self.keep = keep
        self.told: list[tuple[float, float, str, float | None]] = []
        self.stages_told: list[list[Mapping[str, Any]]] = []
        self.logs: list[str] = []
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self.previews: list[tuple[str, bytes, str]] = []
        self.checkpoints: list[tuple[int, Path | None]] = []

    def progress(
        self, done: float, total: float, unit: str, *, eta_s: float | None = None, note: str = ""
    ) -> None:
        self.told.append((done, total, unit, eta_s))
        if self.drain_at is not None and done >= self.drain_at:
            raise Draining

    def stages(self, under_way: Sequence[Mapping[str, Any]]) -> None:
        self.stages_told.append(list(under_way))

    def log(self, message: str, *, level: str = "info") -> None:
        self.logs.append(f"{level}: {message}")

    def points(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.curves.setdefault(name, []).append((step, value))

    def preview(self, name: str, path: Path, media_type: str) -> None:
        self.previews.append((name, path.read_bytes(), media_type))

    def checkpoint(self, step: int, path: Path) -> None:
        copy = None
        if self.keep is not None:
            copy = self.keep / f"{step}.safetensors"
            copy.write_bytes(path.read_bytes())
        self.checkpoints.append((step, copy))


def image_dataset(
    folder: Path,
    *,
    size: int = 12,
    channels: int = 1,
    labels: tuple[str, ...] = ("bar", "disc"),
    captioned: bool = False,
) -> LocalDataset:
    """96 pictures: upright bars and discs, at random places and of random brightness."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    kinds = np.arange(96) % 2
    pictures = []
    for kind in kinds:
        top, left = draw.uniform(0.35, 0.65, 2) * size
        across, down = (x - left) / (0.1 if kind == 0 else 0.25), (y - top) / 0.25
        shade = np.exp(-((across**2 + down**2) / size**2) * 2)[..., None]
        pictures.append(shade * draw.uniform(180, 255, channels))
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", np.stack(pictures).astype(np.uint8))
    np.save(folder / "split.npy", (np.arange(96) >= 64).astype(np.uint8))
    if labels:
        np.save(folder / "labels.npy", (kinds if len(labels) > 1 else 0 * kinds).astype(np.int64))
    if captioned:
        texts = ("an upright bar", "a disc")
        rows = [json.dumps({"text": texts[kind]}) + "\n" for kind in kinds]
        (folder / CAPTIONS).write_text("".join(rows), "utf-8")
    shape = Shape("image", labels=labels, size=size, channels=channels)
    return _with_manifest(folder, "image", shape)


def text_dataset(folder: Path) -> LocalDataset:
    """Short sentences, in two documents a split."""
    folder.mkdir(parents=True)
    texts = [(0, SENTENCES[::2]), (0, SENTENCES[1::3]), (1, SENTENCES[::5]), (1, SENTENCES[1::5])]
    rows = [json.dumps({"split": split, "text": "".join(some)}) + "\n" for split, some in texts]
    (folder / "documents.jsonl").write_text("".join(rows), "utf-8")
    return _with_manifest(folder, "text", Shape("text"))


def sound_dataset(folder: Path, *, labels: tuple[str, ...] = ("low", "high")) -> LocalDataset:
    """96 tones of a tenth of a second at 1,000 Hz: low and high ones, fading, with some noise."""
    draw = np.random.default_rng(0)
    kinds, lengths = np.arange(96) % 2, draw.integers(80, 120, 96)
    sounds = []
    for kind, length in zip(kinds, lengths, strict=True):
        time = np.arange(length) / 1000
        tone = np.sin(2 * np.pi * (50, 120)[kind] * time + draw.uniform(0, 6)) * np.exp(-10 * time)
        sounds.append(8000 * tone + draw.normal(0, 50, length))
    folder.mkdir(parents=True)
    np.save(folder / "sounds.npy", np.concatenate(sounds).astype(np.int16))
    np.save(folder / "offsets.npy", np.append(0, np.cumsum(lengths)))
    np.save(folder / "split.npy", (np.arange(96) >= 64).astype(np.uint8))
    if labels:
        np.save(folder / "labels.npy", kinds)
    return _with_manifest(folder, "audio", Shape("audio", labels=labels, sample_rate=1000))


def dataset_for(family: Family, folder: Path) -> LocalDataset:
    """A tiny dataset that the family learns from."""
    make = {"image": image_dataset, "text": text_dataset, "audio": sound_dataset}[family.media]
    return make(folder)


def small_params(family: Family, **given: Any) -> TrainingParams:
    """The family's parameters for a very small network."""
    known = {key: value for key, value in SMALL.items() if key in family.params.model_fields}
    if not family.trains:
        known["lr"] = 0.02  # an adapter of a random base has much to learn
    return parse_params(family.params, known | given, what=family.name)


def small_sampling(family: Family, **given: Any) -> SamplingParams:
    """The family's sampling settings, for short samples in small micro-batches."""
    fields = family.sampling.model_fields
    known = {key: value for key, value in SMALL_SAMPLING.items() if key in fields}
    return parse_params(family.sampling, known | given, what=family.name)


def small_training(
    family: Family, dataset: LocalDataset, folder: Path, *, params: Any = None, **given: Any
) -> Training:
    """A training of a small network on a dataset, in `folder`."""
    if not family.trains:
        given.setdefault("parent", base_for(dataset))
    given.setdefault("checkpoint_every_s", math.inf)  # never, however slow the machine is
    return Training(family, small_params(family, **(params or {})), dataset, folder, **given)


def train_small(family: Family, dataset: LocalDataset, folder: Path, **given: Any) -> Trained:
    """Train a small network for some steps."""
    return run(small_training(family, dataset, folder, **given))


def run(training: Training, monitor: Recorder | None = None) -> Trained:
    """Train, and add the parent's files to the version's own, as a recorded version has them."""
    trained = train(training, monitor or Recorder())
    for path in training.parent.iterdir() if training.parent else ():
        if not (trained.folder / path.name).exists():
            os.link(path, trained.folder / path.name)
    return trained


def base_for(dataset: LocalDataset) -> Path:
    """A tiny imported model to fine-tune, beside a text dataset."""
    from tests.families.causal import add_record, write_base  # transformers takes seconds

    folder = dataset.folder.with_name("base")
    return folder if folder.exists() else add_record(write_base(folder, SENTENCES))


def make(
    family: Family, network: Network, start: int, stop: int, *, seed: int = 5, **given: Any
) -> list[Sample]:
    """Samples `start` to `stop`."""
    asked = Generation(network, small_sampling(family), seed, start, stop, **given)
    return list(generate(asked, Recorder()))


def plain(samples: list[Sample]) -> list[object]:
    """Their outputs in a form that can be compared."""
    return [s.output if isinstance(s.output, str) else s.output.tobytes() for s in samples]


def _with_manifest(folder: Path, kind: str, shape: Shape) -> LocalDataset:
    manifest = {
        "kind": kind,
        "labels": list(shape.labels),
        "counts": {"train": 64, "validation": 32, "test": 0},
        "shape": shape.to_json(),
        "objects": [],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return LocalDataset(folder)

"""The closed loop on real digits, by commands alone: data in, retrained, judged, promoted or not.

A version is trained and becomes the champion. New digits come, and a schedule that fires only for
new data retrains: the gate promotes the result. Then damaged data come, their labels and pixels
shuffled, and the same schedule retrains again: the gate refuses. At last a command restores the
first version. All versions are measured against `digits:1`, which no later data touch: measured
against the newest data, the model of damaged data would be like them.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.machine import write_idx
from tests.results.classifier import read_idx

Run = Callable[..., tuple[int, str]]  # a command's words to its exit code and output
FIRST = 20_000  # digits that the first version learns from
PATIENCE_S = 120.0  # until the schedule fires


@dataclass(frozen=True)
class Budget:
    """How much is trained and measured."""

    family: str
    size: int  # of the digits
    settings: tuple[str, ...]  # of the family
    first_steps: int
    retrain_steps: int
    more: int  # digits that come later, and as many damaged ones
    count: int  # samples of an evaluation
    policy: str  # a policy file's content


@dataclass
class Story:
    """What the commands printed as JSON, and the champion after each chapter."""

    trained: Any = None  # `model show` of the first version
    retrained: Any = None  # the schedule's run for new data
    damaged: Any = None  # the schedule's run for damaged data
    history: Any = None  # of the model's alias, newest first
    champions: list[int] = field(default_factory=list)


def close_the_loop(run: Run, folder: Path, mnist: Path, budget: Budget) -> Story:
    """Tell the story on a machine that runs; a command that should succeed and fails ends it."""
    loop, story = _Loop(run, folder, budget), Story()
    sources = write_digits(mnist, folder, budget.more)
    loop.add_dataset(sources["first"])
    loop.train()
    story.trained = loop.json("model", "show", "digits")
    story.champions.append(loop.champion())

    loop.do("dataset", "update", "digits", sources["more"])
    loop.schedule()
    story.retrained = loop.next_run(succeeds=True)
    story.champions.append(loop.champion())

    loop.add_dataset(sources["damaged"])
    story.damaged = loop.next_run(succeeds=False)
    story.champions.append(loop.champion())

    loop.do("schedule", "pause", "nightly")
    loop.do("model", "rollback", "digits", "--why", "to see that it can be undone")
    story.champions.append(loop.champion())
    story.history = loop.json("model", "history", "digits")
    return story


def write_digits(mnist: Path, folder: Path, more: int) -> dict[str, Path]:
    """Write the data as IDX files: the first digits and MNIST's test digits, more, damaged ones."""
    images = read_idx(mnist / "train-images-idx3-ubyte.gz")
    labels = read_idx(mnist / "train-labels-idx1-ubyte.gz")
    later = slice(FIRST, FIRST + more)
    first = _write(folder / "first", "train", images[:FIRST], labels[:FIRST])
    tests = (read_idx(mnist / f"t10k-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
    _write(folder / "first", "t10k", *tests)
    return {
        "first": first,
        "more": _write(folder / "more", "train", images[later], labels[later]),
        "damaged": _write(folder / "damaged", "train", *damage(images[later], labels[later])),
    }


def damage(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shuffle the labels, and the pixels within each image."""
    random = np.random.default_rng(0)
    pixels = random.permuted(images.reshape(len(images), -1), axis=1)
    return pixels.reshape(images.shape), random.permutation(labels)


def _write(folder: Path, part: str, images: np.ndarray, labels: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_idx(folder / f"{part}-images-idx3-ubyte", images)
    write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
    return folder


class _Loop:
    """The commands of the story."""

    def __init__(self, run: Run, folder: Path, budget: Budget) -> None:
        self._run, self._budget = run, budget
        self._policy = folder / "policy.toml"
        self._policy.write_text(budget.policy)
        self._runs: list[str] = []  # the first jobs of the schedule's runs so far

    def do(self, *words: str | Path) -> str:
        """Run a command that must succeed; return its output."""
        code, output = self._run(*words)
        if code != 0:
            raise RuntimeError(f"genmill {' '.join(map(str, words))}: exit code {code}")
        return output

    def json(self, *words: str | Path) -> Any:
        return json.loads(self.do(*words, "--json"))

    def add_dataset(self, source: Path) -> None:
        """Add a version of the dataset that holds this source alone."""
        self.do("dataset", "add", "digits", source, "--size", str(self._budget.size))

    def champion(self) -> int:
        """The version that the bare name means, as the champion."""
        (found,) = self.json("model", "list")
        assert found["means"] == "champion", found
        return int(found["version"])

    def train(self) -> None:
        """Train, measure and promote the first version."""
        words = ["enqueue", "train", self._budget.family, "--name", "digits"]
        job = self.do(*words, *self._options(self._budget.first_steps), "--seed", "0")
        self.do("job", "wait", job, "--chain")

    def schedule(self) -> None:
        """Retrain whenever there are new data; it looks every second instead of every night."""
        when = ["--cron", "* * * * * *", "--only-if-new-data", "--seed", "0"]
        options = self._options(self._budget.retrain_steps)
        command = ["enqueue", "finetune", "digits", *options, "--set", "finetune_rate=0.5"]
        self.do("schedule", "add", "nightly", *when, "--", *command)

    def next_run(self, *, succeeds: bool) -> Any:
        """Wait until the schedule fires again and its chain has ended; return the run."""
        deadline = time.monotonic() + PATIENCE_S
        while not (job := self._new_job()):
            assert time.monotonic() < deadline, self.do("schedule", "show", "nightly")
            time.sleep(1)
        self._runs.append(job)
        code, _ = self._run("job", "wait", job, "--chain")
        assert code == (0 if succeeds else 1), self.do("job", "show", job)
        return next(run for run in self._fired() if run["job"] == job)

    def _new_job(self) -> str | None:
        return next((run["job"] for run in self._fired() if run["job"] not in self._runs), None)

    def _fired(self) -> list[Any]:
        runs = self.json("schedule", "show", "nightly")["runs"]
        return [run for run in runs if run["outcome"] == "fired"]

    def _options(self, steps: int) -> list[str]:
        """What all trainings have in common."""
        budget = self._budget
        return [
            *("--dataset", "digits", "--max-steps", str(steps)),
            *(f"--set={pair}" for pair in budget.settings),
            *("--evaluate-on", "digits:1", "--evaluate-count", str(budget.count)),
            *("--promote", "--policy", str(self._policy)),
        ]

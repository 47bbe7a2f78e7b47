"""A training in a process of its own that stores real checkpoints, to be killed at any moment.

A file asks for it: `family`, `dataset`, `base` (a folder, or null), `work`, `steps`, `pause_s`
after each step and the `params`. The folder `work` keeps the checkpoints, and at the end `weights`.
"""

import json
import time
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tests.families.kit import Recorder, small_params
from worker.data.dataset import LocalDataset
from worker.engine.checkpoints import BadCheckpoint
from worker.engine.run import Training
from worker.engine.train import Trained, train
from worker.families import find_family
from worker.files import durable_rename

STEP = "step"  # the file that holds the steps done


class Store(Recorder):
    """A monitor that keeps the two newest checkpoints in a folder, and tells how far it is."""

    def __init__(self, folder: Path, pause_s: float) -> None:
        super().__init__()
        self.folder = folder
        self.pause_s = pause_s

    def progress(self, done: float, total: float, unit: str, **more: Any) -> None:
        (self.folder / STEP).write_text(f"{done:g}")
        time.sleep(self.pause_s)

    def checkpoint(self, step: int, path: Path) -> None:
        part = self.folder / f".{step:06d}.part"
        part.write_bytes(path.read_bytes())
        durable_rename(part, self.folder / f"{step:06d}.safetensors")
        for old in checkpoints(self.folder)[2:]:
            old.unlink()


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    return sorted(folder.glob("[0-9]*.safetensors"), reverse=True)


def resume(training: Training, monitor: Store) -> Trained:
    """Train from the newest checkpoint that can be used, as a worker does."""
    for place, path in enumerate(checkpoints(monitor.folder)):
        try:
            return train(
                replace(training, resume=path, folder=training.folder / f"{place}"), monitor
            )
        except BadCheckpoint:
            continue
    return train(replace(training, folder=training.folder / "new"), monitor)


def run(request: Path) -> Path:
    """Train as the request says; the file of the version's weights."""
    asked = json.loads(request.read_text("utf-8"))
    family, work = find_family(asked["family"]), Path(asked["work"])
    with TemporaryDirectory(dir=work) as folder:
        training = Training(
            family,
            small_params(family, **asked["params"]),
            LocalDataset(Path(asked["dataset"])),
            Path(folder),
            seed=4,
            max_steps=asked["steps"],
            parent=Path(asked["base"]) if asked["base"] else None,
            checkpoint_every_s=0.0,
        )
        trained = resume(training, Store(work, asked["pause_s"]))
        return trained.files[0].replace(work / "weights")


def start(request: Path) -> BaseProcess:
    """Start a process that trains as the request says. It forks from one that has imported all."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_run_on_one_thread, args=(request,))
    process.start()
    return process


def _run_on_one_thread(request: Path) -> None:
    torch.set_num_threads(1)
    run(request)

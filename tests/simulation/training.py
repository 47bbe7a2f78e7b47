"""Simulated trainings: the real code of train jobs around an engine whose weights are hashes.

A step's weights follow from those of the step before, so a training that was interrupted anywhere
ends with the weights of one that was not, in worlds whose steps do not differ from try to try.
"""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from db import shards
from db.columns import id_bytes
from db.errors import Cancelled, Draining, NothingToKeep
from db.jobs import JobBrief
from db.tables import Checkpoint
from worker.engine.train import Trained, Training
from worker.services.pinned import PinnedTraining
from worker.shards import attempt
from worker.shards import train as real
from worker.shards.context import ShardResult, WorkerContext
from worker.shards.lease import Lease

if TYPE_CHECKING:
    from tests.simulation.threads import Process
    from tests.simulation.world import World

STEPS = 5
CHECKPOINTED = 0.5  # of the steps
WEIGHTS = "model.safetensors"
SHAPE = {"media": "image", "labels": [], "size": 28, "channels": 1}
LINE = """
WITH RECURSIVE line (job_id, distance) AS (
    SELECT :job, 0 UNION ALL
    SELECT retry_of, distance + 1 FROM jobs JOIN line ON jobs.id = job_id WHERE retry_of IS NOT NULL
)
SELECT step, key, lower(hex(sha256)) FROM line JOIN shards USING (job_id)
JOIN checkpoints ON shard_id = shards.id WHERE NOT bad
ORDER BY distance, checkpoints.fence DESC, step DESC
"""
Find = Callable[[Session, str], list[Checkpoint]]


def weights_after(steps: int) -> str:
    """The weights of a training after so many steps."""
    weights = ""
    for step in range(steps):
        weights = _step(weights, step)
    return weights


def _step(weights: str, step: int, noise: str = "") -> str:
    return hashlib.sha256(f"{weights} {step} {noise}".encode()).hexdigest()


class SimulatedTraining:
    """In place of `train_job`, which it calls, and of the engine."""

    def __init__(self, world: "World") -> None:
        self._world = world
        # what each process could resume from: step, key and digest, the best first
        self._known: dict[Process, list[tuple[int, str, str]]] = {}

    def stand_ins(self) -> list[tuple[Any, str, object]]:
        """What is replaced during a simulation: modules, names and what takes their places."""
        return [
            (attempt, "train_job", self._train_job),
            (real, "train", self._train),
            (real, "_log_request", lambda *_, **__: None),
            (real, "read_record", lambda _: {"shape": SHAPE}),
            (shards, "checkpoints_of_line", partial(self._look, shards.checkpoints_of_line)),
        ]

    def _train_job(
        self, context: WorkerContext, job: JobBrief, pinned: PinnedTraining, lease: Lease, _: Path
    ) -> ShardResult:
        with TemporaryDirectory(prefix="genmill-") as folder:
            return real.train_job(context, job, pinned, lease, Path(folder))

    def _look(self, find: Find, session: Session, job_id: str) -> list[Checkpoint]:
        """Look for checkpoints, and note which there are."""
        rows = self._world.services.database.driver.execute(LINE, {"job": id_bytes(job_id)})
        self._known[self._world.machine.process] = rows.fetchall()
        return find(session, job_id)

    def _train(self, training: Training, lease: Lease) -> Trained:
        world, random = self._world, self._world.machine.random
        self._require_newest(training.resume)
        step, weights = _read(training.resume)
        try:
            while step < STEPS and not training.ends_early(step):
                world.work(lease.claim)
                noise = str(lease.claim.fence) if world.happens("differs") else ""
                step, weights = step + 1, _step(weights, step, noise)
                lease.progress(step, STEPS, "steps")
                if random.random() < CHECKPOINTED:
                    _store(training, lease, step, weights)
        except (Draining, Cancelled):
            _store(training, lease, step, weights)
            raise
        if step < STEPS:
            if not step:
                raise NothingToKeep("told to end early before its first step")
            _store(training, lease, step, weights)
        return _write(training.folder / "version", step, weights)

    def _require_newest(self, resume: Path | None) -> None:
        """Break the rules if a training begins before a checkpoint that it could resume from."""
        used = hashlib.sha256(resume.read_bytes()).hexdigest() if resume else None
        for step, key, sha256 in self._known.get(self._world.machine.process, []):
            if sha256 == used:
                return
            if self._world.store.holds(key, sha256):
                found = f"a training does not resume from the checkpoint of step {step}, {key}"
                self._world.violate(iter([found]))


def _read(checkpoint: Path | None) -> tuple[int, str]:
    if checkpoint is None:
        return 0, ""
    found = json.loads(checkpoint.read_text())
    return found["step"], found["weights"]


def _store(training: Training, lease: Lease, step: int, weights: str) -> None:
    path = training.folder / "checkpoint"
    path.write_text(json.dumps({"step": step, "weights": weights}))
    lease.checkpoint(step, path)


def _write(folder: Path, steps: int, weights: str) -> Trained:
    folder.mkdir()
    for name, text in ((WEIGHTS, weights), ("config.json", json.dumps({"steps": steps}))):
        (folder / name).write_text(text)
    metrics = {"steps": steps, "samples_per_second": 1000.0}
    return Trained(folder, [folder / WEIGHTS, folder / "config.json"], metrics, steps, [])

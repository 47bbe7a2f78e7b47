"""Running simulations one after another on one database, with the stand-ins in place."""

import gc
import logging
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

from db import datasets, models, schema
from db.session import Database
from scheduler.submission import enqueue
from scheduler.submission.requests import Request
from tests.simulation import stand_ins
from tests.simulation.database import SimulatedDatabase
from tests.simulation.mutations import MUTATIONS
from tests.simulation.requests import DATA, MODEL, SPECS, WRITER
from tests.simulation.training import SHAPE
from tests.simulation.world import Violation, World
from worker.families import find_family
from worker.services import Services
from worker.settings import Settings
from worker.specs import Spec

DIGEST = "0" * 64
SPLITS = ("train", "validation", "test")
SEEDS_AT_ONCE = 1000  # of one process
GC_OBJECTS = 100_000  # new ones, between two collections


class Simulation(ExitStack):
    """Runs seeds, with the stand-ins in place during the `with` block."""

    def __init__(self, trace: Callable[[str], None] | None = None) -> None:
        super().__init__()
        self.steps = 0
        self.trace = trace

    def __enter__(self) -> "Simulation":
        super().__enter__()
        folder = Path(tempfile.mkdtemp(prefix="genmill-"))
        self.callback(shutil.rmtree, folder)
        template = folder / "template.db"
        make_template(template)
        self.database = SimulatedDatabase(template)
        self.callback(self.database.dispose)
        self.enter_context(patch.object(enqueue, "prepare", prepared(template)))
        self.enter_context(stand_ins.installed())
        self._spare_the_collector()
        logging.disable(logging.CRITICAL)
        self.callback(logging.disable, logging.NOTSET)
        return self

    def _spare_the_collector(self) -> None:
        self.callback(gc.set_threshold, *gc.get_threshold())
        self.callback(gc.unfreeze)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_OBJECTS)

    def run(self, seed: int) -> World:
        """Live through the world of a seed. Raises `Violation`."""
        world = World(seed, self.database, self.trace)
        try:
            world.run()
        except Violation as violation:
            violation.add_note(f"python -m tests.simulation --seed {seed} --trace")
            raise
        except Exception as error:
            raise Violation(f"an error that nobody foresaw: {type(error).__name__}") from error
        self.steps += world.machine.step
        return world


def first_violation(
    seeds: range,
    *,
    mutation: str | None = None,
    processes: int = 1,
    tell: Callable[[str], object] = lambda _: None,
) -> tuple[int, str] | None:
    """The first of the seeds that breaks a rule, and how; None if none does.

    `tell` is told how far it is.
    """
    parts = [seeds[at : at + SEEDS_AT_ONCE] for at in range(0, len(seeds), SEEDS_AT_ONCE)]
    run = partial(_first_of, mutation=mutation)
    with get_context("spawn").Pool(processes) if processes > 1 else nullcontext() as pool:
        for part, found in zip(
            parts, pool.imap(run, parts) if pool else map(run, parts), strict=True
        ):
            if found is not None:
                return found
            tell(f"seeds {part.start:,} to {part.stop - 1:,}: no violation")
    return None


def prepared(template: Path) -> Callable[..., Request]:
    """`prepare`, but what it looks up, checks and pins of a job is the same in all simulations."""
    services = Services(Settings(_env_file=None, database_url=f"sqlite:///{template}"))
    prepare = enqueue.prepare
    known = {spec.model_dump_json(): prepare(services, spec) for spec in SPECS}
    services.close()

    def prepare_again(now: Services, spec: Spec, *, ranges: Any = None, **options: Any) -> Request:
        request = known.get(spec.model_dump_json())
        if request is None:  # of a retry
            return prepare(now, spec, ranges=ranges, **options)
        options.pop("shard_size", None)
        columns = request.columns | options
        return replace(request, ranges=ranges or request.ranges, columns=columns)

    return prepare_again


def broken(mutation: str | None) -> AbstractContextManager[object]:
    """Leave out a rule of the protocol."""
    return MUTATIONS[mutation]() if mutation else nullcontext()


def _first_of(seeds: range, mutation: str | None) -> tuple[int, str] | None:
    with Simulation() as simulation, broken(mutation):
        for seed in seeds:
            try:
                simulation.run(seed)
            except Violation as violation:
                return seed, str(violation)
    return None


def make_template(path: Path) -> None:
    """A migrated database with models of pictures and of texts, and pictures to train on."""
    schema.upgrade(f"sqlite:///{path}")
    database = Database(f"sqlite:///{path}")
    with database.write() as session:
        for name, family in ((MODEL, "vae"), (WRITER, "gpt")):
            params = find_family(family).params.model_validate({}).model_dump(mode="json")
            models.add_version(
                session,
                name=name,
                family=family,
                params=params,
                files={},
                weights_sha256=DIGEST,
                metrics={"samples_per_second": 1000.0},
            )
        datasets.add_version(
            session,
            name=DATA,
            kind="image",
            manifest_key="datasets/blobs/pictures",
            manifest_sha256=DIGEST,
            summary={"labels": [], "counts": dict.fromkeys(SPLITS, 8), "shape": SHAPE},
        )
    database.dispose()

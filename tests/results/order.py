"""An order of 1,000 digits of one class, killed three times; copies of training in the output."""

import signal

import numpy as np
import torch

from db import evaluations, jobs, models
from scheduler.submission.enqueue import enqueue
from tests.results.classifier import read_idx
from tests.results.machine import DATA, Machine, Result
from worker.acceptance import Acceptance
from worker.data.dataset import Shape
from worker.engine.generation import Sample
from worker.evaluation import judge
from worker.media.samples.png import read_pixels
from worker.metrics.distances import nearest
from worker.services import Services, open_services
from worker.services.orders import read_selection
from worker.services.samples import entries, find_sample, read_sample
from worker.services.verdicts import COPY
from worker.settings import Settings
from worker.shards.sample_rules import RADIUS_QUANTILE, PictureLook, Training
from worker.specs import parse_spec

COUNT, PASSING, LABEL = 1000, 0.7, "3"
PILOT, SHARD = 500, 250  # samples
POINTS = ("claimed", "put_after", "committed")  # where a worker is killed
PLANTED, KNOWN, MOST_WRONG = 200, 10_000, 0.03


def order_of_a_thousand(machine: Machine) -> list[Result]:
    """Train a GAN and its judge; order; order again with workers that die; plant copies."""
    machine.run("dataset", "add", "digits", DATA / "mnist")
    words = ("enqueue", "train", "gan", "--name", "digits", "--dataset", "digits", "--seed", "1")
    machine.run(*words, "--max-steps", "400", "--wait")
    machine.run("enqueue", "evaluate", "digits", "--dataset", "digits", "--count", "500", "--wait")
    services = open_services(Settings(home=machine.folder / "home"))
    try:
        network, shape = _judge_of(services, machine), _shape_of(services)
        bar = _bar(services, machine, network)
        calm = _order(services, bar)
        machine.run("job", "wait", calm)
        killed = _killed_three_times(services, machine, bar)
        one, other = (_accepted(services, each) for each in (calm, killed))
        tried = max(index for index, _ in one) + 1
        return [
            _exactly(f"{COUNT / tried:.0%} of the samples pass", one),
            _exactly("its worker killed three times", other),
            Result(
                "order: digests of the two",
                "equal" if one == other else "DIFFERENT",
                "equal",
                one == other,
            ),
            *_copies(network, shape),
        ]
    finally:
        services.close()


def _exactly(about: str, accepted: list[tuple[int, str]]) -> Result:
    return Result(
        f"order: {COUNT:,} digits of one class, {about}",
        f"{len(accepted):,} accepted",
        f"exactly {COUNT:,}",
        len(accepted) == COUNT,
    )


def _judge_of(services: Services, machine: Machine) -> judge.Judge:
    with services.database.read() as session:
        version = models.resolve(session, "digits")[1]
        found = evaluations.own_judge(session, str(version.dataset_version_id))
    assert found is not None
    path = machine.folder / "judge.safetensors"
    services.store.fetch(found.key, path, sha256=found.sha256)
    return judge.load(path, torch.device("cpu"))


def _shape_of(services: Services) -> Shape:
    with services.database.read() as session:
        return Shape.from_json(models.resolve(session, "digits")[1].shape or {})


def _bar(services: Services, machine: Machine, network: judge.Judge) -> float:
    """The confidence that `PASSING` of the samples have."""
    words = ("enqueue", "generate", "digits", "--count", str(PILOT), "--label", LABEL)
    job = machine.run(*words, "--seed", "9", "--wait")
    samples = (read_sample(services, *find_sample(services, job, i)) for i in range(PILOT))
    pixels = np.stack([read_pixels(each) for each in samples]).reshape(PILOT, 28, 28, 1)
    sure = judge.look(network, pixels, lambda _, __: None).probabilities[:, int(LABEL)]
    return float(np.quantile(sure, 1 - PASSING))


def _order(services: Services, bar: float) -> str:
    rules = {"confidence": bar}
    spec = {"kind": "generate", "model": "digits", "count": COUNT, "label": LABEL, "seed": 3}
    return enqueue(services, parse_spec({**spec, "accept": rules}), shard_size=SHARD).id


def _killed_three_times(services: Services, machine: Machine, bar: float) -> str:
    """Order while no worker runs; let workers die one after the other, then one that lives."""
    machine.run("down")
    machine.run("up", "--detach", "--workers", "0")
    job = _order(services, bar)
    for point in POINTS:
        with machine.start("worker", GENMILL_FAILPOINT=point) as worker:
            assert worker.wait(timeout=300) == -signal.SIGKILL, point
    with machine.start("worker") as worker:
        try:
            machine.run("job", "wait", job)
        finally:
            worker.terminate()
    return job


def _accepted(services: Services, job_id: str) -> list[tuple[int, str]]:
    with services.database.read() as session:
        job = jobs.get(session, job_id)
    chosen = read_selection(services, job) or frozenset()
    digests = [entry.sha256 for entry in entries(services, job_id)]
    return [(index, digests[index]) for index in sorted(chosen)]


def _copies(network: judge.Judge, shape: Shape) -> list[Result]:
    """Training digits among unseen ones, by the rule that rejects copies of training."""
    train, test = (
        read_idx(DATA / "mnist" / f"{part}-images-idx3-ubyte.gz")[..., None]
        for part in ("train", "t10k")
    )
    known, held_out = (
        judge.look(network, pixels, lambda _, __: None).features
        for pixels in (train[:KNOWN], test[5000:])
    )
    radius = float(np.quantile(nearest(held_out, known)[0], RADIUS_QUANTILE))
    rules = Acceptance(copies_of_training=False)
    look = PictureLook(rules, network, shape, shape.labels, lambda: Training(known, radius))
    planted, unseen = (
        look([Sample(i, pixels, None, None, None, 64) for i, pixels in enumerate(some)])[0] == COPY
        for some in (train[:PLANTED], test[: PLANTED * 5])
    )
    return [
        Result(
            f"order: copies of training planted in the output, {PLANTED}",
            f"{int(planted.sum())} rejected",
            f"{PLANTED}",
            bool(planted.all()),
        ),
        Result(
            f"order: unseen digits that are rejected as copies, of {len(unseen):,}",
            f"{unseen.mean():.1%}",
            f"<= {MOST_WRONG:.0%}",
            float(unseen.mean()) <= MOST_WRONG,
        ),
    ]

"""What marks cost: jobs with all marks of `eu-art50` against jobs without, by the same workers."""

from collections.abc import Iterator
from functools import partial

from tests.bench.bench import Bench
from tests.bench.images import WORKERS, run_job
from tests.bench.machine import MODEL, Machine, add_model
from tests.bench.measure import Measure, compare

PROFILE = "eu-art50"
PHOTOS = "photos"  # a network of pictures of 64x64 pixels in colour, which carry a watermark too


def marks(bench: Bench) -> Iterator[Measure]:
    """Jobs with and without marks in turns, of images of 28x28 and of 64x64 pixels.

    One worker, as `genmill up` starts it, leaves room on two processors, where a thread packs and
    signs beside the network, as it does beside a GPU. Two workers keep both busy, and what marks
    take is taken from the networks: of each picture of 28x28 pixels a tenth by the signature alone.
    """
    for purpose in ("signing", "watermark"):
        bench.machine.run("key", "create", purpose)
    add_model(bench.machine, PHOTOS, "--size", "64", "--mode", "RGB")
    small, large = bench.size(40_000, 1_000), bench.size(8_000, 400)
    bench.machine.up(1)
    yield _against_none(bench, MODEL, "28x28", small, at_least=0.85)
    bench.machine.up(WORKERS)
    yield _against_none(bench, MODEL, "28x28", small, at_least=0.65)
    yield _against_none(bench, PHOTOS, "64x64, in colour", large, at_least=0.7)


def _against_none(bench: Bench, model: str, kind: str, count: int, *, at_least: float) -> Measure:
    def speed(marks: str) -> float:
        return count / run_job(bench.machine, count, model=model, marks=marks)

    for profile in (PROFILE, "none"):
        warm_up(bench.machine, model, profile)
    workers = {1: "one worker", WORKERS: "two workers"}[bench.machine.workers]
    name = f"{count:,} images of {kind} with {PROFILE}, against without marks, {workers}"
    sides = partial(speed, PROFILE), partial(speed, "none")
    return compare(name, "images/s", *sides, pairs=bench.pairs, at_least=at_least)


def warm_up(machine: Machine, model: str, profile: str) -> None:
    """Have the network loaded by every worker, and the first signature of each label made."""
    run_job(machine, 256 * WORKERS, model=model, marks=profile)

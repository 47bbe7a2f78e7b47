"""Training steps beside another process that keeps every core busy, against a quiet machine."""

import json
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.bench import Bench
from tests.bench.machine import Machine
from tests.bench.measure import Measure, compare
from tests.bench.sources import SOURCES, add_base, add_source

STEPS = {  # of a few seconds each on two quiet cores, at the family's defaults
    "gan": 60,
    "vae": 150,
    "text2image": 60,
    "wavenet": 12,
    "gpt": 40,
    "rnn": 30,
    "hmm": 10,
    "hf": 20,
}
QUICK = ("gan", "gpt")


def contention(bench: Bench) -> Iterator[Measure]:
    """Each family's job of a fixed number of steps on a real worker that may use all cores."""
    machine = Machine(bench.made_folder("contention"))
    bench.machine.down()
    machine.up(1)
    try:
        for family in QUICK if bench.quick else STEPS:
            yield of_family(bench, machine, family)
    finally:
        machine.close()


def of_family(bench: Bench, machine: Machine, family: str) -> Measure:
    """Seconds of training beside the busy process, and alone."""
    steps = STEPS[family] // (4 if bench.quick else 1)
    words = [*what_to_train(machine, family), "--max-steps", str(steps), "--seed", "1"]

    def train() -> float:
        job = machine.run("enqueue", *words)
        machine.wait(id=job)
        return machine.duration(job)

    def busy() -> float:
        with busy_cores():
            return train()

    train()  # data and networks are in caches
    name = f"{family}, {steps} training steps while another process keeps the cores busy"
    return compare(name, "s", busy, train, pairs=bench.pairs, at_most=2.2)


def what_to_train(machine: Machine, family: str) -> list[str]:
    """The words of the enqueue command; datasets and bases are added once."""
    source = SOURCES[family]
    have = [each["name"] for each in json.loads(machine.run("dataset", "list", "--json"))]
    if source not in have:
        add_source(machine, source)
    if family == "hf":
        models = [each["name"] for each in json.loads(machine.run("model", "list", "--json"))]
        if "base" not in models:
            add_base(machine)
        return ["finetune", "base", "--dataset", source]
    return ["train", family, "--dataset", source, "--name", f"busy-{family}"]


@contextmanager
def busy_cores() -> Iterator[None]:
    """As many busy processes as there are cores."""
    context = multiprocessing.get_context("spawn")
    burning = [context.Process(target=burn, daemon=True) for _ in range(os.cpu_count() or 1)]
    for process in burning:
        process.start()
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.join()


def burn() -> None:
    """Compute without end."""
    number = 1
    while True:
        number = number * 1_103_515_245 % 2_147_483_647

"""Many images in one job: against a loop by hand, against the network alone, and in memory."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.bench import hand_loop
from tests.bench.bench import Bench
from tests.bench.machine import MODEL, Machine
from tests.bench.measure import Measure, compare, summary
from tests.bench.processors import seconds_of

WORKERS = 2


def one_job(bench: Bench) -> Measure:
    """Two workers on one job, against the loop by hand in two processes."""
    return _against_the_hand_loop(bench, precision="fp32", at_least=1.1)


def one_job_in_bf16(bench: Bench) -> Measure:
    """The same in bfloat16; the loop by hand stays in fp32."""
    return _against_the_hand_loop(bench, precision="bf16", at_least=1.8)


def one_worker(bench: Bench) -> Measure:
    """One worker's job from its claim to its end, against the forward passes alone.

    The network has one thread on both sides.
    """
    count = bench.size(20_000, 1_000)
    bench.machine.up(1, threads="1")
    run_job(bench.machine, 256)  # the network is loaded

    def ours() -> float:
        return count / run_job(bench.machine, count)

    def baseline() -> float:
        return count / hand_loop.run_forwards(bench.model, count)

    name = f"one worker, {count:,} images, against the network alone"
    return compare(name, "images/s", ours, baseline, pairs=bench.pairs, at_least=0.9)


def ledger(bench: Bench) -> Iterator[Measure]:
    """One worker's job of several shards, against the same engine, packer and store alone.

    Wall time from the first claim to the job's end, and processor time of the worker's processes.
    """
    count = bench.size(60_000, 2_000)
    bench.machine.up(1, threads="1")
    run_job(bench.machine, 256)  # the network is loaded
    turns = [ledger_turn(bench.machine, count) for _ in range(bench.pairs)]
    name = f"one worker, {count:,} images, against the same engine without a ledger"
    for unit, sides in zip(("s", "processor s"), zip(*turns, strict=True), strict=True):
        yield summary(name, unit, sides, at_most=1.03)


def ledger_turn(machine: Machine, count: int) -> list[tuple[float, float]]:
    """Seconds of both sides, by the clock and by the processor."""
    pids = machine.worker_pids()
    before = seconds_of(pids)
    job = enqueue_images(machine, count)
    machine.wait(id=job)
    ours = machine.duration(job), seconds_of(pids) - before
    words = machine.python("-m", "tests.bench.without_ledger", str(machine.home), job).split()
    return list(zip(ours, map(float, words), strict=True))


def memory(bench: Bench) -> Measure:
    """Peak memory of a fresh worker, its processes together, for a hundred times the samples."""
    few = bench.size(2_000, 200)

    def peak(count: int) -> float:
        bench.machine.down()
        bench.machine.up(1)
        run_job(bench.machine, count)
        return peak_mib(bench.machine)

    name = f"peak memory of a worker, {100 * few:,} samples against {few:,}"
    return compare(
        name, "MiB", lambda: peak(100 * few), lambda: peak(few), pairs=bench.pairs, at_most=1.1
    )


def _against_the_hand_loop(bench: Bench, *, precision: str, at_least: float) -> Measure:
    count = bench.size(40_000, 2_000)
    settings = {} if precision == "fp32" else {"precision": precision}  # else those of other rows
    bench.machine.up(WORKERS, **settings)
    run_job(bench.machine, 256)  # the network is loaded

    def ours() -> float:
        return count / run_job(bench.machine, count)

    def baseline() -> float:
        return count / hand_loop.run_loop(bench.model, count, bench.new_folder("images"))

    name = f"{count:,} images in one job, two workers, {precision}"
    return compare(name, "images/s", ours, baseline, pairs=bench.pairs, at_least=at_least)


def run_job(machine: Machine, count: int, *, model: str = MODEL, marks: str = "none") -> float:
    """Seconds from the first claim to the end of a job of `count` images."""
    job = enqueue_images(machine, count, model=model, marks=marks)
    machine.wait(id=job)
    return machine.duration(job)


def enqueue_images(machine: Machine, count: int, *, model: str = MODEL, marks: str = "none") -> str:
    """Submit a job of `count` images with the marks of a profile."""
    words = ["--count", str(count), "--seed", "1", "--marks", marks]
    return machine.run("enqueue", "generate", model, *words)


def peak_mib(machine: Machine) -> float:
    """The sum of the peaks of the workers' processes, by the kernel."""
    pids = machine.worker_pids()
    pids += [pid for parent in pids for pid in children(parent)]
    return sum(status_kib(pid, "VmHWM") for pid in pids) / 1024


def children(parent: int) -> list[int]:
    """The child processes of a process."""
    return [
        int(path.name)
        for path in Path("/proc").glob("[0-9]*")
        if path.exists() and status_kib(int(path.name), "PPid") == parent
    ]


def status_kib(pid: int, key: str) -> int:
    """A number in a process's status; 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return 0
    found = re.search(rf"^{key}:\s*(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0

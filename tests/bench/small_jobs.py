"""Jobs of one image: from the enqueue command to the last result, and enqueueing alone."""

import json
import shutil
import time
from pathlib import Path

from tests.bench import plain_celery
from tests.bench.bench import Bench
from tests.bench.machine import MODEL, Machine
from tests.bench.measure import Measure, compare, seconds

WORKERS = 2
LINES_A_FILE = 1_000_000  # as many as a batch may have
LOOP = 5_000  # tasks that the `apply_async` loop is measured on


def one_image_jobs(bench: Bench) -> Measure:
    """Jobs from a batch file on two workers, against plain Celery with a task an image."""
    count = bench.size(5_000, 200)
    bench.machine.up(WORKERS)
    _ = bench.celery

    def ours() -> float:
        (file,) = batch_files(bench.new_folder("lines"), count)
        began = time.time()
        batch = bench.machine.run("enqueue", "batch", file)
        return count / (bench.machine.wait(batch_id=batch) - began)

    def baseline() -> float:
        return count / plain_celery.seconds_for(count, bench.new_folder("images"))

    name = f"{count:,} one-image jobs, two workers"
    return compare(name, "jobs/s", ours, baseline, pairs=bench.pairs, at_least=4)


def enqueueing(bench: Bench) -> Measure:
    """Jobs enqueued from a batch file, against `apply_async` in a loop; no worker runs."""
    count, loop = bench.size(100_000, 2_000), bench.size(LOOP, 1_000)
    files = batch_files(bench.new_folder("lines"), count)
    bench.machine.down()
    plain_celery.app.conf.broker_url = bench.broker

    def ours() -> float:
        fresh = copy_of(bench.machine, bench.new_folder("fresh"), broker=f"{bench.broker[:-1]}1")
        spent = seconds(lambda: [fresh.run("enqueue", "batch", file) for file in files])
        fresh.close()
        return count / spent

    def baseline() -> float:
        return loop / plain_celery.seconds_to_send(loop)

    name = f"enqueueing {count:,} one-image jobs"
    return compare(name, "jobs/s", ours, baseline, pairs=bench.pairs, at_least=6)


def batch_files(folder: Path, count: int) -> list[Path]:
    """Batch files of `count` jobs of one image in all."""
    folder.mkdir()
    files = []
    for start in range(0, count, LINES_A_FILE):
        path = folder / f"{start}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for seed in range(start, min(start + LINES_A_FILE, count)):
                line = {"kind": "generate", "model": MODEL, "count": 1, "seed": seed}
                file.write(json.dumps(line | {"custom_id": f"image-{seed}"}) + "\n")
        files.append(path)
    return files


def copy_of(machine: Machine, folder: Path, *, broker: str) -> Machine:
    """A machine with a copy of the home of one that is down, on another broker."""
    folder.mkdir()
    made = Machine(folder, {"GENMILL_REDIS_URL": broker})
    shutil.copytree(machine.home, made.home, ignore=shutil.ignore_patterns("run", "logs"))
    return made

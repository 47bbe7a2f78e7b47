"""The baseline of small jobs: plain Celery, a task an image, as a script would use it.

    python -m tests.bench.plain_celery worker BROKER_URL MODEL_FOLDER

runs two prefork processes on one queue. Nothing is recorded; a killed worker loses its tasks.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import redis
from celery import Celery

PROCESSES = 2
QUEUE = "images"
FOLDER = "PLAIN_CELERY_MODEL"
PATIENCE_S = 120.0
POLL_S = 0.05  # a poll looks at every file

app = Celery("plain")
app.conf.update(
    task_ignore_result=True,
    task_default_queue=QUEUE,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="image")
def make_image(path: str, label: int, seed: int) -> None:
    """Make one image of a class and write it as a PNG file."""
    import torch
    from PIL import Image

    from tests.bench.plain_generator import to_bytes

    generator = _generator()
    noise = torch.randn(1, generator.latent, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        image = generator(noise, torch.tensor([label]))
    Image.fromarray(to_bytes(image)[0].numpy()).save(path, "PNG")


@cache
def _generator():
    """This process's network, loaded once; one thread each, because there are as many as cores."""
    import torch

    from tests.bench.plain_generator import load_generator

    torch.set_num_threads(1)
    return load_generator(Path(os.environ[FOLDER]))


@contextmanager
def plain_celery(broker_url: str, model: Path, log: Path) -> Iterator[None]:
    """Two warm worker processes on a broker; killed at the end."""
    app.conf.broker_url = broker_url
    command = [sys.executable, "-m", "tests.bench.plain_celery", "worker", broker_url, str(model)]
    with log.open("wb") as file:
        worker = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        for turn in range(2):  # the first images load the network in both processes
            seconds_for(4 * PROCESSES, log.parent / f"warm-{turn}")
        yield
    finally:
        worker.terminate()
        worker.wait()


def seconds_for(count: int, folder: Path) -> float:
    """Seconds from the first `delay` until the last of `count` images is on disk."""
    folder.mkdir()
    began = time.perf_counter()
    for index in range(count):
        make_image.delay(str(folder / f"{index:09d}.png"), index % 10, index)
    while (written := files_written(folder)) < count:
        if time.perf_counter() - began > PATIENCE_S + count / 10:
            raise TimeoutError(f"{written} of {count} images")
        time.sleep(POLL_S)
    return time.perf_counter() - began


def files_written(folder: Path) -> int:
    """The number of files, without those that are still empty."""
    return sum(entry.stat().st_size > 0 for entry in os.scandir(folder))


def seconds_to_send(count: int) -> float:
    """Seconds of an `apply_async` loop over `count` tasks, which are then thrown away."""
    began = time.perf_counter()
    for index in range(count):
        make_image.apply_async(args=(f"/dev/null/{index:09d}.png", index % 10, index))
    spent = time.perf_counter() - began
    with redis.Redis.from_url(app.conf.broker_url) as client:
        client.delete(QUEUE)
    return spent


def main() -> None:
    """Run the workers in this process's group."""
    _, _, url, folder = sys.argv
    app.conf.broker_url = url
    os.environ[FOLDER] = folder
    options = ["--pool", "prefork", "--concurrency", str(PROCESSES), "--loglevel", "warning"]
    app.worker_main(["worker", *options, "--without-gossip", "--without-mingle"])


if __name__ == "__main__":
    main()

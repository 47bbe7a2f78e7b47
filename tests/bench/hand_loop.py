"""The baseline of large jobs: a loop by hand over batches of 64, with Pillow and files.

    python -m tests.bench.hand_loop MODEL_FOLDER OUT START STOP

is one process of it. `forwards` is less: the network alone, without noise, pixels or files.
"""

import subprocess
import sys
import time
from pathlib import Path

import torch
from PIL import Image

from tests.bench.plain_generator import load_generator, to_bytes

BATCH = 64
PROCESSES = 2


def write_images(model: Path, out: Path, start: int, stop: int) -> None:
    """Make images `start` to `stop` and write each as a PNG file."""
    generator = load_generator(model)
    noise_source = torch.Generator().manual_seed(start)
    with torch.inference_mode():
        for first in range(start, stop, BATCH):
            size = min(BATCH, stop - first)
            noise = torch.randn(size, generator.latent, generator=noise_source)
            labels = torch.arange(first, first + size) % 10
            for index, image in enumerate(to_bytes(generator(noise, labels)).numpy(), first):
                Image.fromarray(image).save(out / f"{index:09d}.png", "PNG")


def forwards(model: Path, count: int) -> None:
    """The forward passes alone of `count` images."""
    generator = load_generator(model)
    noise, labels = torch.randn(BATCH, generator.latent), torch.arange(BATCH) % 10
    with torch.inference_mode():
        for _ in range(0, count, BATCH):
            generator(noise, labels)


def run_loop(model: Path, count: int, folder: Path, *, processes: int = PROCESSES) -> float:
    """Seconds that `processes` take for `count` images, without their start-up."""
    folder.mkdir()
    share = -(-count // processes)
    ranges = [(at, min(at + share, count)) for at in range(0, count, share)]
    return _slowest([["loop", str(model), str(folder), *map(str, each)] for each in ranges])


def run_forwards(model: Path, count: int) -> float:
    """Seconds of the forward passes alone, in a process with one thread."""
    return _slowest([["forwards", str(model), str(count)]])


def _slowest(commands: list[list[str]]) -> float:
    """Start all; each waits for a line on stdin when it is ready, then prints its seconds."""
    head = [sys.executable, "-m", "tests.bench.hand_loop"]
    started = [
        subprocess.Popen([*head, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for words in commands
    ]
    for process in started:
        assert process.stdout
        process.stdout.readline()
    for process in started:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return max(float(process.communicate()[0]) for process in started)


def main() -> None:
    """Run one process: warm up, say so, wait, work, print the seconds that it took."""
    what, model, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    forwards(Path(model), 4 * BATCH)
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    if what == "forwards":
        forwards(Path(model), int(rest[0]))
    else:
        write_images(Path(model), Path(rest[0]), int(rest[1]), int(rest[2]))
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()

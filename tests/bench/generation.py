"""The overhead of generation over a plain loop, and whether its memory stays constant."""

import io
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from tests.bench.measure import Measure
from tests.bench.monitors import NullMonitor
from worker.data.dataset import Shape
from worker.engine.generate import Generation, generate
from worker.families import find_family
from worker.media import find_medium
from worker.media.samples.containers import SampleRecord
from worker.media.samples.record import Origin
from worker.networks.network import Draw, Network, Row

COUNT, TURNS, SEED = 2048, 3, 1
LABELS = tuple("0123456789")


def images_against_a_plain_loop(folder: Path) -> Measure:
    """Samples with records and digests in a tar, against plain sampling and PNG encoding."""
    network = gan()
    ours, base = [], []
    for _turn in range(TURNS):
        ours.append(COUNT / seconds(lambda: into_tar(network, COUNT, folder / "samples.tar")))
        base.append(COUNT / seconds(lambda: plain_loop(network)))
    name = f"gan generation, {COUNT} images of 28x28"
    return Measure(name, max(ours), max(base), "images/s", max(ours) / max(base), at_least=0.8)


def memory_of_ten_times_the_samples(folder: Path) -> Measure:
    """Peak memory of a process that generates ten times as many samples."""
    peaks = [peak_mib(count, folder) for count in (1_000, 10_000)]
    name = "peak memory, 10,000 images against 1,000"
    return Measure(name, peaks[1], peaks[0], "MiB", peaks[1] / peaks[0], at_most=1.1)


def gan() -> Network:
    """An untrained class-conditional generator for 28x28 grey images."""
    torch.manual_seed(SEED)
    family = find_family("gan")
    shape = Shape("image", labels=LABELS, size=28, channels=1)
    return family.network()(family.params(), shape).eval()


def into_tar(network: Network, count: int, path: Path) -> None:
    """Generate into a tar, as a worker does."""
    sampling = find_family("gan").sampling()
    generation = Generation(network, sampling, seed=SEED, start=0, stop=count)
    origin = Origin("gan", "digits:1", "0" * 64, SEED, sampling.model_dump(), sampling.micro_batch)
    with find_medium("image").open_writer(path, network.shape) as writer:
        for sample in generate(generation, NullMonitor()):
            shared = origin.shared(label=sample.label)
            writer.add([SampleRecord(sample.index, sample.output, shared)])
        writer.close()


def plain_loop(network: Network) -> None:
    """Sample and encode images, one micro-batch after another."""
    sampling = find_family("gan").sampling()
    size = sampling.micro_batch
    with torch.inference_mode():
        for start in range(0, COUNT, size):
            rows = [Row(i, i % len(LABELS)) for i in range(start, start + size)]
            for output in network.sample(
                rows, Draw([(SEED, i) for i in range(start, start + size)]), sampling
            ):
                Image.fromarray(output[:, :, 0]).save(io.BytesIO(), "PNG")


def seconds(work: Callable[[], object]) -> float:
    """Wall time of `work()`."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peak_mib(count: int, folder: Path) -> float:
    """Peak resident memory of a fresh process that generates `count` samples."""
    command = [sys.executable, "-m", "tests.bench.generation", str(count), str(folder / "peak.tar")]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


if __name__ == "__main__":
    into_tar(gan(), int(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))

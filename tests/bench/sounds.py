"""WaveNet: a job of clips on one worker, against the naive forward over the receptive field."""

import wave
from pathlib import Path

import torch
from torch.nn import functional

from tests.bench.bench import Bench
from tests.bench.machine import Machine
from tests.bench.measure import Measure, compare, seconds
from tests.bench.sources import add_source
from worker.engine.weights import load
from worker.families.wavenet.layers import receptive_field
from worker.families.wavenet.model import WaveNet
from worker.feeds.sounds import START_CODE

CLIPS = 32
NAIVE_STEPS = 40  # of the thousands that the clips have; each takes equally long
PLANNED = 3200  # samples of a clip, as in the data


def clips(bench: Bench) -> Measure:
    """Sound samples a second of 32 clips with the family's default network."""
    machine = Machine(bench.made_folder("sounds"))
    bench.stop_machine()
    machine.up(1)
    try:
        add_source(machine, "sounds")
        words = ["--dataset", "sounds", "--name", "voice", "--max-steps", "2", "--wait"]
        machine.run("enqueue", "train", "wavenet", *words)
        exported = bench.new_folder("voice")
        machine.run("model", "export", "voice", exported)
        _, network = load(exported, device=torch.device("cpu"))
        assert isinstance(network, WaveNet)
        name = f"wavenet, {CLIPS} clips, against the naive forward"
        return compare(
            name,
            "samples/s",
            lambda: generated(bench, machine),
            lambda: CLIPS * NAIVE_STEPS / seconds(lambda: naive(network, NAIVE_STEPS)),
            pairs=bench.pairs,
            at_least=20,
        )
    finally:
        machine.close()


def generated(bench: Bench, machine: Machine) -> float:
    """Samples of sound a second, from the job's first claim to its end."""
    settings = ["--set", f"micro_batch={CLIPS}", "--seed", "1"]
    job = machine.run("enqueue", "generate", "voice", "--count", str(CLIPS), *settings)
    machine.wait(id=job)
    out = bench.new_folder("clips")
    machine.run("artifact", "download", job, "-o", out)
    return sum(map(samples_in, out.glob("*.wav"))) / machine.duration(job)


def samples_in(path: Path) -> int:
    """Samples of a WAV file."""
    with wave.open(str(path), "rb") as file:
        return file.getnframes()


@torch.inference_mode()
def naive(network: WaveNet, steps: int) -> None:
    """The baseline: for each new sample, the whole receptive field once more."""
    field = receptive_field(network.params)
    codes = torch.full((CLIPS, field), START_CODE)
    lengths, labels = torch.full((CLIPS,), PLANNED), torch.arange(CLIPS) % 2
    for time in range(steps):
        logits = network(codes[:, -field:], torch.full((CLIPS,), time), lengths, labels)
        chosen = torch.multinomial(functional.softmax(logits[:, -1], dim=1), 1)
        codes = torch.cat([codes, chosen], dim=1)

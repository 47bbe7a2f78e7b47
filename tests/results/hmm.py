"""The hidden Markov model: tinyshakespeare with 16 states, and tunes as MIDI."""

import json

from tests.results.machine import DATA, Machine, Result
from tests.tunes import TUNES
from worker.music import midi, notes

BOUND = 2.6
COUNT = 1000


def hmm_on_shakespeare(machine: Machine) -> list[Result]:
    """Full EM steps on all sequences; judged on the last tenth, each character once."""
    machine.run("dataset", "add", "shakespeare", DATA / "tinyshakespeare.txt", "--split", "90,10,0")
    words = ["--dataset", "shakespeare", "--name", "monkey", "--max-steps", "50", "--seed", "1"]
    machine.run("enqueue", "train", "hmm", *words, "--set", "states=16", "--wait")
    metrics = machine.version("monkey")["metrics"]
    loss = metrics["nats_per_character"]
    figure = f"{loss:.3f} nats a character in {metrics['seconds']:.0f} s"
    case = "hmm, tinyshakespeare, 16 states, 50 steps"
    words = ["--count", str(COUNT), "--seed", "7", "--set", "max_tokens=100", "--wait"]
    job = machine.run("enqueue", "generate", "monkey", *words)
    machine.run("artifact", "download", job, "-o", machine.folder / "plays")
    lines = (machine.folder / "plays" / "samples.jsonl").read_text("utf-8").splitlines()
    texts = {json.loads(line)["text"] for line in lines}
    made = f"{len(texts)} different texts of {len(lines)}"
    return [
        Result(case, figure, f"<= {BOUND}", loss <= BOUND),
        Result(case, made, f"{COUNT} made", len(lines) == COUNT and len(texts) > 0.9 * COUNT),
    ]


def hmm_on_tunes(machine: Machine) -> list[Result]:
    """Train on MIDI files and generate MIDI files; count how many of the words are notes."""
    source = machine.folder / "tunes"
    source.mkdir()
    for name, text in TUNES.items():
        (source / f"{name}.mid").write_bytes(midi.write_midi(notes.read(text)))
    machine.run("dataset", "add", "tunes", source, "--split", "100,0,0")
    sets = ["tokenizer=words", "states=48", "prior=0.001", "restarts=16"]
    settings = [word for each in sets for word in ("--set", each)]
    words = ["--dataset", "tunes", "--name", "piper", "--max-steps", "100", "--seed", "1"]
    machine.run("enqueue", "train", "hmm", *words, *settings, "--wait")
    job = machine.run(
        "enqueue", "generate", "piper", "--count", str(COUNT), "--seed", "7", "--wait"
    )
    machine.run("artifact", "download", job, "-o", machine.folder / "text")
    machine.run("artifact", "download", job, "-o", machine.folder / "music", "--as", "midi")
    files = list((machine.folder / "music").glob("*.mid"))
    lines = (machine.folder / "text" / "samples.jsonl").read_text("utf-8").splitlines()
    made = [word for line in lines for word in json.loads(line)["text"].split()]
    good = sum(bool(notes.read(word).notes) or word[0] in "tr" for word in made) / len(made)
    case = "hmm, four tunes as MIDI, 48 states"
    return [
        Result(case, f"{good:.3f} of the words are notes", ">= 0.9", good >= 0.9),
        Result(case, f"{len(files)} MIDI files of {COUNT}", ">= 0.95", len(files) >= 0.95 * COUNT),
    ]

"""Synthetic data sets of every medium, and a small base model, as a user would add them."""

import json
import wave
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from PIL import Image

from tests.bench.machine import Machine, write_idx

SOURCES = {
    "gan": "images",
    "vae": "images",
    "text2image": "captions",
    "wavenet": "sounds",
    "gpt": "text",
    "rnn": "text",
    "hmm": "text",
    "hf": "pairs",
}
COUNT = 1000
RATE, SECONDS = 8000, 0.4


def add_source(machine: Machine, name: str) -> None:
    """Write the data set `name` and add it."""
    path = machine.folder / "sources" / name
    path.parent.mkdir(exist_ok=True)
    makers = {
        "images": images,
        "captions": captions,
        "sounds": sounds,
        "text": text,
        "pairs": pairs,
    }
    machine.run("dataset", "add", name, makers[name](path))


def images(path: Path) -> Path:
    """Grey 28x28 noise of ten brightnesses, as IDX files."""
    path.mkdir()
    labels = np.arange(COUNT, dtype=np.uint8) % 10
    write_idx(path / "train-images-idx3-ubyte", pictures(labels))
    write_idx(path / "train-labels-idx1-ubyte", labels)
    return path


def captions(path: Path) -> Path:
    """The same as files with captions."""
    path.mkdir()
    labels = np.arange(COUNT // 2, dtype=np.uint8) % 10
    lines = []
    for number, (label, pixels) in enumerate(zip(labels, pictures(labels), strict=True)):
        Image.fromarray(pixels).save(path / f"{number:04d}.png")
        lines.append({"file_name": f"{number:04d}.png", "text": f"brightness {label} of ten"})
    text_lines = "".join(json.dumps(line) + "\n" for line in lines)
    (path / "metadata.jsonl").write_text(text_lines, "utf-8")
    return path


def pictures(labels: np.ndarray) -> np.ndarray:
    """Pixels uint8 (N, 28, 28) for labels 0 to 9."""
    noise = np.random.default_rng(0).integers(0, 60, (len(labels), 28, 28))
    return (noise + labels[:, None, None] * 19).astype(np.uint8)


def sounds(path: Path) -> Path:
    """Tones of two pitches, each in its own folder."""
    draw, time = np.random.default_rng(0), np.arange(int(RATE * SECONDS)) / RATE
    for number in range(200):
        pitch = ("low", "high")[number % 2]
        (path / pitch).mkdir(parents=True, exist_ok=True)
        tone = np.sin(2 * np.pi * {"low": 220, "high": 660}[pitch] * time + draw.uniform(0, 6))
        noisy = 8000 * tone * np.exp(-3 * time) + draw.normal(0, 50, len(time))
        with wave.open(str(path / pitch / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", "not compressed"))
            file.writeframes(noisy.astype("<i2").tobytes())
    return path


def text(path: Path) -> Path:
    """Python's own documentation, which comes with it."""
    path = path.with_suffix(".txt")
    path.write_text("\n\n".join(topics.values()), "utf-8")
    return path


def pairs(path: Path) -> Path:
    """Prompts and completions cut out of it."""
    path = path.with_suffix(".jsonl")
    lines = "\n".join(topics.values()).splitlines()
    rows = [
        {"prompt": first, "completion": f" {second}"}
        for first, second in zip(lines[::2], lines[1::2], strict=False)
        if first.strip() and second.strip()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:2000]), "utf-8")
    return path


def add_base(machine: Machine) -> None:
    """Import the random Llama."""
    folder = machine.folder / "base"
    folder.mkdir()
    machine.run("model", "import", write_llama(folder), "--name", "base")


def write_llama(folder: Path) -> Path:
    """Save a random Llama of three million parameters in the empty `folder`."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tests.families.causal import write_tokenizer

    words = write_tokenizer(folder, topics.values())
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=0,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder

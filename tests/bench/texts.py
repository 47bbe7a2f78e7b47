"""Text: a job of many prompts on one worker, against transformers' `generate`.

Weights are random, so a text ends by chance, after as many tokens as there are words in the
vocabulary in the mean, and at the latest after 256: lengths are mixed, and alike on both sides.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

from safetensors import safe_open

from tests.bench.bench import Bench
from tests.bench.machine import Machine
from tests.bench.measure import Measure, compare
from tests.bench.plain_generate import (
    BATCH,
    CONTEXT,
    HEADS,
    LAYERS,
    MAX_NEW_TOKENS,
    WIDTH,
    save_llama,
)
from tests.bench.sources import add_source

PROMPT_CHARACTERS = (8, 160)
MODEL = "writer"
SHAPE = f"{LAYERS} layers, {WIDTH} wide"


def gpt(bench: Bench) -> Measure:
    """The family `gpt`, against a Llama of the same size and vocabulary."""

    def prepare(machine: Machine, folder: Path) -> list[list[int]]:
        add_source(machine, "text")
        size = {"layers": LAYERS, "width": WIDTH, "heads": HEADS, "context": CONTEXT}
        words = [word for key, value in size.items() for word in ("--set", f"{key}={value}")]
        words += ["--set", "batch_size=1", "--max-steps", "1", "--seed", "1", "--wait"]
        machine.run("enqueue", "train", "gpt", "--dataset", "text", "--name", MODEL, *words)
        exported = bench.new_folder("gpt")
        machine.run("model", "export", MODEL, exported)
        vocabulary = vocabulary_of(exported)
        save_llama(folder, vocabulary)
        # a token is a character; which one makes no difference to the time
        return [[1 + ord(c) % (vocabulary - 1) for c in prompt] for prompt in some_prompts(bench)]

    return _against_generate(bench, "gpt", prepare, at_least=3)


def hf(bench: Bench) -> Measure:
    """The family `hf`, against `generate` of the same model."""

    def prepare(machine: Machine, folder: Path) -> list[list[int]]:
        from transformers import AutoTokenizer

        from tests.families.causal import write_tokenizer

        folder.mkdir()
        save_llama(folder, write_tokenizer(folder, topics.values()))
        machine.run("model", "import", folder, "--name", MODEL)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return [tokenizer.encode(prompt) for prompt in some_prompts(bench)]

    return _against_generate(bench, "hf", prepare, at_least=1.5)


def _against_generate(
    bench: Bench,
    family: str,
    prepare: Callable[[Machine, Path], list[list[int]]],
    *,
    at_least: float,
) -> Measure:
    machine = Machine(bench.made_folder(family))
    bench.machine.down()
    machine.up(1)
    try:
        baseline, ids = bench.new_folder("llama"), machine.folder / "ids.json"
        ids.write_text(json.dumps(prepare(machine, baseline)))
        prompts = some_prompts(bench)
        generated(machine, prompts[:1])  # the network is loaded
        command = ["-m", "tests.bench.plain_generate", str(baseline), str(ids)]
        name = f"text, {family}, {SHAPE}, {len(prompts)} prompts, against generate"
        return compare(
            name,
            "texts/s",
            lambda: len(prompts) / generated(machine, prompts),
            lambda: len(prompts) / float(machine.python(*command)),
            pairs=bench.pairs,
            at_least=at_least,
        )
    finally:
        machine.close()


def generated(machine: Machine, prompts: list[str]) -> float:
    """Seconds of a job of all prompts, from its first claim to its end."""
    file = machine.folder / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    settings = {"max_tokens": MAX_NEW_TOKENS, "micro_batch": BATCH, "temperature": 1, "top_p": 1}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    count = ["--count", str(len(prompts)), "--prompts", str(file), "--seed", "1"]
    job = machine.run("enqueue", "generate", MODEL, *count, *words)
    machine.wait(id=job)
    return machine.duration(job)


def some_prompts(bench: Bench) -> list[str]:
    """Pieces of Python's documentation, of mixed length."""
    text, draw = "\n".join(topics.values()), random.Random(0)
    starts = [draw.randrange(len(text) - 200) for _ in range(bench.size(256, 8))]
    return [text[start : start + draw.randint(*PROMPT_CHARACTERS)] for start in starts]


def vocabulary_of(exported: Path) -> int:
    """The number of tokens of an exported version: the rows of its embedding."""
    with safe_open(exported / "model.safetensors", "pt") as weights:
        shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118 - no mapping
    return next(int(rows) for rows, *width in shapes if width == [WIDTH] and rows < WIDTH)

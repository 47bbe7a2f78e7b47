"""A transformers model: imported, fine-tuned on a form of answer, merged, prompted 1,000 times.

The base is a small Llama with its own tokenizer, trained here on tinyshakespeare by plain PyTorch.
It learns to answer a speech with JSON that names the speaker and counts the words.
"""

import json
import random
import re
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from tests.results.machine import DATA, Machine, Result

END = "<|endoftext|>"
CASE = "hf, a Llama of a million parameters, LoRA of rank 4, 200 steps"
SIZE = {
    "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
    "num_attention_heads": 4, "max_position_embeddings": 256,
}  # fmt: skip
VOCABULARY = 1024
STEPS = 200  # of the base's own training: enough to write something like English
ASKED = 1000
TUNING = ["rank=4", "context=128", "micro_batch=16"]


def hf_on_shakespeare(machine: Machine) -> list[Result]:
    """Fine-tune on 5,000 speeches; answer 1,000 held-out ones with the adapter apart and merged."""
    rows = speeches()[: 6 * ASKED]
    learnt, asked = rows[:-ASKED], rows[-ASKED:]
    write_lines(machine.folder / "learnt.jsonl", learnt)
    write_lines(machine.folder / "asked.jsonl", [{"prompt": row["prompt"]} for row in asked])
    machine.run(
        "model", "import", tiny_base(machine.folder / "base", steps=STEPS), "--name", "reader"
    )
    machine.run("dataset", "add", "speeches", machine.folder / "learnt.jsonl", "--split", "90,10,0")
    # a step of almost no length gives the base's own loss, by the same code on the same examples
    before = _finetune(machine, steps=1, lr=1e-9)["metrics"]["loss"]
    after = _finetune(machine, steps=200, lr=5e-3)
    losses = f"{before:.3f} to {after['metrics']['loss']:.3f} nats a token of the answers"
    base, adapter = (
        after["files"][name]["size"] for name in ("model.safetensors", "adapter_model.safetensors")
    )
    halved = after["metrics"]["loss"] <= before / 2
    return [
        Result(CASE, f"held-out loss {losses}", "half", halved),
        Result(
            CASE, f"adapter {adapter / base:.3f} of the base's bytes", "< 0.05", adapter < base / 20
        ),
        *_merged(machine, asked),
    ]


def tiny_base(folder: Path, *, steps: int = 20) -> Path:
    """A small Llama and its tokenizer, trained for some steps on tinyshakespeare, in `folder`."""
    text = (DATA / "tinyshakespeare.txt").read_text("utf-8")
    tokenizer = _tokenizer(text)
    ids = torch.tensor(tokenizer(text)["input_ids"])
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **SIZE)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        starts = torch.randint(len(ids) - 129, (16,))
        data = torch.stack([ids[at : at + 129] for at in starts.tolist()])
        logits = model(input_ids=data[:, :-1]).logits.flatten(0, 1)
        functional.cross_entropy(logits, data[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def speeches() -> list[dict[str, str]]:
    """Each speech's first line and the wanted answer, shuffled."""
    text = (DATA / "tinyshakespeare.txt").read_text("utf-8")
    rows = []
    for name, line in re.findall(r"(?:^|\n\n)([^\n:]{2,30}):\n([^\n]{2,80})", text):
        answer = json.dumps({"speaker": name, "words": len(line.split())})
        rows.append({"prompt": f"{name}: {line}\n", "completion": answer})
    random.Random(0).shuffle(rows)
    return rows


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _tokenizer(text: str) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(text.splitlines(keepends=True), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=END, eos_token=END)


def _finetune(machine: Machine, *, steps: int, lr: float) -> dict:
    """Fine-tune the base; return the version as `model show` prints it."""
    words = ["--dataset", "speeches", "--seed", "1", "--max-steps", str(steps), "--wait"]
    settings = [word for each in [*TUNING, f"lr={lr}"] for word in ("--set", each)]
    machine.run("enqueue", "finetune", "reader:1", *words, *settings)
    return machine.version("reader")


def _merged(machine: Machine, asked: list[dict[str, str]]) -> list[Result]:
    """Compare base and adapter, kept apart, with the merged model: logits and greedy answers."""
    machine.run("model", "export", "reader", machine.folder / "apart")
    machine.run("model", "export", "reader", machine.folder / "merged", "--merge")
    machine.run("model", "import", machine.folder / "merged", "--name", "merged")
    apart, merged = (_answers(machine, model) for model in ("reader", "merged"))
    same = sum(one == other for one, other in zip(apart, merged, strict=True))
    valid = sum(_is_answer(text) for text in apart)
    far = _logits_apart(machine, asked[0]["prompt"] + asked[0]["completion"])
    return [
        Result(CASE, f"merged logits differ by at most {far:.1e}", "<= 1e-3", far <= 1e-3),
        Result(CASE, f"{same} of {ASKED} greedy answers equal when merged", ">= 999", same >= 999),
        Result(CASE, f"{valid} of {ASKED} answers have the form", ">= 950", valid >= 950),
    ]


def _answers(machine: Machine, model: str) -> list[str]:
    """1,000 greedy answers through the queue, verified, in order."""
    words = ["--prompts", machine.folder / "asked.jsonl", "--set", "temperature=0"]
    settings = ["--set", "max_tokens=32", "--set", "micro_batch=32"]
    job = machine.run("enqueue", "generate", model, *words, *settings, "--wait")
    machine.run("artifact", "verify", job)
    machine.run("artifact", "download", job, "-o", machine.folder / f"answers-{model}")
    files = (machine.folder / f"answers-{model}").rglob("*.jsonl")
    rows = [json.loads(line) for path in files for line in path.read_text("utf-8").splitlines()]
    return [row["text"] for row in sorted(rows, key=lambda row: row["index"])]


def _is_answer(text: str) -> bool:
    """Whether a text is exactly JSON with a speaker and a number of words."""
    try:
        answer = json.loads(text)
    except ValueError:
        return False
    return isinstance(answer, dict) and list(answer) == ["speaker", "words"]


def _logits_apart(machine: Machine, text: str) -> float:
    """The greatest difference of a logit, both folders read by transformers itself."""
    ids = AutoTokenizer.from_pretrained(machine.folder / "merged")(
        text, return_tensors="pt"
    ).input_ids
    with torch.inference_mode():
        one, other = (
            AutoModelForCausalLM.from_pretrained(machine.folder / name).eval()(ids).logits
            for name in ("apart", "merged")
        )
    return float((one - other).abs().max())

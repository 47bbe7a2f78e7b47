"""LoRA fine-tuning by `hf` against transformers and peft alone, with the same hyper-parameters."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.bench.bench import Bench
from tests.bench.measure import Measure, compare, seconds
from tests.bench.monitors import NullMonitor
from tests.bench.sources import pairs, write_llama
from tests.bench.training import add
from tests.families.causal import add_record
from worker.data.dataset import TRAIN, VALIDATION, LocalDataset
from worker.engine.train import Training, train
from worker.families import find_family
from worker.specs import parse_params

BATCH, LENGTH, RANK, LR = 16, 128, 16, 2e-4
IGNORED = -100

Example = tuple[list[int], list[int]]  # tokens, and those that are predicted or `IGNORED`


def lora_against_peft(bench: Bench) -> Measure:
    """A Llama of three million parameters learns completions, `BATCH` examples a step."""
    torch.set_num_threads(1)
    steps = bench.size(60, 20)
    base = add_record(write_llama(bench.made_folder("base")))
    dataset = add(pairs(bench.new_folder("pairs")), bench.new_folder("dataset"))
    family = find_family("hf")
    given = {"batch_size": BATCH, "micro_batch": BATCH, "context": LENGTH, "packing": False}
    params = parse_params(family.params, given | {"rank": RANK, "lr": LR}, what="hf")

    def ours() -> float:
        folder = bench.made_folder("lora")
        request = Training(family, params, dataset, folder, parent=base, max_steps=steps)
        return steps / seconds(lambda: train(request, NullMonitor()))

    def baseline() -> float:
        return steps / seconds(lambda: plain_loop(base, dataset, steps, bench.made_folder("peft")))

    name = f"hf, LoRA of rank {RANK}, {steps} steps, against transformers and peft alone"
    return compare(name, "steps/s", ours, baseline, pairs=bench.pairs, at_least=0.95)


def plain_loop(base: Path, dataset: LocalDataset, steps: int, folder: Path) -> None:
    """Train as peft's own examples do, validate once, save the adapter."""
    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=RANK, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear"
    )
    model = get_peft_model(model, config).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, weight_decay=0.0)
    examples = tokenized(dataset, tokenizer, TRAIN)
    for step in range(steps):
        chosen = torch.randint(len(examples), (BATCH,)).tolist()
        loss = model(**collated([examples[i] for i in chosen])).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if step % 10 == 0:
            loss.item()
    model.eval()
    held_out = tokenized(dataset, tokenizer, VALIDATION)
    with torch.inference_mode():
        for first in range(0, len(held_out), BATCH):
            model(**collated(held_out[first : first + BATCH]))
    model.save_pretrained(folder)


def tokenized(dataset: LocalDataset, tokenizer: Any, split: int) -> list[Example]:
    """A split's prompts and completions, of which the completion and the end are predicted."""
    found = []
    for row in dataset.documents(split):
        prompt, answer = (tokenizer(row[key])["input_ids"] for key in ("prompt", "completion"))
        answer = [*answer, tokenizer.eos_token_id]
        ids, labels = [*prompt, *answer], [*[IGNORED] * len(prompt), *answer]
        if len(prompt) < LENGTH:
            found.append((ids[:LENGTH], labels[:LENGTH]))
    return found


def collated(examples: list[Example]) -> dict[str, torch.Tensor]:
    """Padded to the longest, with the mask and the labels, as a data collator does."""
    width = max(len(ids) for ids, _ in examples)
    return {
        "input_ids": torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in examples]),
        "attention_mask": torch.tensor(
            [[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in examples]
        ),
        "labels": torch.tensor(
            [labels + [IGNORED] * (width - len(labels)) for _, labels in examples]
        ),
    }

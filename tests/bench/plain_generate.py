"""The baseline of text: transformers' `generate` over batches of 32 prompts, sorted by length.

    python -m tests.bench.plain_generate MODEL_FOLDER PROMPTS.json

PROMPTS.json is a list of lists of token ids. Prints the seconds that generating took.
"""

import json
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

BATCH = 32
MAX_NEW_TOKENS = 256
LAYERS, WIDTH, HEADS = 6, 384, 6
CONTEXT = 512


def save_llama(folder: Path, vocabulary: int) -> None:
    """Save a random Llama of the benchmark's size; token 0 ends a text."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=8 * WIDTH // 3,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


@torch.inference_mode()
def generate(model: torch.nn.Module, prompts: list[list[int]]) -> None:
    """Continue every prompt until its end or for 256 tokens."""
    prompts = sorted(prompts, key=len)
    for start in range(0, len(prompts), BATCH):
        some = prompts[start : start + BATCH]
        longest = max(map(len, some))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in some])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in some])
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            max_new_tokens=MAX_NEW_TOKENS,
            pad_token_id=0,
        )


def main() -> None:
    """Generate once for a short warm-up, then for all prompts."""
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
    prompts = json.loads(Path(sys.argv[2]).read_text("utf-8"))
    model.generation_config.max_new_tokens = 2
    model.generate(input_ids=torch.tensor([prompts[0]]), do_sample=False, pad_token_id=0)
    began = time.perf_counter()
    generate(model, prompts)
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()

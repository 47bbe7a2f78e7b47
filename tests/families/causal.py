"""Tiny models of transformers: made, saved, and given Genmill's record as by an import."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from scheduler.models.folder_check import check_folder
from worker.files import digest_of
from worker.networks.version_folder import CONFIG

END = "<|endoftext|>"
CHAT = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    "{% if message.role == 'assistant' %}<|endoftext|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
POSITIONS = 48


def gpt2(vocabulary: int, *, width: int = 32, positions: int = POSITIONS) -> PretrainedConfig:
    return GPT2Config(
        vocab_size=vocabulary, n_positions=positions, n_embd=width, n_layer=2, n_head=2,
        bos_token_id=0, eos_token_id=0, initializer_range=0.3,
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    )  # fmt: skip


def llama(vocabulary: int, *, width: int = 32, positions: int = POSITIONS) -> PretrainedConfig:
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=positions,
        bos_token_id=0, eos_token_id=0, initializer_range=0.3,
    )  # fmt: skip


KINDS = {"gpt2": gpt2, "llama": llama}


def write_base(
    folder: Path,
    texts: Iterable[str],
    *,
    kind: str | Callable[[int], PretrainedConfig] = "gpt2",
    chat: str | None = None,
    seed: int = 0,
    vocabulary: int = 320,
) -> Path:
    """Save a random model and a tokenizer trained on `texts`, as transformers does."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    describe = KINDS[kind] if isinstance(kind, str) else kind
    config = describe(write_tokenizer(folder, texts, chat=chat, vocabulary=vocabulary))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def write_tokenizer(
    folder: Path, texts: Iterable[str], *, chat: str | None = None, vocabulary: int = 320
) -> int:
    """Save a byte-level BPE of at most so many tokens; return how many it has.

    With too few for every byte, it knows those of `texts` alone.
    """
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, "<|user|>", "<|assistant|>", "<|system|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if vocabulary > 260 else [],
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    whole = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=END, eos_token=END, chat_template=chat
    )
    whole.save_pretrained(folder)
    return len(whole)


def add_record(folder: Path) -> Path:
    """Put Genmill's record into the folder's `config.json`, as an import does."""
    found = check_folder(folder)
    config, _ = found.version_config({name: digest_of(folder / name) for name in found.names})
    (folder / CONFIG).write_text(config, "utf-8")
    return folder

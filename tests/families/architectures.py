"""Ten architectures of transformers at tiny sizes, and what an import must find out about each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import (
    FalconConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    PretrainedConfig,
    Qwen3Config,
)

ENDS = {"bos_token_id": 0, "eos_token_id": 0}
COMMON: dict[str, Any] = {**ENDS, "initializer_range": 0.3}
SMALL: dict[str, Any] = {
    **COMMON, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 64,
}  # fmt: skip
GATED: dict[str, Any] = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 1}
OPT: dict[str, Any] = {
    **ENDS, "hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "init_std": 0.3,
}  # fmt: skip
GPT2: dict[str, Any] = {
    **COMMON, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2,
    "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """A tiny model's configuration by the size of its vocabulary, and what it can do."""

    config: Callable[[int], PretrainedConfig]
    cache: bool = True
    packing: bool = True
    targets: tuple[str, ...] = ()


ARCHITECTURES = {
    "GPT-2": Architecture(lambda size: GPT2Config(vocab_size=size, **GPT2)),
    "GPT-NeoX": Architecture(
        lambda size: GPTNeoXConfig(vocab_size=size, intermediate_size=48, **SMALL)
    ),
    "Llama": Architecture(lambda size: LlamaConfig(vocab_size=size, **GATED)),
    "Mistral": Architecture(lambda size: MistralConfig(vocab_size=size, sliding_window=8, **GATED)),
    "Qwen3": Architecture(lambda size: Qwen3Config(vocab_size=size, head_dim=16, **GATED)),
    "Gemma": Architecture(
        lambda size: GemmaConfig(vocab_size=size, head_dim=16, pad_token_id=0, **GATED)
    ),
    "Phi": Architecture(lambda size: PhiConfig(vocab_size=size, intermediate_size=48, **SMALL)),
    "OPT": Architecture(lambda size: OPTConfig(vocab_size=size, **OPT), packing=False),
    "Falcon": Architecture(
        lambda size: FalconConfig(vocab_size=size, alibi=False, **SMALL), packing=False
    ),
    "Mamba": Architecture(
        lambda size: MambaConfig(
            vocab_size=size, hidden_size=32, state_size=4, num_hidden_layers=2, **COMMON
        ),
        cache=False,
        packing=False,
        targets=("in_proj", "x_proj"),
    ),
}

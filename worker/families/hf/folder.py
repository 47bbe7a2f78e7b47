"""The files of a causal language model as `transformers` saves it. No torch here."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from db.errors import BadInput
from worker.networks.version_folder import WEIGHTS, read_weight_map

INDEX = "model.safetensors.index.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
GENERATION_CONFIG = "generation_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
OPTIONAL = (
    GENERATION_CONFIG, "special_tokens_map.json", "added_tokens.json", CHAT_TEMPLATE,
    "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model",
)  # fmt: skip
LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}\.safetensors")


def weight_files(folder: Path) -> list[str]:
    """The base's weights: one file if it is there, or else those that the index names."""
    path = folder / INDEX
    if (folder / WEIGHTS).is_file() or not path.is_file():
        return [WEIGHTS]
    named = sorted(set(read_weight_map(path).values()))
    if strange := [name for name in named if not PLAIN_NAME.fullmatch(name)]:
        raise BadInput(f"{path}: {strange[0]!r} is not a plain name of a safetensors file")
    return named


def positions(config: Mapping[str, Any]) -> int | None:
    """The most tokens that the base was made for; None if its configuration does not say."""
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        found = [part[name] for name in LENGTHS if isinstance(part.get(name), int)]
        if found:
            return int(found[0])
    return None

"""A causal language model's folder in the layout of `transformers`. No torch here.

What such a folder holds comes from strangers: nothing in it is run, names are plain, weights are
safetensors. A version keeps the files as they are; only `config.json` gets Genmill's own record.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from db.errors import BadInput
from worker.data.dataset import Shape
from worker.families.hf import FAMILY, HfParams
from worker.files import weights_digest
from worker.specs import parse_params

Config = dict[str, Any]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
OTHERS = (
    "generation_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model",
)  # fmt: skip
CAUSAL = ("ForCausalLM", "LMHeadModel")  # how the names of such architectures end
MAX_CONTEXT = 1024  # of a packed row, where nobody asks for another
_LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}\.safetensors")


def files_of(folder: Path, config: Config) -> list[str]:
    """The names of a model's files but `config.json`, weights first; what it lacks is refused."""
    _refuse_others(folder, config)
    for name in TOKENIZER:
        if not (folder / name).is_file():
            raise BadInput(
                f"{folder}: no {name}; write the tokenizer there with transformers: "
                "AutoTokenizer.from_pretrained(...).save_pretrained(DIR)"
            )
    if "auto_map" in read_json(folder / TOKENIZER[1]):
        raise BadInput(_remote(folder / TOKENIZER[1]))
    adapter = [name for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG) if (folder / name).is_file()]
    if len(adapter) == 1:
        raise BadInput(f"{folder}: {adapter[0]} without its fellow; an adapter is both files")
    _adapter_params(folder)  # refuses what is no plain LoRA
    beside = [name for name in OTHERS if (folder / name).is_file()]
    return [*weight_files(folder), *adapter, *_index(folder), *TOKENIZER, *beside]


def weight_files(folder: Path) -> list[str]:
    """The base's weights: one file, or those that the index names."""
    if not _index(folder):
        return [WEIGHTS]
    try:
        named = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError):
        raise BadInput(f"{folder / INDEX}: no weight_map of tensors to files") from None
    if strange := [name for name in named if not _PLAIN.fullmatch(str(name))]:
        raise BadInput(f"{folder / INDEX}: {strange[0]!r} is no plain name of a safetensors file")
    return named


def record(folder: Path, config: Config, digests: Mapping[str, str]) -> Config:
    """Genmill's record of a model, as `config.json` keeps it under `genmill`.

    `digests` are of the files by name; `base_sha256` pins the base's weights. The parameters are
    those of an earlier record where there is one.
    """
    earlier = config.get("genmill", {})
    params = earlier.get("params", {}) if isinstance(earlier, dict) else {}
    params = _params(config) | _adapter_params(folder) | params
    return {
        "genmill": 1,
        "family": FAMILY.name,
        "params": parse_params(HfParams, params, what=f"{folder / CONFIG}").model_dump(mode="json"),
        "shape": Shape("text").to_json(),
        "base_sha256": weights_digest({name: digests[name] for name in weight_files(folder)}),
    }


def read_json(path: Path) -> Config:
    """A JSON object from a file; `BadInput` where it is none."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON ({error})") from None
    if not isinstance(data, dict):
        raise BadInput(f"{path}: not a JSON object")
    return data


def positions(config: Config) -> int | None:
    """The most tokens that the base was made for; None where its configuration does not say."""
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        found = [part[name] for name in _LENGTHS if isinstance(part.get(name), int)]
        if found:
            return int(found[0])
    return None


def _refuse_others(folder: Path, config: Config) -> None:
    path, kinds = folder / CONFIG, config.get("architectures")
    if "auto_map" in config:
        raise BadInput(_remote(path))
    if not isinstance(config.get("model_type"), str):
        adapter = (folder / ADAPTER_CONFIG).is_file()
        hint = "; of an adapter alone, put its base's files beside it" if adapter else ""
        raise BadInput(f"{path}: no model_type, as transformers' models have{hint}")
    causal = isinstance(kinds, list) and any(str(kind).endswith(CAUSAL) for kind in kinds)
    if not causal or config.get("is_encoder_decoder"):
        raise BadInput(f"{path}: {kinds} is no causal language model (one named ...ForCausalLM)")
    if "quantization_config" in config:
        raise BadInput(f"{path}: the weights are quantised; import the model as it was before")


def _remote(path: Path) -> str:
    return f"{path}: auto_map names code of the model's own, which is never run: remove it"


def _index(folder: Path) -> list[str]:
    return [INDEX] if (folder / INDEX).is_file() else []


def _params(config: Config) -> Config:
    return {"context": min(positions(config) or MAX_CONTEXT, MAX_CONTEXT)}


def _adapter_params(folder: Path) -> Config:
    """The parameters that an adapter was made with, so that fine-tuning can go on from it."""
    if not (folder / ADAPTER_CONFIG).is_file():
        return {}
    config = read_json(folder / ADAPTER_CONFIG)
    plain = {"bias": "none", "use_dora": False, "modules_to_save": None, "use_rslora": False}
    odd = [
        f"{key} {config[key]!r}" for key, usual in plain.items() if config.get(key, usual) != usual
    ]
    odd += [
        f"{key} {config[key]!r}" for key in ("rank_pattern", "alpha_pattern") if config.get(key)
    ]
    if config.get("peft_type") != "LORA" or odd:
        what = ", ".join(odd) or f"peft_type {config.get('peft_type')!r}"
        raise BadInput(f"{folder / ADAPTER_CONFIG}: {what}; taken are plain LoRA adapters")
    try:
        return {"rank": config["r"], "alpha": config["lora_alpha"]}
    except KeyError as error:
        raise BadInput(f"{folder / ADAPTER_CONFIG}: no {error}") from None

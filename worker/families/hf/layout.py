"""How a folder that `transformers` saved becomes a version of `hf`. No torch here.

The folder comes from strangers: nothing in it is run, names are plain, weights are safetensors. A
version keeps the files as they are; only `config.json` gets Genmill's record under `genmill`.
"""

from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

from db.errors import BadInput, Refused
from worker.data.dataset import Shape
from worker.families.hf.folder import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CHAT_TEMPLATE,
    INDEX,
    OPTIONAL,
    TOKENIZER,
    positions,
    weight_files,
)
from worker.families.hf.merge import merge
from worker.files import weights_digest
from worker.networks.family import ForeignLayout
from worker.networks.version_folder import CONFIG, WEIGHTS, Config, read_json

CAUSAL = ("ForCausalLM", "LMHeadModel")  # how the names of causal architectures end
MAX_CONTEXT = 1024  # tokens of a packed row by default
# what peft's settings are in plain LoRA, W + (alpha / rank) B A; another value computes otherwise
PLAIN_LORA = {
    "bias": "none", "lora_bias": False, "use_dora": False, "use_rslora": False, "use_qalora": False,
    **dict.fromkeys((
        "modules_to_save", "target_parameters", "trainable_token_indices", "layer_replication",
        "alora_invocation_tokens", "use_bdlora", "arrow_config", "kasa_config",
        "monteclora_config", "megatron_config",
    )),
}  # fmt: skip
# other beginnings (pissa, olora, corda, loftq) change the base, which adapters here share
PLAIN_BEGINNINGS = (True, False, None, "gaussian", "orthogonal", "eva")


class TransformersLayout:
    """`config.json`, weights in one file or several, a tokenizer; perhaps a LoRA adapter."""

    config_key = "model_type"

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """See `ForeignLayout.recognises`."""
        return bool({"model_type", "auto_map"} & config.keys())

    def files(self, folder: Path, config: Mapping[str, Any]) -> list[str]:
        """See `ForeignLayout.files`."""
        _require_causal(folder, config)
        for name in TOKENIZER:
            if not (folder / name).is_file():
                raise BadInput(
                    f"{folder}: no {name}",
                    remedy="write the tokenizer there with transformers: "
                    "AutoTokenizer.from_pretrained(...).save_pretrained(DIR)",
                )
        _refuse_remote_code(folder / TOKENIZER[1], read_json(folder / TOKENIZER[1]))
        adapter = [name for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG) if (folder / name).is_file()]
        if len(adapter) == 1:
            [missing] = {ADAPTER_WEIGHTS, ADAPTER_CONFIG} - {*adapter}
            raise BadInput(
                f"{folder}: {adapter[0]} but no {missing}",
                remedy="copy both files of the adapter, or neither",
            )
        _adapter_params(folder)  # refuses adapters other than plain LoRA
        weights = weight_files(folder)
        index = [] if weights == [WEIGHTS] else [INDEX]
        optional = [name for name in OPTIONAL if (folder / name).is_file()]
        return [*weights, *index, *adapter, *TOKENIZER, *optional]

    def record(
        self, folder: Path, config: Mapping[str, Any], digests: Mapping[str, str]
    ) -> dict[str, Any]:
        """See `ForeignLayout.record`; `base_sha256` identifies the base's weights.

        Parameters in the record of an exported folder are kept.
        """
        earlier = config.get("genmill")
        kept = earlier.get("params", {}) if isinstance(earlier, dict) else {}
        context = min(positions(config) or MAX_CONTEXT, MAX_CONTEXT)
        return {
            "params": {"context": context} | _adapter_params(folder) | kept,
            "shape": Shape("text").to_json(),
            "base_sha256": weights_digest({name: digests[name] for name in weight_files(folder)}),
        }

    def library(self, names: Container[str]) -> str:
        """See `ForeignLayout.library`."""
        return "peft" if ADAPTER_CONFIG in names else "transformers"

    def has_chat_template(
        self, names: Container[str], read: Callable[[str], Mapping[str, Any]]
    ) -> bool:
        """See `ForeignLayout.has_chat_template`."""
        return CHAT_TEMPLATE in names or bool(read(TOKENIZER[1]).get("chat_template"))

    def merge(self, folder: Path) -> None:
        """See `ForeignLayout.merge`."""
        if not (folder / ADAPTER_CONFIG).is_file():
            raise Refused("this version has no adapter to merge", remedy="leave --merge out")
        merge(folder)


def _require_causal(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse what is not a causal language model with its weights in full precision."""
    path, kinds = folder / CONFIG, config.get("architectures")
    _refuse_remote_code(path, config)
    if not isinstance(config.get("model_type"), str):
        alone = (folder / ADAPTER_CONFIG).is_file()
        raise BadInput(
            f"{path}: no model_type, as transformers' models have",
            remedy="put the adapter's base beside it" if alone else None,
        )
    causal = isinstance(kinds, list) and any(str(kind).endswith(CAUSAL) for kind in kinds)
    if not causal or config.get("is_encoder_decoder"):
        raise BadInput(
            f"{path}: {kinds or 'a model without architectures'} is not a causal language model "
            "(...ForCausalLM)"
        )
    if "quantization_config" in config:
        raise BadInput(
            f"{path}: the weights are quantised", remedy="import the model in full precision"
        )


def _refuse_remote_code(path: Path, config: Mapping[str, Any]) -> None:
    if "auto_map" in config:
        raise BadInput(
            f"{path}: auto_map names code of the model's own, which is never run",
            remedy="remove it",
        )


def _adapter_params(folder: Path) -> Config:
    """The parameters that an adapter was made with, so that fine-tuning can continue it."""
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        return {}
    config = read_json(path)
    odd = [key for key, usual in PLAIN_LORA.items() if config.get(key, usual) != usual]
    odd += [key for key in ("rank_pattern", "alpha_pattern") if config.get(key)]
    odd += ["init_lora_weights"] if config.get("init_lora_weights") not in PLAIN_BEGINNINGS else []
    if config.get("peft_type") != "LORA":
        odd = ["peft_type"]
    if odd:
        what = ", ".join(f"{key} {config.get(key)!r}" for key in odd)
        raise BadInput(f"{path}: only plain LoRA adapters are accepted, not {what}")
    try:
        return {"rank": config["r"], "alpha": config["lora_alpha"]}
    except KeyError as error:
        raise BadInput(f"{path}: no {error}") from None


LAYOUT: ForeignLayout = TransformersLayout()

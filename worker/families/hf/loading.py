"""Reading a base from a version's folder: all of its tensors, and none drawn at random."""

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import logging
from transformers.utils.import_utils import BITSANDBYTES_MIN_VERSION, is_bitsandbytes_available

from db.errors import BadInput, GenmillError, NotSupportedHere, raise_outage
from worker.families.hf.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, INDEX, weight_files
from worker.families.hf.merge import stored_tensors
from worker.networks.version_folder import CONFIG, read_json

DOWNLOAD_AGAIN = "download or save the model again, weights and config.json together"
SHOWN = 3  # names in a message
LAYERS = {"num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"}

logging.set_verbosity_error()
logging.disable_progress_bar()


def read_base(folder: Path, device: torch.device, precision: str) -> nn.Module:
    """Read the base of a version's folder, every tensor of it and no other.

    `precision` is fp32, bf16 or nf4. Raises `NotSupportedHere` where this machine cannot,
    `BadInput` where the files are not a model.
    """
    if precision == "nf4" and not (device.type == "cuda" and is_bitsandbytes_available()):
        raise NotSupportedHere(
            f"base=nf4 (QLoRA) needs a CUDA device and the package bitsandbytes, "
            f"{BITSANDBYTES_MIN_VERSION} or newer; this device is {device}",
            remedy="set base to bf16 or fp32",
        )
    quantisation = None
    if precision == "nf4":
        quantisation = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    with _without_adapter(folder) as plain, _reading():
        _refuse_larger(plain)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            plain,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32 if precision == "fp32" else torch.bfloat16,
            quantization_config=quantisation,
            device_map={"": device} if precision == "nf4" else None,
            ignore_mismatched_sizes=True,  # they are in the report
            output_loading_info=True,
        )
    model: nn.Module = loaded[0]
    _refuse_unfit(type(model).__name__, loaded[1])
    return model if precision == "nf4" else model.to(device)


@contextmanager
def _reading() -> Iterator[None]:
    """Raise `BadInput` in place of whatever transformers raises for files that are not a model."""
    try:
        yield
    except GenmillError:
        raise
    except Exception as error:
        raise_outage(error)
        complaint = " ".join(str(error).split())[:300]
        raise BadInput(
            f"transformers cannot read the base: {complaint}", remedy=DOWNLOAD_AGAIN
        ) from None


def empty_model(folder: Path) -> Any:
    """The model that `config.json` describes, without memory for its weights."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _refuse_larger(folder: Path) -> None:
    """Refuse a configuration of more weights than the files hold, before memory is taken."""
    stored = {
        name: tensor
        for file in weight_files(folder)
        for name, tensor in stored_tensors(folder / file).items()
    }
    config = read_json(folder / CONFIG)
    _refuse_more_layers(config, len(stored))
    _refuse_strange_padding(config)
    model = empty_model(folder)
    declared = sum(each.numel() for each in model.parameters())
    held = sum(math.prod(tensor.shape) for tensor in stored.values())
    if declared > held:
        tied = {*getattr(model, "all_tied_weights_keys", {})}
        differing = [
            f"{name} {tuple(value.shape)}"
            for name, value in sorted(model.state_dict().items())
            if name not in tied and (name not in stored or stored[name].shape != value.shape)
        ]
        raise BadInput(
            f"{CONFIG} describes a {type(model).__name__} of {declared:,} weights, but the files "
            f"hold {held:,}{_named('; not in them', differing)}",
            remedy=DOWNLOAD_AGAIN,
        )


def _refuse_more_layers(config: Mapping[str, Any], tensors: int) -> None:
    """Refuse more layers than there are tensors, which would take long to build."""
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        for key in LAYERS & part.keys():
            if isinstance(part[key], int) and part[key] > tensors:
                raise BadInput(
                    f"{CONFIG}: {key} is {part[key]}, but the files hold {tensors} tensors",
                    remedy=DOWNLOAD_AGAIN,
                )


def _refuse_strange_padding(config: Mapping[str, Any]) -> None:
    """Refuse padding by a token that the model does not have; some count it from the end."""
    padding, size = config.get("pad_token_id"), config.get("vocab_size")
    if isinstance(padding, int) and isinstance(size, int) and not -size <= padding < size:
        raise BadInput(
            f"{CONFIG}: pad_token_id is {padding}, but vocab_size is {size}",
            remedy="set it to one of the model's tokens, or to null",
        )


def _refuse_unfit(kind: str, report: Mapping[str, Any]) -> None:
    """Refuse tensors that would be drawn at random, or that are not used."""
    other_shapes = [
        f"{name} (is {tuple(found)}, must be {tuple(wanted)})"
        for name, found, wanted in report["mismatched_keys"]
    ]
    complaints = (
        ("not in the files", report["missing_keys"]),
        ("of another shape", other_shapes),
        ("in the files that it does not have", report["unexpected_keys"]),
    )
    if said := [
        _named(f"{len(names)} {what}", sorted(names)) for what, names in complaints if names
    ]:
        raise BadInput(
            f"the tensors are not those of a {kind}: {', and '.join(said)}", remedy=DOWNLOAD_AGAIN
        )


def _named(what: str, names: Sequence[str]) -> str:
    more = ", ..." if len(names) > SHOWN else ""
    return f"{what}: {', '.join(names[:SHOWN])}{more}" if names else ""


@contextmanager
def _without_adapter(folder: Path) -> Iterator[Path]:
    """The folder without its adapter, which transformers would load with the base."""
    with tempfile.TemporaryDirectory() as name:
        for path in folder.iterdir():
            if path.name == INDEX:  # transformers wants metadata, which not everybody writes
                index = json.dumps({"metadata": {}, **read_json(path)})
                (Path(name) / INDEX).write_text(index, "utf-8")
            elif path.name not in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
                (Path(name) / path.name).symlink_to(path.absolute())
        yield Path(name)
